"""Model cards from results: every figure is read from metrics.json, none is typed.

`write_model_card` fills model_cards/TEMPLATE.md and writes README.md, metrics.json and .eval_results/*.yaml into a
checkpoint's folder. Parameter counts come from the config (the model is built on the meta device), the task and the
grid from the processor, everything else from metrics.json:

    model_name   optional: the title of the card. repository: optional, what its examples load.
    note         optional: a paragraph above all figures, what a reader must know first (an unfinished run, say).
    license      optional: the Hub's id of the weights' licence, such as mit; "other" where it has none. Without it a
                 checkpoint that was trained by us is apache-2.0; of any other the card says none.
    recipe       the training recipe, a mapping; absent for a checkpoint that was not trained by us (converted).
                 stated       optional: of `recipe` what is no default of the trainer's; the card shows this
                 With `recipe` are required:
    command        the command line of the training run
    seed           int
    steps          optimiser steps taken
    seconds        wall-clock time of the training
    flops          optional: floating-point operations of the training, as the trainer counts them
    hardware       the machine in words (`utils.machine.describe_machine`)
    versions       {package: version} (`utils.machine.library_versions`)
    train          {name: number or text}: facts and last figures of the training, shown as they are
    before       optional: the runs before it, from whose weights it began, the first one first; of each command, seed,
                 steps, seconds, flops, hardware and train
    trained_on   optional: hashes of the training puzzles, see `evaluation.trained_on`
    weights      {file: SHA-256} of the weights, for `load_model(verify=True)` and `trm doctor MODEL`
    conversion   for a checkpoint made from another's file, {source: its file name, sha256: of that file,
                 facts: {name: text}: what was inferred, given and assumed}
    evaluations  {name: {
        dataset        the data in words, for example a file or a Hub id
        split          train, validation or test
        dataset_id, dataset_revision    only for data on the Hub: then an .eval_results entry is written as well
        task           sudoku, maze, arc or grid
        hardware, date (ISO 8601)       optional
      and what `evaluate_puzzles` returns, with
        command        the command line that reproduces these figures
      or, or besides
        ways           rows of `cards.ways`: the same puzzles solved with more steps, halting, views, trajectories
      or, or besides
        votes          protocol, counts, pass_at_k, coverage and means of `voting.report.summarise_votes`, with their
                       command, and if they are not those of the evaluation around them, dataset and hardware}}
"""

import re
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from ..configuration_trm import TRMConfig
from ..evaluation.records import VALIDITY
from ..pretrained_trm import find_reasoning_config
from ..processing_trm import GridProcessor
from ..utils.files import write_json, write_text
from .sections import (
    conversion_section,
    evaluation_section,
    example_puzzle,
    is_plain,
    parameter_counts,
    preset_name,
    reasoning_in_words,
    training_section,
    vote_figure_name,
)

RUN_KEYS = ("command", "seconds", "hardware", "train")
TRAINING_KEYS = ("command", "seed", "steps", "seconds", "hardware", "versions", "train")
CONVERSION_KEYS = ("source", "sha256", "facts")
EVALUATION_KEYS = ("task", "dataset", "split")
VOTE_KEYS = ("command", "protocol", "counts", "pass_at_k")
SOLVING = "solving.gif"  # in plots/: a puzzle being solved, see `solving`
PLACEHOLDER = "path/to/this/folder"
OUR_LICENSE = "apache-2.0"
PROJECT = "https://github.com/modeling-trm/modeling-trm"

TASK_NAMES = {"sudoku": "Sudoku", "maze": "mazes", "arc": "ARC grids", "grid": "grid puzzles"}
TASK_LIMITS = {
    "sudoku": "Accuracy falls with the difficulty of the puzzle; see the figures by source and by rating.",
    "maze": "A maze has very many shortest paths and the label is one of them: an answer that is not the label can be "
    "right. Read the share of valid and shortest paths beside the exact accuracy.",
    "arc": "ARC figures depend on the protocol: transductive, the demonstrations of the evaluated tasks were trained "
    "on; inductive, they were not. pass@K is by voting over augmentations, not over independent samples. The core "
    "knows a task by its row of the puzzle table alone: a new task needs new rows and training on its demonstrations "
    "(`trm adapt`).",
    "grid": "The figures hold for puzzles like those of the data set named above.",
}


def write_model_card(
    model_folder: str | Path,
    metrics: dict[str, Any],
    *,
    model_name: str | None = None,
    repository: str | None = None,
) -> Path:
    """Write README.md, metrics.json and .eval_results/ into a checkpoint's folder, each file whole or not at all.

    Args:
        model_folder: folder with config.json, the processor's configuration and where there is one
            reasoning_config.json; PNG files and the GIF in its plots/ are shown.
        metrics: see the module's docstring.
        model_name: title of the card, kept in metrics.json; None: that of `metrics`, or else preset and task
            ("tr-mamba2attn-sudoku").
        repository: what the example passes to `from_pretrained`, the Hub id of a published checkpoint, kept in
            metrics.json; None: that of `metrics`, or else a placeholder.

    Returns:
        The path of README.md.

    Raises:
        ValueError: a required key of `metrics` is missing, or an evaluation's name is no file name.
    """
    folder = Path(model_folder)
    given = {"model_name": model_name, "repository": repository}
    metrics = {name: value for name, value in given.items() if value is not None} | {
        name: value for name, value in metrics.items() if given.get(name) is None
    }
    readme = render_card(folder, metrics)
    for name, evaluation in metrics["evaluations"].items():
        path = folder / ".eval_results" / f"{name}.yaml"
        if "dataset_id" in evaluation and is_plain(evaluation):
            entries = eval_result_entries_to_yaml([_eval_result_entry(evaluation)])
            write_text(path, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True))
        else:
            path.unlink(missing_ok=True)  # of earlier figures under this name
    write_json(folder / "metrics.json", metrics)
    return write_text(folder / "README.md", readme)


def render_card(model_folder: str | Path, metrics: dict[str, Any]) -> str:
    """The text of README.md. Arguments and errors are those of `write_model_card`; nothing is written."""
    folder = Path(model_folder)
    check_metrics(metrics)
    config = TRMConfig.from_pretrained(folder)
    processor = GridProcessor.from_pretrained(folder)
    preset = preset_name(config)
    name = metrics.get("model_name", f"{preset or 'trm'}-{processor.task}")
    return _render(
        card_data=_card_data(name, config, processor.task, metrics).to_yaml(),
        model_name=name,
        repository=metrics.get("repository", PLACEHOLDER),
        project=PROJECT,
        preset=preset,
        config=config,
        operators=config.block_operators,
        parameters=parameter_counts(config),
        grid_shape=processor.grid_shape,
        task=processor.task,
        license=_license(metrics),
        note=metrics.get("note"),
        task_name=TASK_NAMES[processor.task],
        task_limits=TASK_LIMITS[processor.task],
        example_puzzle=example_puzzle(processor),
        knows_tasks=config.num_puzzles > 1,
        halts=metrics.get("recipe", {}).get("halt_loss_weight", 1) > 0,
        reasoning=reasoning_in_words(find_reasoning_config(str(folder)), config),
        solving=f"plots/{SOLVING}" if (folder / "plots" / SOLVING).is_file() else None,
        plots=_plots(folder),
        **evaluation_section(metrics["evaluations"]),
        **training_section(metrics),
        **conversion_section(metrics),
    )


def _render(**values: Any) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = resources.files("model_cards").joinpath("TEMPLATE.md").read_text(encoding="utf-8")
    text = environment.from_string(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text)


def check_metrics(metrics: dict[str, Any]) -> None:
    """Raise a ValueError that names what `metrics` lacks for a card."""
    _require(metrics, ("evaluations",), "metrics")
    _require(metrics["evaluations"], (), "metrics['evaluations']")
    licence = metrics.get("license", OUR_LICENSE)
    if not (isinstance(licence, str) and re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence)):
        raise ValueError(f"metrics['license'] is {licence!r}; allowed: a licence id of the Hub, such as mit or other")
    if "recipe" in metrics:
        _require(metrics, TRAINING_KEYS, "metrics of a trained checkpoint")
        for i, run in enumerate(metrics.get("before", [])):
            _require(run, RUN_KEYS, f"metrics['before'][{i}]")
    if "conversion" in metrics:
        _require(metrics["conversion"], CONVERSION_KEYS, "metrics['conversion']")
    for name, evaluation in metrics["evaluations"].items():
        check_name(name)
        where = f"metrics['evaluations'][{name!r}]"
        _require(evaluation, EVALUATION_KEYS, where)
        if is_plain(evaluation) or not {"votes", "ways"} & evaluation.keys():
            _require(evaluation, ("command", "exact_accuracy"), where)
        if "votes" in evaluation:
            _require(evaluation["votes"], VOTE_KEYS, f"{where}['votes']")


def check_name(name: str) -> None:
    """Raise a ValueError for a name of an evaluation that cannot be a file's."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"evaluation name {name!r} becomes a file name; allowed: letters, digits, '_', '.', '-'")


def _require(values: Any, keys: tuple[str, ...], where: str) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{where}: holds a {type(values).__name__}, not an object")
    missing = [key for key in keys if key not in values]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}; a card needs {', '.join(keys)}")


def _license(metrics: dict[str, Any]) -> str | None:
    """None: converted weights belong to somebody else, and those of unknown origin may."""
    is_ours = "recipe" in metrics and "conversion" not in metrics
    return metrics.get("license", OUR_LICENSE if is_ours else None)


def _card_data(name: str, config: TRMConfig, task: str, metrics: dict[str, Any]) -> ModelCardData:
    evaluations = metrics["evaluations"]
    results = [result for evaluation in evaluations.values() for result in _eval_results(evaluation)]
    # No pipeline_tag: the Hub knows none for grids, and refuses those that it does not know.
    return ModelCardData(
        model_name=name,
        license=_license(metrics),
        library_name="transformers",
        tags=["trm", "tiny-recursive-model", "grid-reasoning", task, *sorted(set(config.block_operators))],
        datasets=sorted({one["dataset_id"] for one in evaluations.values() if "dataset_id" in one}) or None,
        metrics=["accuracy"] if results else None,
        eval_results=results or None,
    )


def _eval_results(evaluation: dict[str, Any]) -> list[EvalResult]:
    """The model-index entries of one evaluation: exact accuracy, what is valid, for votes pass@K."""
    metrics: list[tuple[str, float, dict[str, Any]]] = []
    data = evaluation["dataset"]
    if is_plain(evaluation):
        how = {"max_steps": evaluation["steps"], "halt": evaluation["early_exit"]}
        metrics.append(("exact accuracy", evaluation["exact_accuracy"], how))
        metrics += [(words, evaluation[name], how) for name, words in VALIDITY.items() if name in evaluation]
    results = [_eval_result(evaluation, data, *metric) for metric in metrics]
    if "votes" in evaluation:
        votes = evaluation["votes"]
        how = {name: votes[name] for name in ("max_steps", "halt", "num_views") if name in votes}
        for k, figure in votes["pass_at_k"].items():
            name = vote_figure_name(k, votes)
            results.append(_eval_result(evaluation, votes.get("dataset", data), name, figure["value"], how))
    return results


def _eval_result(evaluation: dict[str, Any], data: str, name: str, value: float, how: dict[str, Any]) -> EvalResult:
    return EvalResult(
        task_type="grid-reasoning",
        task_name=TASK_NAMES[evaluation["task"]],
        dataset_type=evaluation.get("dataset_id", evaluation["task"]),
        dataset_name=data,
        dataset_config=data,  # the Hub takes figures for those of one data set where only the name differs
        dataset_split=evaluation["split"],
        dataset_revision=evaluation.get("dataset_revision"),
        metric_type="accuracy",
        metric_name=name,
        metric_value=value,
        metric_args=how or None,
    )


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


def _plots(folder: Path) -> list[dict[str, str]]:
    files = sorted((folder / "plots").glob("*.png"))
    return [{"path": f"plots/{file.name}", "caption": file.stem.replace("_", " ")} for file in files]
