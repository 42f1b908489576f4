"""The card of a saved model, read back with huggingface_hub: its figures are those of metrics.json."""

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from PIL import Image

from modeling_trm import PRESETS, GridProcessor, ReasoningConfig
from modeling_trm.cards.card import PROJECT, render_card, write_model_card
from modeling_trm.cards.sections import command_source
from modeling_trm.cards.solving import solving_picture
from modeling_trm.commands import trm
from modeling_trm.evaluation import evaluate_puzzles
from modeling_trm.evaluation.plots import write_plots

ROOT = Path(__file__).parents[2]
RUN = {
    "recipe": {"task": "sudoku", "learning_rate": 1e-4, "block_operators": ["mamba2", "mlp"]},
    "command": "accelerate launch scripts/train.py scripts/recipes/quickstart.yaml",
    "seed": 3,
    "steps": 12_345,
    "seconds": 712.25,
    "hardware": "a machine | of two cores",
    "versions": {"torch": "2.13.0"},
    "train": {"puzzles": 1000, "token_loss": 0.123456},
}
REPRODUCE = {"command": "python scripts/eval_puzzles.py --model DIR --task sudoku --output OUT", "split": "test"}


@pytest.fixture
def checkpoint(tiny_model, tmp_path: Path) -> Callable[..., Path]:
    def make(preset: str, processor: GridProcessor, **overrides: Any) -> Path:
        sizes = {"vocab_size": processor.vocab_size, "seq_len": processor.seq_len}
        tiny_model(preset, **{**sizes, **overrides}).save_pretrained(tmp_path / preset)
        processor.save_pretrained(tmp_path / preset)
        return tmp_path / preset

    return make


@pytest.fixture
def metrics(tiny_model, small_sudoku) -> dict[str, Any]:
    """A run with two evaluations: every step on a set of the Hub, and early exit on a file."""
    model, puzzles = tiny_model("trm-attn", blank_token_id=1), small_sudoku(20)
    inputs = puzzles.inputs.copy()
    inputs[:7] = puzzles.labels[:7]  # nothing to fill in: solved whatever the weights
    puzzles = dataclasses.replace(puzzles, inputs=inputs)
    full = evaluate_puzzles(model, puzzles, progress=False)
    early = evaluate_puzzles(model, puzzles, halt=True, progress=False)
    hub = {"dataset_id": "sapientinc/sudoku-extreme", "dataset_revision": "58942f9", "dataset": "Sudoku-Extreme"}
    evaluations = {"test": full | REPRODUCE | hub, "early": early | REPRODUCE | {"dataset": "file a.csv"}}
    return copy.deepcopy(RUN) | {"evaluations": evaluations}


SMALL = GridProcessor("sudoku", grid_shape=(4, 4))
WAY = {
    "way": "halting at 0.95, up to 64 steps", "pass": "halting", "count": 1200, "exact_accuracy": 0.75,
    "ci95": [0.7, 0.8], "mean_steps": 12.34, "halted": 0.5, "exact_when_halted": None, "seconds": 1234.5,
    "engine": "int8", "precision": "int8 with bfloat16", "hardware": "a box", "command": "measure it",
}  # fmt: skip


def test_accuracy_by_compute_a_note_and_flops(checkpoint, metrics: dict[str, Any]) -> None:
    folder = checkpoint("tr-mamba2attn", SMALL)
    alone = {"task": "sudoku", "dataset": "file b.csv", "split": "validation", "ways": [WAY]}
    more = {"note": "**Unfinished.**", "flops": 46_000_000, "evaluations": metrics["evaluations"] | {"b": alone}}
    text = write_model_card(folder, metrics | more).read_text(encoding="utf-8")
    assert text.index("**Unfinished.**") < text.index("- Solves ")
    assert "| floating-point operations | 4.6e+07 |" in text
    assert "### By compute: b\n\nfile b.csv, split `validation` on a box. Reproduce with:" in text  # nobody's command
    row = "| halting at 0.95, up to 64 steps | 75.0 % | 70.0 to 80.0 % | 1,200 | 12.3 | 50.0 % | – | 1,234 | "
    assert f"{row}int8, int8 with bfloat16 |" in text
    alone["ways"] = [WAY, WAY | {"way": "one", "command": "measure there", "hardware": "a server"}]
    _, first, second = render_card(folder, metrics | more).split("### By compute: b\n")
    assert "| one |" not in first and "on a server. Reproduce" in second and "| one |" in second
    del alone["ways"]
    with pytest.raises(ValueError, match=r"\['b'\]: missing command, exact_accuracy"):
        write_model_card(folder, metrics | more)


def test_commands_lead_to_their_files_and_are_told_once(checkpoint, metrics: dict[str, Any]) -> None:
    text = write_model_card(checkpoint("trm-attn", SMALL), metrics).read_text(encoding="utf-8")
    assert text.count(REPRODUCE["command"]) == 1 and "By the command of **test**." in text
    linked = re.findall(rf"\[`([\w/.]+)`\]\({PROJECT}/blob/main/\1\), which explains it", text)
    assert linked == ["modeling_trm/commands/evaluate.py", "modeling_trm/commands/train.py"]


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_every_script_leads_to_the_file_of_its_command(script: Path) -> None:
    imported = re.search(r"from modeling_trm\.commands\.(\w+) import main", script.read_text(encoding="utf-8"))
    if imported is not None:
        assert command_source(f"accelerate launch scripts/{script.name} x") == f"modeling_trm/commands/{imported[1]}.py"


def test_commands_of_trm_lead_to_files_that_are_there() -> None:
    for name in trm.COMMANDS:
        for command in (f"trm {name} x", f"python -m modeling_trm.commands {name} x"):
            assert (ROOT / str(command_source(command))).is_file()
    assert command_source("another program") is None


def test_it_solves_as_the_checkpoint_says(checkpoint) -> None:
    folder = checkpoint("trm-attn", SMALL, num_puzzles=1)
    for reasoning, words in (
        (None, "says: all 4 supervision steps."),
        (
            ReasoningConfig(max_steps=20, halt=0.95),
            "says: at most 20 supervision steps, stopping at a halt probability",
        ),
        (ReasoningConfig(halt=True, views=8), "above 0.5; in the pipeline 8 views of a puzzle vote."),
    ):
        if reasoning is not None:
            reasoning.save_pretrained(folder)
        text = write_model_card(folder, {"evaluations": {}}).read_text(encoding="utf-8")
        assert words in text and "model.solve(processor(puzzle).input_ids)\n" in text


def test_the_baseline_and_the_picture_stand_beside_the_figures(checkpoint, metrics: dict[str, Any]) -> None:
    folder = checkpoint("trm-attn", SMALL)
    share = metrics["evaluations"]["test"]["baseline"]["exact_accuracy"]
    assert 0 < share <= 1
    text = write_model_card(folder, metrics).read_text(encoding="utf-8")
    assert f"no guess | {100 * share:.1f} % |" in text and "solving.gif" not in text
    (folder / "plots").mkdir()
    (folder / "plots" / "solving.gif").write_bytes(b"a picture")
    text = write_model_card(folder, metrics).read_text(encoding="utf-8")
    assert text.index("- Solves") < text.index("](plots/solving.gif)") < text.index("## How to use")


def test_the_picture_is_of_a_solved_puzzle_in_the_steps_it_took(tiny_model, small_sudoku, tmp_path: Path) -> None:
    model, puzzles = tiny_model("trm-attn", blank_token_id=1).eval(), small_sudoku(3)
    assert solving_picture(model, puzzles, tmp_path / "none.gif") is None  # a random model solves nothing
    assert not list(tmp_path.iterdir())
    inputs = puzzles.inputs.copy()
    inputs[1] = puzzles.labels[1]  # nothing to fill in: solved whatever the weights
    model.reasoning_config = ReasoningConfig(max_steps=3)
    picture = solving_picture(model, dataclasses.replace(puzzles, inputs=inputs), tmp_path / "one.gif")
    with Image.open(picture) as gif:
        assert gif.n_frames == 1 + 3  # the puzzle, and after each step
    assert solving_picture(model, dataclasses.replace(puzzles, task="grid"), tmp_path / "grid.gif") is None


def test_front_matter_equals_the_metrics(checkpoint, metrics: dict[str, Any]) -> None:
    folder = checkpoint("tr-mamba2attn", SMALL)
    card = ModelCard.load(write_model_card(folder, metrics))
    data = card.data
    assert (data.license, data.library_name) == ("apache-2.0", "transformers")
    assert data.datasets == ["sapientinc/sudoku-extreme"]
    assert data.pipeline_tag is None
    assert {"trm", "grid-reasoning", "sudoku", "mamba2", "attention", "mlp"} <= set(data.tags)
    assert data.model_name == "tr-mamba2attn-sudoku"
    values = {result.dataset_name: result for result in data.eval_results}
    for evaluation in metrics["evaluations"].values():
        result = values[evaluation["dataset"]]
        assert result.metric_value == evaluation["exact_accuracy"]
        assert 0 < result.metric_value < 1
        assert result.metric_args == {"max_steps": 4, "halt": evaluation["early_exit"]}
        assert result.dataset_split == "test"
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == metrics


def test_newer_form_for_data_on_the_hub_only(checkpoint, metrics: dict[str, Any]) -> None:
    folder = checkpoint("trm-attn", SMALL)
    write_model_card(folder, metrics)
    assert [path.name for path in (folder / ".eval_results").iterdir()] == ["test.yaml"]
    (entry,) = parse_eval_result_entries(
        yaml.safe_load((folder / ".eval_results/test.yaml").read_text(encoding="utf-8"))
    )
    assert entry.value == metrics["evaluations"]["test"]["exact_accuracy"]
    assert (entry.dataset_id, entry.dataset_revision) == ("sapientinc/sudoku-extreme", "58942f9")


def test_every_figure_stands_in_the_table(checkpoint, metrics: dict[str, Any]) -> None:
    text = write_model_card(checkpoint("trm-attn", SMALL), metrics).read_text(encoding="utf-8")
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| test |")
    ]
    figures = {cells[1]: cells[2:] for cells in table}

    def shown(share: float, interval: list[float], count: int) -> list[str]:
        return [f"{100 * share:.1f} %", f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %", str(count)]

    test = metrics["evaluations"]["test"]
    assert figures["solved exactly, all 4 steps"] == shown(test["exact_accuracy"], test["exact_accuracy_ci95"], 20)
    assert figures["cells right"] == [f"{100 * test['cell_accuracy']:.1f} %", "–", "20"]
    halted = next(cells for name, cells in figures.items() if name.startswith("solved exactly, at first halt"))
    assert halted == shown(test["halt"]["exact_accuracy"], test["halt"]["ci95"], 20)
    for source, group in test["by_source"].items():
        expected = shown(group["exact_accuracy"], group["ci95"], group["count"])
        assert figures[f"solved exactly, source {source}"] == expected
    assert sum(name.startswith("solved exactly, rating") for name in figures) == len(test["by_rating"])


def test_text_says_what_it_must(checkpoint, metrics: dict[str, Any]) -> None:
    folder = checkpoint("tr-mamba2attn", SMALL)
    write_plots(folder / "plots", metrics["evaluations"])
    text = write_model_card(folder, metrics, model_name="my-model", repository="org/my-model").read_text(
        encoding="utf-8"
    )
    for part in (
        "# my-model",
        'name = "org/my-model"',
        "trust_remote_code=True",
        "model.solve(",
        "mamba2 → mamba2 → attention → mlp",
        RUN["command"],
        REPRODUCE["command"],
        "12,345",
        "712 s (11.9 minutes)",
        "a machine \\| of two cores",
        "token loss | 0.1235",
        "![test accuracy by step](plots/test_accuracy_by_step.png)",
        "2510.04871",
        "2602.12078",
        "2405.21060",
        metrics["evaluations"]["test"]["fingerprint"],
    ):
        assert part in text, part
    recipe = text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(recipe) == RUN["recipe"]
    assert "\n\n\n" not in text
    assert "{{" not in text
    assert "{%" not in text


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "processor",
    [
        GridProcessor("sudoku"),
        GridProcessor("maze", grid_shape=(5, 7)),
        GridProcessor("arc"),
        GridProcessor("grid", grid_shape=(3, 4), alphabet="abc"),
    ],
    ids=lambda processor: processor.task,
)
def test_any_preset_and_task_without_a_run(checkpoint, tiny_model, preset: str, processor: GridProcessor) -> None:
    """A converted checkpoint: no recipe, no evaluation; parameter counts from the config all the same."""
    width = processor.grid_shape[1]
    folder = checkpoint(preset, processor, grid_width=width, halt_pooling="mean")
    card = ModelCard.load(write_model_card(folder, {"evaluations": {}}))
    model = tiny_model(preset, vocab_size=processor.vocab_size, seq_len=processor.seq_len, grid_width=width)
    assert (
        f"**{model.num_parameters_core():,} parameters** and a puzzle table of {model.num_parameters_table():,}"
        in card.text
    )
    assert ("reads the mean over fields" if model.config.symbol_fields else "reads the mean of the cells") in card.text
    assert card.data.eval_results is None
    assert "No evaluation has been recorded" in card.text
    assert "not trained by the run that wrote this card" in card.text
    assert ("2602.12078" in card.text) == ("mamba2" in PRESETS[preset]["block_operators"])


def test_a_converted_checkpoint_names_its_source_and_what_was_assumed(checkpoint) -> None:
    folder = checkpoint("trm-attn", SMALL)
    facts = {"H_cycles": "3, given | by hand", "rms_norm_eps": "1e-5, assumed", "rows": 7}
    metrics = {"evaluations": {}, "conversion": {"source": "step_9.pt", "sha256": "ab" * 32, "facts": facts}}
    text = write_model_card(folder, metrics).read_text(encoding="utf-8")
    assert "## Conversion" in text and "## Training" not in text
    assert f"Converted from `step_9.pt` (SHA-256 `{'ab' * 32}`)" in text
    assert "| H_cycles | 3, given \\| by hand |" in text and "| rows | 7 |" in text
    assert "not trained by this project" in text
    both = write_model_card(folder, metrics | copy.deepcopy(RUN)).read_text(encoding="utf-8")
    assert "## Conversion" in both and "## Training" in both and "not trained by this project" not in both
    with pytest.raises(ValueError, match=r"metrics\['conversion'\]: missing sha256, facts"):
        write_model_card(folder, {"evaluations": {}, "conversion": {"source": "a"}})


@pytest.mark.parametrize(
    ("origin", "licence", "shown"),
    [
        (("recipe",), None, "apache-2.0"),
        (("recipe",), "cc-by-4.0", "cc-by-4.0"),
        (("conversion",), None, None),
        (("conversion",), "mit", "mit"),
        (("recipe", "conversion"), None, None),
        ((), None, None),
    ],
)
def test_the_licence_is_ours_only_on_our_weights(checkpoint, origin, licence: str | None, shown: str | None) -> None:
    folder = checkpoint("trm-attn", SMALL)
    metrics: dict[str, Any] = {"evaluations": {}} | ({} if licence is None else {"license": licence})
    if "recipe" in origin:
        metrics |= copy.deepcopy(RUN)
    if "conversion" in origin:
        metrics["conversion"] = {"source": "step_9.pt", "sha256": "ab" * 32, "facts": {}}
    for _ in range(2):  # and as it is rendered again
        card = ModelCard.load(write_model_card(folder, metrics))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert card.data.license == shown
        assert ("license:" in card.content) == (shown is not None)
        assert ("No licence was stated" in card.text) == ("conversion" in origin and shown is None)
        assert metrics.get("license") == licence


@pytest.mark.parametrize("licence", ["", "MIT licence", 1, None])
def test_what_is_no_licence_is_refused(checkpoint, licence: Any) -> None:
    with pytest.raises(ValueError, match=r"metrics\['license'\] is .*; allowed: a licence id of the Hub"):
        write_model_card(checkpoint("trm-attn", SMALL), {"evaluations": {}, "license": licence})


def test_names_are_kept_and_arguments_win(checkpoint, metrics: dict[str, Any]) -> None:
    folder = checkpoint("trm-attn", SMALL)
    write_model_card(folder, metrics, model_name="one", repository="org/one")
    kept = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert kept == metrics | {"model_name": "one", "repository": "org/one"}
    text = write_model_card(folder, kept).read_text(encoding="utf-8")
    assert "# one" in text and 'name = "org/one"' in text
    text = write_model_card(folder, kept, repository="org/two").read_text(encoding="utf-8")
    assert "# one" in text and 'name = "org/two"' in text
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["repository"] == "org/two"
    assert ModelCard.load(folder / "README.md").data.model_name == "one"


@pytest.mark.parametrize("protocol", [None, "transductive"])
def test_votes_without_single_answers(checkpoint, protocol: str | None) -> None:
    counts = {"tasks": 12, "inputs": 13, "scored_tasks": 11, "votes": 1300}
    pass_at_k = {"pass@1": {"value": 0.25, "ci95": [0.1, 0.5]}, "pass@2": {"value": 0.5, "ci95": [0.25, 0.75]}}
    votes = {"command": "vote", "protocol": protocol, "counts": counts, "pass_at_k": pass_at_k}
    evaluation = {"task": "sudoku", "dataset": "a file", "split": "test", "votes": votes}
    card = ModelCard.load(write_model_card(checkpoint("trm-attn", SMALL), {"evaluations": {"test": evaluation}}))
    assert "50.0 %" in card.text and "1,300 votes on 13 test inputs" in card.text
    assert [result.metric_value for result in card.data.eval_results] == [0.25, 0.5]
    assert ("puzzles, by voting" in card.text) == (protocol is None)
    unscored = evaluation | {"votes": votes | {"pass_at_k": {}}}
    card = ModelCard.load(write_model_card(checkpoint("trm-attn", SMALL), {"evaluations": {"test": unscored}}))
    assert card.data.eval_results is None
    empty = {name: value for name, value in evaluation.items() if name != "votes"}
    with pytest.raises(ValueError, match="missing command, exact_accuracy"):
        write_model_card(checkpoint("trm-attn", SMALL), {"evaluations": {"test": empty}})


def test_example_of_the_card_runs(checkpoint, metrics: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoint("trm-mlp-t", GridProcessor("sudoku"), blank_token_id=1, vocab_size=11)
    text = write_model_card(folder, metrics, repository=str(folder)).read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    assert "53..7...." in example
    # A random model may answer padding, which is no grid: let it prefer digits.
    example = example.replace("result =", "model.lm_head.weight.data[0] = 0\nresult =", 1)
    example = example.replace("processor.decode(result.answers[0])", "processor.decode(result.answers[0].clamp(min=1))")
    names: dict[str, Any] = {}
    exec(example, names)
    shown = capsys.readouterr().out
    assert shown.startswith("5 3 ")
    assert "halt probability" in shown
    exec(text.split("```python\n")[2].split("```")[0], names)
    assert "'halt_probability'" in capsys.readouterr().out


def test_missing_figures_are_named_and_nothing_is_written(checkpoint, metrics: dict[str, Any]) -> None:
    folder = checkpoint("trm-attn", SMALL)
    before = sorted(path.name for path in folder.iterdir())
    broken = []
    for change in ({"seed": None}, {"hardware": None}):
        broken.append(({name: value for name, value in metrics.items() if name not in change}, next(iter(change))))
    without_command = copy.deepcopy(metrics)
    del without_command["evaluations"]["early"]["command"]
    broken.append((without_command, r"metrics\['evaluations'\]\['early'\]: missing command"))
    broken.append(({"recipe": {}}, "missing evaluations"))
    escaping = metrics | {"evaluations": {"../../x": metrics["evaluations"]["test"]}}
    broken.append((escaping, "becomes a file name"))
    for values, message in broken:
        with pytest.raises(ValueError, match=message):
            write_model_card(folder, values)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_valid_and_shortest_is_a_second_figure(checkpoint, metrics: dict[str, Any]) -> None:
    folder = checkpoint("trm-attn", GridProcessor("maze", grid_shape=(4, 4)))
    maze = metrics["evaluations"]["test"] | {
        "task": "maze", "valid_and_shortest": 0.625, "valid_and_shortest_ci95": [0.5, 0.75],
    }  # fmt: skip
    card = ModelCard.load(write_model_card(folder, {"evaluations": {"test": maze}}))
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values == {"exact accuracy": maze["exact_accuracy"], "valid and shortest": 0.625}
    assert "| valid and shortest | 62.5 % | 50.0 to 75.0 % | 20 |" in card.text
    assert "very many shortest paths" in card.text


def test_a_head_that_was_not_trained_is_not_advertised(checkpoint, metrics: dict[str, Any]) -> None:
    folder = checkpoint("compact", GridProcessor("sudoku", grid_shape=(4, 4)))
    name, one = next(iter(metrics["evaluations"].items()))
    silent = one | {"never_halted": one["count"]}
    trained = metrics["recipe"] | {"objective": "dis", "halt_loss_weight": 0.0}
    text = render_card(folder, metrics | {"recipe": trained, "evaluations": {name: silent}})
    assert "halt=0.9" not in text and "at first halt (mean" not in text
    assert "The halting head was not trained" in text
    assert "| number of the step | 6 learned embeddings |" in text
    assert "| each step after the first reads | the answer of the step before |" in text
    assert "halt=0.9" in render_card(folder, metrics)
