"""Model cards from results: every figure is read from metrics.json, none is typed.

`write_model_card` fills model_cards/TEMPLATE.md and writes README.md, metrics.json and .eval_results/*.yaml into a
checkpoint's folder. Parameter counts come from the config (the model is built on the meta device), the task and the
grid from the processor, everything else from metrics.json:

    recipe       the training recipe, a mapping; absent for a checkpoint that was not trained by us (converted).
                 With it are required:
    command        the command line of the training run
    seed           int
    steps          optimiser steps taken
    seconds        wall-clock time of the training
    hardware       the machine in words (`machine.describe_machine`)
    versions       {package: version} (`machine.library_versions`)
    train          {name: number or text}: facts and last figures of the training, shown as they are
    evaluations  {name: what `evaluate_puzzles` returns, and with it
        command        the command line that reproduces these figures
        votes          optional: protocol, counts, pass_at_k, coverage and means of `vote_report.summarise_votes`, and
                       their command
        dataset        the data in words, for example a file or a Hub id
        split          train, validation or test
        dataset_id, dataset_revision    only for data on the Hub: then an .eval_results entry is written as well
        date           optional, ISO 8601}
"""

import re
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from ..configuration_trm import PRESETS, TRMConfig
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from .display import rating_range
from .files import write_json, write_text

TRAINING_KEYS = ("command", "seed", "steps", "seconds", "hardware", "versions", "train")
EVALUATION_KEYS = ("command", "dataset", "split")
NOTHING = "–"

TASK_NAMES = {"sudoku": "Sudoku", "maze": "mazes", "arc": "ARC grids", "grid": "grid puzzles"}
TASK_LIMITS = {
    "sudoku": "Accuracy falls with the difficulty of the puzzle; see the figures by source and by rating.",
    "maze": "A maze has very many shortest paths and the label is one of them: an answer that is not the label can be "
    "right. Read the share of valid and shortest paths beside the exact accuracy.",
    "arc": "ARC figures depend on the protocol: transductive, the demonstrations of the evaluated tasks were trained "
    "on; inductive, they were not. pass@K is by voting over augmentations, not over independent samples. The core "
    "knows a task by its row of the puzzle table alone: a new task needs new rows and training on its demonstrations "
    "(`scripts/adapt.py`).",
    "grid": "The figures hold for puzzles like those of the data set named above.",
}
EXAMPLE_SUDOKU = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"


def write_model_card(
    model_folder: str | Path,
    metrics: dict[str, Any],
    *,
    model_name: str | None = None,
    repository: str = "path/to/this/folder",
) -> Path:
    """Write README.md, metrics.json and .eval_results/ into a checkpoint's folder, each file whole or not at all.

    Args:
        model_folder: folder with config.json and the processor's configuration; PNG files in its plots/ are shown.
        metrics: see the module's docstring.
        model_name: title of the card; preset and task ("tr-mamba2attn-sudoku") when None.
        repository: what the example passes to `from_pretrained`: the Hub id of a published checkpoint.

    Returns:
        The path of README.md.

    Raises:
        ValueError: a required key of `metrics` is missing, or an evaluation's name is no file name.
    """
    folder = Path(model_folder)
    _check_metrics(metrics)
    config = TRMConfig.from_pretrained(folder)
    processor = GridProcessor.from_pretrained(folder)
    preset = _preset_name(config)
    name = model_name or f"{preset or 'trm'}-{processor.task}"
    readme = _render(
        card_data=_card_data(name, config, processor.task, metrics["evaluations"]).to_yaml(),
        model_name=name,
        repository=repository,
        preset=preset,
        config=config,
        operators=config.block_operators,
        parameters=_parameter_counts(config),
        grid_shape=processor.grid_shape,
        task_name=TASK_NAMES[processor.task],
        task_limits=TASK_LIMITS[processor.task],
        example_puzzle=_example_puzzle(processor),
        knows_tasks=config.num_puzzles > 1,
        plots=_plots(folder),
        **_evaluation_section(metrics["evaluations"]),
        **_training_section(metrics),
    )
    for evaluation_name, evaluation in metrics["evaluations"].items():
        if "dataset_id" in evaluation:
            entries = eval_result_entries_to_yaml([_eval_result_entry(evaluation)])
            text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
            write_text(folder / ".eval_results" / f"{evaluation_name}.yaml", text)
    write_json(folder / "metrics.json", metrics)
    return write_text(folder / "README.md", readme)


def _render(**values: Any) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = resources.files("model_cards").joinpath("TEMPLATE.md").read_text(encoding="utf-8")
    text = environment.from_string(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text)


def _check_metrics(metrics: dict[str, Any]) -> None:
    _require(metrics, ("evaluations",), "metrics")
    if "recipe" in metrics:
        _require(metrics, TRAINING_KEYS, "metrics of a trained checkpoint")
    for name, evaluation in metrics["evaluations"].items():
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise ValueError(f"evaluation name {name!r} becomes a file name; allowed: letters, digits, '_', '.', '-'")
        _require(evaluation, EVALUATION_KEYS, f"metrics['evaluations'][{name!r}]")


def _require(values: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    missing = [key for key in keys if key not in values]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}; a card needs {', '.join(keys)}")


def _card_data(name: str, config: TRMConfig, task: str, evaluations: dict[str, Any]) -> ModelCardData:
    results = [result for evaluation in evaluations.values() for result in _eval_results(evaluation)]
    # No pipeline_tag: the Hub knows none for grids, and refuses those that it does not know.
    return ModelCardData(
        model_name=name,
        license="apache-2.0",
        library_name="transformers",
        tags=["trm", "tiny-recursive-model", "grid-reasoning", task, *sorted(set(config.block_operators))],
        datasets=sorted({one["dataset_id"] for one in evaluations.values() if "dataset_id" in one}) or None,
        metrics=["accuracy"] if results else None,
        eval_results=results or None,
    )


def _eval_results(evaluation: dict[str, Any]) -> list[EvalResult]:
    """The model-index entries of one evaluation: exact accuracy, for mazes valid and shortest, for votes pass@K."""
    metrics = [("exact accuracy", evaluation["exact_accuracy"])]
    if "valid_and_shortest" in evaluation:
        metrics.append(("valid and shortest", evaluation["valid_and_shortest"]))
    if "votes" in evaluation:
        votes = evaluation["votes"]
        metrics += [(_vote_name(k, votes), figure["value"]) for k, figure in votes["pass_at_k"].items()]
    return [
        EvalResult(
            task_type="grid-reasoning",
            task_name=TASK_NAMES[evaluation["task"]],
            dataset_type=evaluation.get("dataset_id", evaluation["task"]),
            dataset_name=evaluation["dataset"],
            dataset_split=evaluation["split"],
            dataset_revision=evaluation.get("dataset_revision"),
            metric_type="accuracy",
            metric_name=name,
            metric_value=value,
            metric_args={"max_steps": evaluation["steps"], "halt": evaluation["early_exit"]},
        )
        for name, value in metrics
    ]


def _vote_name(k: str, votes: dict[str, Any]) -> str:
    return f"{k} of tasks, by voting ({votes['protocol']})"


def _eval_result_entry(evaluation: dict[str, Any]) -> EvalResultEntry:
    low, high = evaluation["exact_accuracy_ci95"]
    return EvalResultEntry(
        dataset_id=evaluation["dataset_id"],
        dataset_revision=evaluation.get("dataset_revision"),
        task_id=evaluation["split"],
        value=evaluation["exact_accuracy"],
        date=evaluation.get("date"),
        notes=f"exact accuracy of {evaluation['count']} puzzles, 95 % interval {low:.4f} to {high:.4f}, "
        f"{evaluation['steps']} supervision steps; {evaluation['command']}",
    )


def _parameter_counts(config: TRMConfig) -> dict[str, str]:
    with torch.device("meta"):
        model = TRMForGridReasoning(config)
    return {"core": f"{model.num_parameters_core():,}", "table": f"{model.num_parameters_table():,}"}


def _preset_name(config: TRMConfig) -> str | None:
    fields = config.to_dict()
    return next((name for name, preset in PRESETS.items() if all(fields[key] == preset[key] for key in preset)), None)


def _example_puzzle(processor: GridProcessor) -> str:
    height, width = processor.grid_shape
    if processor.task == "arc":
        return "puzzle = [[0, 3, 0], [3, 0, 3]]  # rows of colours 0..9"
    if processor.task == "sudoku" and height == 9:
        return f'puzzle = "{EXAMPLE_SUDOKU}"'
    return f'puzzle = open("puzzle.txt").read()  # {height} lines of {width} characters out of {processor.characters!r}'


def _plots(folder: Path) -> list[dict[str, str]]:
    files = sorted((folder / "plots").glob("*.png"))
    return [{"path": f"plots/{file.name}", "caption": file.stem.replace("_", " ")} for file in files]


def _evaluation_section(evaluations: dict[str, Any]) -> dict[str, Any]:
    shown = [
        evaluation | {"name": name, "count": f"{evaluation['count']:,}", "seconds": f"{evaluation['seconds']:,.1f}"}
        for name, evaluation in evaluations.items()
    ]
    headlines = [
        f"- Solves {_percent(one['exact_accuracy'])} ({_interval(one['exact_accuracy_ci95'])}) "
        f"of {one['count']:,} puzzles: {one['dataset']}, split `{one['split']}`."
        for one in evaluations.values()
    ]
    headlines += [_vote_headline(one["votes"]) for one in evaluations.values() if "votes" in one]
    figures = [figure for name, evaluation in evaluations.items() for figure in _figures(name, evaluation)]
    return {"evaluations": shown, "figures": figures, "headline": "\n".join(headlines)}


def _vote_headline(votes: dict[str, Any]) -> str:
    """pass@2, the official figure of ARC, where the votes were scored for it."""
    counts, figure = votes["counts"], votes["pass_at_k"]["pass@2"]
    return (
        f"- pass@2 by voting, {votes['protocol']}: {_percent(figure['value'])} ({_interval(figure['ci95'])}) of "
        f"{counts['scored_tasks']:,} tasks, {counts['votes']:,} votes on {counts['inputs']:,} test inputs."
    )


def _figures(evaluation_name: str, evaluation: dict[str, Any]) -> list[dict[str, str]]:
    """Rows of the table of results."""
    rows: list[dict[str, str]] = []

    def add(name: str, share: float | None, interval: list[float] | None, count: int) -> None:
        shown = NOTHING if interval is None else _interval(interval)
        value = NOTHING if share is None else _percent(share)
        row = {"evaluation": evaluation_name, "name": _cell(name), "value": value, "interval": shown}
        rows.append(row | {"count": f"{count:,}"})

    count, halt, steps = evaluation["count"], evaluation["halt"], evaluation["mean_halting_step"]
    when = f"early exit (mean {steps:.1f} steps)" if evaluation["early_exit"] else f"all {evaluation['steps']} steps"
    add(f"solved exactly, {when}", evaluation["exact_accuracy"], evaluation["exact_accuracy_ci95"], count)
    if not evaluation["early_exit"]:
        add(f"solved exactly, at first halt (mean {steps:.1f} steps)", halt["exact_accuracy"], halt["ci95"], count)
    if "valid_and_shortest" in evaluation:
        add("valid and shortest", evaluation["valid_and_shortest"], evaluation["valid_and_shortest_ci95"], count)
    if "votes" in evaluation:
        votes = evaluation["votes"]
        for k, figure in votes["pass_at_k"].items():
            add(_vote_name(k, votes), figure["value"], figure["ci95"], votes["counts"]["scored_tasks"])
    add("cells right", evaluation["cell_accuracy"], None, count)
    for source, group in evaluation["by_source"].items():
        add(f"solved exactly, source {source}", group["exact_accuracy"], group["ci95"], group["count"])
    for group in evaluation["by_rating"]:
        add(f"solved exactly, rating {rating_range(group)}", group["exact_accuracy"], group["ci95"], group["count"])
    return rows


def _training_section(metrics: dict[str, Any]) -> dict[str, Any]:
    if "recipe" not in metrics:
        return {"recipe": None, "command": None, "training_facts": []}
    seconds = metrics["seconds"]
    facts = {
        "seed": metrics["seed"],
        "optimiser steps": f"{metrics['steps']:,}",
        "time": f"{seconds:,.0f} s ({seconds / 60:,.1f} minutes)",
        "hardware": metrics["hardware"],
        "versions": ", ".join(f"{package} {version}" for package, version in metrics["versions"].items()),
    }
    facts |= {name.replace("_", " "): value for name, value in metrics["train"].items()}
    return {
        "recipe": yaml.safe_dump(metrics["recipe"], sort_keys=False, allow_unicode=True).strip(),
        "command": metrics["command"],
        "training_facts": [(name, _cell(_fact(value))) for name, value in facts.items()],
    }


def _fact(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(interval: list[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
