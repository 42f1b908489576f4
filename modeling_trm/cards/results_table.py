"""The table of Sudoku results: ours from the cards' metrics.json, the published ones from published.yaml.

No figure of ours is typed. A model's row names the way of solving (`cards.ways`), the interval, and what the training
cost. The README has what compares with the published figures, the documentation every evaluation; of each the passes'
deepest rows, one of each pass, and the one by as many steps as the published figures, halting where that is all.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..configuration_trm import TRMConfig
from ..utils.intervals import wilson_interval
from .protocol import ANY, PASSES
from .sections import NOTHING, cell, cost, parameter_counts

TASK = "sudoku"
COMPARABLE = "sudoku_extreme_like_test"  # the evaluation whose puzzles are of the published figures' kind
PUBLISHED_STEPS = 16
BEGIN, END = "<!-- results: begin (python scripts/results_table.py --update README.md) -->", "<!-- results: end -->"
COLUMNS = ("model", "parameters", "solved with", "solved", "95 % interval", "puzzles", "seeds", "training", "source")
BETWEEN = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)


def results_table(cards: str | Path, *, full: bool = False) -> str:
    """The table and what differs in the data, as Markdown.

    Args:
        cards: a folder of checkpoints' folders, each with config.json and metrics.json.
        full: every evaluation of ours, not only the one that compares with the published figures.
    """
    known = yaml.safe_load(resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8"))
    folders = sorted(file.parent for file in Path(cards).glob("*/metrics.json"))
    wanted = {folder: _sudoku(_metrics(folder), full) for folder in folders}
    ours = [row for folder, evaluations in wanted.items() for row in _our_rows(folder, evaluations)]
    published = [_published_row(one) for one in known["published"]]
    lines = [_line(COLUMNS), "|---|---:|---|---:|---:|---:|---:|---|---|", *map(_line, [*ours, *published])]
    entries = sorted(set().union(*wanted.values()))
    return "\n".join([*lines, "", *_differences(entries, known["data_sets"])])


def update_text(text: str, table: str) -> str:
    """The text with the table between the two markers. Raises ValueError where they are not there."""
    if not BETWEEN.search(text):
        raise ValueError(f"has no lines {BEGIN!r} and {END!r}, in this order, to put the table between")
    return BETWEEN.sub(lambda _: f"{BEGIN}\n{table}\n{END}", text, count=1)


def _our_rows(folder: Path, evaluations: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    metrics = _metrics(folder)
    name = f"**[{folder.name}]({folder.parent.name}/{folder.name}/README.md)**"
    parameters = parameter_counts(TRMConfig.from_pretrained(folder))["core"]
    for entry, evaluation in evaluations.items():
        for row in _shown(evaluation):
            low, high = (100 * bound for bound in row["ci95"])
            shown = f"{100 * row['exact_accuracy']:.1f} %", f"{low:.1f} to {high:.1f}", f"{row['count']:,}"
            yield name, parameters, cell(row["way"]), *shown, "1", _training(metrics), f"this project, `{entry}`"


def _shown(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of an evaluation that the table has room for, see the module's docstring."""
    if "ways" not in evaluation:
        last = evaluation["steps"]
        accuracies = {last: evaluation["exact_accuracy"]}
        if last > PUBLISHED_STEPS and "by_step" in evaluation:
            accuracies = {PUBLISHED_STEPS: evaluation["by_step"][PUBLISHED_STEPS - 1], **accuracies}
        return [_plain_row(steps, accuracy, evaluation["count"]) for steps, accuracy in accuracies.items()]
    chosen = [row for row in evaluation["ways"] if row.get("chosen_by") != ANY]
    last = {row["pass"]: row for row in chosen}
    one_pass = [row for row in chosen if row["pass"] in ("steps", "halting")]
    at_16 = [row for row in one_pass if f" {row['way']}".endswith(f" {PUBLISHED_STEPS} steps")]
    published = min(at_16, key=lambda row: PASSES.index(row["pass"]), default=None)
    deepest = [last[name] for name in PASSES if name in last]
    return deepest if published is None or published in deepest else [published, *deepest]


def _plain_row(steps: int, accuracy: float, count: int) -> dict[str, Any]:
    interval = wilson_interval(round(accuracy * count), count)
    return {"way": f"{steps} steps", "count": count, "exact_accuracy": accuracy, "ci95": interval}


def _training(metrics: Mapping[str, Any]) -> str:
    if "recipe" not in metrics:
        return NOTHING
    return cell(cost(*metrics.get("before", []), metrics))


def _published_row(one: Mapping[str, Any]) -> Sequence[str]:
    def text(name: str) -> str:
        value = one.get(name)
        return NOTHING if value is None else cell(f"{value:,}" if isinstance(value, int) else str(value))

    return (
        text("model"), text("parameters"), text("way"), f"{text('solved')} %", NOTHING, text("count"), text("seeds"),
        text("training"), text("source"),
    )  # fmt: skip


def _differences(entries: Sequence[str], data_sets: Mapping[str, str]) -> Iterator[str]:
    yield (
        "Published figures are of Sudoku-Extreme's test puzzles after training on 1,000 of its puzzles; no interval, "
        "seed or number of puzzles stands where the source was not found to say it. Ours are of other puzzles, "
        "comparable in kind, not row by row:"
    )
    yield ""
    for entry in entries:
        if entry in data_sets:
            yield f"- `{entry}`: {data_sets[entry]}."


def _sudoku(metrics: Mapping[str, Any], full: bool) -> dict[str, Any]:
    """The evaluations of Sudoku that have single answers or ways; unless `full`, the comparable one."""
    return {
        entry: one
        for entry, one in metrics["evaluations"].items()
        if one["task"] == TASK and ("ways" in one or "exact_accuracy" in one) and (full or entry == COMPARABLE)
    }


def _metrics(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
