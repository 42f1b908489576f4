"""scripts/eval_puzzles.py: the figures it writes, and what bad data or another checkpoint gets."""

import json
from pathlib import Path

import pytest
import torch

from datasets_builders.features import load_puzzles
from datasets_builders.validation import validity_check
from modeling_trm import GridProcessor, ReasoningConfig
from modeling_trm.cards.card import render_card
from modeling_trm.commands.options import hub_data
from modeling_trm.engines_trm import ENGINES, int8_rest, resolve_engine
from modeling_trm.evaluation import choose_subset, evaluate_puzzles
from modeling_trm.utils.loading import load_model
from modeling_trm.verifiers_trm import verifier_for
from scripts import eval_puzzles
from tests.conftest import PUZZLE, SOLVED

SCRIPT = Path(eval_puzzles.__file__)


@pytest.fixture
def checkpoint(tiny_model, tmp_path: Path):
    def make(task: str, processor: GridProcessor) -> str:
        sizes = {"vocab_size": processor.vocab_size, "seq_len": processor.seq_len, "L_cycles": 1, "num_puzzles": 1}
        model = tiny_model("trm-mlp-t", **sizes, blank_token_id=processor.blank_token_id)
        model.save_pretrained(tmp_path / task)
        processor.save_pretrained(tmp_path / task)
        return str(tmp_path / task)

    return make


def read(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_figures_equal_the_library(checkpoint, tmp_path: Path, capsys) -> None:
    """On the shipped sample, sub-sampled; the JSON holds exactly what evaluate_puzzles returns."""
    folder, output = checkpoint("sudoku", GridProcessor("sudoku")), tmp_path / "out put"
    arguments = ["--model", folder, "--task", "sudoku", "--max-puzzles", "12", "--max-steps", "2", "--device", "cpu"]
    assert eval_puzzles.main([*arguments, "--output", str(output)]) == 0
    report = read(output)
    metrics = report["evaluations"]["test"]
    puzzles = choose_subset(load_puzzles("sudoku", "test"), 12)
    score_valid = validity_check("sudoku", (9, 9))
    expected = evaluate_puzzles(load_model(folder), puzzles, max_steps=2, progress=False, score_valid=score_valid)
    assert "valid" in expected
    for name, value in expected.items():
        if "second" not in name:
            assert metrics[name] == value, name
    assert metrics["split"] == "test"
    assert metrics["dataset"] == puzzles.origin
    assert metrics["command"].startswith("trm evaluate --task sudoku --split test --model ")
    assert metrics["command"].endswith("out put'")
    assert report["hardware"]
    assert "torch" in report["versions"]
    assert {path.name for path in (output / "plots").iterdir()} == {"test_accuracy_by_step.png", "test_halting.png"}
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    assert str(output / "metrics.json") in shown
    for source in expected["by_source"]:
        assert source in shown


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], ("auto", "float32")),
        (["--precision", "bfloat16", "--engine", "eager"], ("eager", "bfloat16")),
        (["--engine", "bfloat16"], ("bfloat16", "bfloat16")),
        (["--engine", "int8"], ("int8", f"int8 with {str(int8_rest()).removeprefix('torch.')}")),
    ],
)
def test_the_precision_is_that_of_the_engine(checkpoint, tmp_path: Path, options: list[str], named: tuple) -> None:
    folder = checkpoint("sudoku", GridProcessor("sudoku"))
    model = load_model(folder)
    if named[0] != "auto" and ENGINES[named[0]].missing(model) is not None:
        pytest.skip(ENGINES[named[0]].missing(model))
    arguments = ["--model", folder, "--task", "sudoku", "--max-puzzles", "3", "--max-steps", "1", "--device", "cpu"]
    assert eval_puzzles.main([*arguments, *options, "--output", str(tmp_path / "out")]) == 0
    metrics = read(tmp_path / "out")["evaluations"]["test"]
    assert (metrics["engine"], metrics["precision"]) == (resolve_engine(model, named[0]), named[1])


def test_mazes_and_early_exit(checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("maze", GridProcessor("maze"))
    arguments = ["--model", folder, "--task", "maze", "--max-puzzles", "3", "--max-steps", "2", "--halt"]
    assert eval_puzzles.main([*arguments, "--batch-size", "2", "--output", str(tmp_path / "out")]) == 0
    metrics = read(tmp_path / "out")["evaluations"]["test"]
    assert metrics["early_exit"] is True
    assert metrics["valid_and_shortest"] == 0.0
    assert metrics["count"] == 3


def test_a_search_equals_the_library_and_is_recorded(checkpoint, tmp_path: Path, capsys) -> None:
    folder = checkpoint("sudoku", GridProcessor("sudoku"))
    common = ["--model", folder, "--task", "sudoku", "--max-puzzles", "5", "--max-steps", "2", "--seed", "3"]
    common += "--num-trajectories 3 --noise-std 0.5 --selection valid --max-batch 4".split()
    puzzles = choose_subset(load_puzzles("sudoku", "test"), 5, 3)
    for halt in (False, True):
        output = tmp_path / f"halt {halt}"
        assert eval_puzzles.main([*common, *["--halt"] * halt, "--output", str(output)]) == 0
        metrics = read(output)["evaluations"]["test"]
        search = {"num_trajectories": 3, "noise_std": 0.5, "selection": "valid", "max_batch": 4}
        beside = {"generator": torch.Generator().manual_seed(3), "verifier": verifier_for("sudoku", (9, 9))}
        config = ReasoningConfig(max_steps=2, halt=halt, **search)
        beside |= {"score_valid": validity_check("sudoku", (9, 9))}
        expected = evaluate_puzzles(load_model(folder), puzzles, config, progress=False, **beside)
        for name, value in expected.items():
            if "second" not in name and name != "search":
                assert metrics[name] == value, name
        assert metrics["search"].items() >= {"num_trajectories": 3, "selection": "valid", "seed": 3}.items()
        assert (output / "plots" / "test_accuracy_by_step.png").exists() is not halt
        assert "search: num_trajectories=3, noise_std=0.5" in capsys.readouterr().out
    plain = tmp_path / "plain"
    assert eval_puzzles.main([*common[:8], "--output", str(plain)]) == 0
    assert "search" not in read(plain)["evaluations"]["test"]


def csv(tmp_path: Path, *rows: str) -> str:
    path = tmp_path / f"mine{len(rows)}_test.csv"
    path.write_text("\n".join(["source,question,answer,rating", *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_own_file_and_skipped_rows(checkpoint, tmp_path: Path, refused) -> None:
    folder = checkpoint("sudoku", GridProcessor("sudoku"))
    data = csv(tmp_path, f"mine,{PUZZLE},{SOLVED},3", f"mine,{SOLVED},{SOLVED},0", f"mine,{PUZZLE},{PUZZLE},3")
    common = ["--model", folder, "--task", "sudoku", "--data", data, "--max-steps", "1"]
    assert "1 of 3 rows are bad" in refused(eval_puzzles.main, [*common, "--output", str(tmp_path / "refused")])
    assert not (tmp_path / "refused").exists()
    assert eval_puzzles.main([*common, "--on-bad-row", "skip", "--output", str(tmp_path / "out")]) == 0
    metrics = read(tmp_path / "out")["evaluations"]["test"]
    assert metrics["count"] == 2
    assert metrics["exact_accuracy"] == 0.5  # the given cells are kept, so the grid without blanks is right
    assert len(metrics["skipped_rows"]) == 1
    assert "mine3_test.csv, row 3" in metrics["skipped_rows"][0]


def test_user_errors_are_one_line_each(checkpoint, tmp_path: Path, refused) -> None:
    small = GridProcessor("sudoku", grid_shape=(4, 4))
    nine, four, maze = (
        checkpoint("nine", GridProcessor("sudoku")),
        checkpoint("four", small),
        checkpoint("m", GridProcessor("maze")),
    )
    output = tmp_path / "out"
    cases = [
        (["--model", four, "--side", "9"], "config has vocab_size=6, but 'sudoku' puzzles need vocab_size=11"),
        (["--model", maze, "--task", "sudoku"], "was made for task 'maze', not for --task 'sudoku'"),
        (["--model", "runs/of/nobody", "--task", "sudoku"], "checkpoint 'runs/of/nobody': no such folder"),
        (["--model", nine, "--task", "sudoku", "--data", "no.csv"], "--data 'no.csv': no such file or folder"),
        (["--model", nine, "--task", "sudoku", "--data", csv(tmp_path)], "empty"),
        (["--model", nine, "--task", "sudoku", "--data", csv(tmp_path, f"a,{PUZZLE},{SOLVED[:80]},1")], "has 80 cells"),
        (["--model", nine, "--task", "sudoku", "--max-puzzles", "0"], "--max-puzzles must be at least 1, got 0"),
        (["--model", nine, "--task", "chess"], "invalid choice: 'chess'"),
        (["--model", nine, "--task", "sudoku", "--num-trajectories", "2"], "would be the same one"),
        (["--model", nine, "--task", "sudoku", "--damping", "0.5", "--max-augmentations", "2"], "without a search"),
        (["--model", nine, "--task", "sudoku", "--damping", "0.5", "--update-card"], "--update-card without a search"),
        (["--model", "org/name", "--task", "sudoku", "--update-card"], "--model 'org/name' is none"),
        (["--model", nine, "--task", "sudoku", "--card-entry", "a"], "--card-entry is for --update-card"),
        (["--model", nine, "--task", "sudoku", "--update-card", "--card-entry", "a/b"], "becomes a file name"),
    ]
    for arguments, message in cases:
        shown = refused(eval_puzzles.main, [*arguments, "--output", str(output)])
        assert message in shown and "error: " in shown, arguments
    assert not output.exists()


@pytest.mark.parametrize("more", [[], ["--max-augmentations", "2"], ["--update-card"]], ids=["plain", "votes", "card"])
def test_an_output_that_would_replace_a_checkpoints_figures_is_refused(
    checkpoint, tmp_path: Path, refused, more: list[str]
) -> None:
    folder, other = (Path(checkpoint(name, GridProcessor("sudoku"))) for name in ("run/model", "other"))
    metrics = folder / "metrics.json", other / "metrics.json", tmp_path / "run" / "metrics.json"
    for path in metrics:
        path.write_text('{"evaluations": {}}', encoding="utf-8")
    (tmp_path / "link").symlink_to(folder)
    before = sorted(tmp_path.rglob("*"))
    for output, message in (
        (folder, "is a checkpoint's folder"),
        (tmp_path / "link", "is a checkpoint's folder"),
        (tmp_path / "other" / ".." / "run" / "model", "is a checkpoint's folder"),
        (other, "is a checkpoint's folder"),
        (folder / "plots", "lies inside of --model"),
        (tmp_path / "run", "lies around --model"),
        (tmp_path, "lies around --model"),
    ):
        assert message in refused(
            eval_puzzles.main, ["--model", str(folder), "--task", "sudoku", "--output", str(output), *more]
        )
    assert sorted(tmp_path.rglob("*")) == before
    assert all(path.read_text(encoding="utf-8") == '{"evaluations": {}}' for path in metrics)


def test_damaged_checkpoints_leave_no_output(checkpoint, tmp_path: Path, refused) -> None:
    folder = Path(checkpoint("sudoku", GridProcessor("sudoku")))
    output = tmp_path / "out"
    for name in ("preprocessor_config.json", "puzzle_table.safetensors", "model.safetensors", "config.json"):
        (folder / name).write_bytes(b"")
        for arguments in ([], ["--max-augmentations", "2"], ["--update-card"]):
            shown = refused(
                eval_puzzles.main, ["--model", str(folder), "--task", "sudoku", "--output", str(output), *arguments]
            )
            assert shown.startswith(f"error: checkpoint '{folder}': the ") and shown.count("\n") == 1
        if name == "preprocessor_config.json":  # it is read first and would hide the others
            GridProcessor("sudoku").save_pretrained(folder)
    assert not output.exists()
    assert not (folder / "metrics.json").exists()


def test_the_card_gets_the_figures(checkpoint, tmp_path: Path, capsys, refused) -> None:
    """Plain and by voting, under the split's name and another; what is not evaluated anew stays."""
    folder = Path(checkpoint("sudoku", GridProcessor("sudoku")))
    common = ["--model", str(folder), "--task", "sudoku", "--max-puzzles", "4", "--max-steps", "1", "--update-card"]
    assert eval_puzzles.main([*common, "--output", str(tmp_path / "plain")]) == 0
    shown = capsys.readouterr().out
    plain = read(folder)["evaluations"]["test"]
    assert plain.items() >= read(tmp_path / "plain")["evaluations"]["test"].items()
    assert plain["hardware"] and plain["date"]
    assert all(str(folder / name) in shown for name in ("README.md", "metrics.json", "plots/test_halting.png"))
    assert eval_puzzles.main([*common, "--max-augmentations", "3", "--output", str(tmp_path / "votes")]) == 0
    assert str(folder / "README.md") in capsys.readouterr().out
    both = read(folder)["evaluations"]["test"]
    votes = both.pop("votes")
    assert both == plain
    report = json.loads((tmp_path / "votes" / "report.json").read_text(encoding="utf-8"))
    assert votes["pass_at_k"] == report["pass_at_k"] and votes["counts"]["votes"] == 12
    data = csv(tmp_path, f"mine,{PUZZLE},{SOLVED},3")
    arguments = [*common, "--data", data, "--output", str(tmp_path / "mine")]
    assert "figures of other data under 'test'" in refused(eval_puzzles.main, arguments)
    assert not (tmp_path / "mine").exists()
    assert eval_puzzles.main([*arguments, "--card-entry", "mine"]) == 0
    evaluations = read(folder)["evaluations"]
    assert evaluations["test"] == plain | {"votes": votes}
    assert evaluations["mine"]["count"] == 1
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == render_card(folder, read(folder))
    assert evaluations["mine"]["command"] in text and votes["command"] in text


def test_the_card_waits_for_all_votes(checkpoint, tmp_path: Path, capsys) -> None:
    folder = Path(checkpoint("sudoku", GridProcessor("sudoku")))
    common = ["--model", str(folder), "--task", "sudoku", "--max-puzzles", "5", "--max-steps", "1", "--update-card"]
    common += ["--max-augmentations", "20", "--output", str(tmp_path / "out")]
    assert eval_puzzles.main([*common, "--shard", "1/2"]) == 0
    assert "The card is as it was: the votes are not complete." in capsys.readouterr().out
    assert not (folder / "README.md").exists()
    assert eval_puzzles.main([*common, "--shard", "0/2"]) == 0
    assert list(read(folder)["evaluations"]["test"]) == ["task", "dataset", "split", "votes"]
    assert "by voting" in (folder / "README.md").read_text(encoding="utf-8")


def test_data_of_the_hub_is_named() -> None:
    for data, expected in (
        (None, {}),
        (__file__, {}),
        ("org/name", {"dataset_id": "org/name"}),
        ("org/name@v1", {"dataset_id": "org/name", "dataset_revision": "v1"}),
    ):
        assert hub_data(data, "sudoku") == expected
    pinned = hub_data("hub", "sudoku")
    assert pinned["dataset_id"] == "sapientinc/sudoku-extreme" and len(pinned["dataset_revision"]) == 40


def test_output_that_cannot_be_written(checkpoint, tmp_path: Path, refused) -> None:
    folder = checkpoint("sudoku", GridProcessor("sudoku"))
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    arguments = ["--model", folder, "--task", "sudoku", "--max-puzzles", "1", "--max-steps", "1"]
    assert "taken" in refused(eval_puzzles.main, [*arguments, "--output", str(tmp_path / "taken")])
