"""Plots of a comparison of recipes: accuracy against training FLOPs, and against forward passes at test time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.figures import COLOURS, new_figure, percent_axis, save_figure

STYLES = ("-", "--", ":", "-.")  # of lines beyond the colours


def plot_recipes(report: dict[str, Any], logs: Mapping[str, Sequence[Path]], output: str | Path) -> Path:
    """One line a seed on the left (validation puzzles, averaged weights), the mean of the seeds on the right (test).

    Args:
        logs: {name: log.jsonl of each seed's run}.
    """
    figure = new_figure(width=9.0)
    training, inference = figure.subplots(1, 2)
    for at, (name, figures) in enumerate(report["recipes"].items()):
        line = {
            "color": COLOURS[at % len(COLOURS)],
            "linestyle": STYLES[at // len(COLOURS) % len(STYLES)],
            "marker": "o",
            "markersize": 3,
        }
        for number, log in enumerate(logs[name]):
            points = validation_curve(log)
            label = name if number == 0 else None
            training.plot(*zip(*points), **line, alpha=0.8, label=label)
        passes = [figures["passes_a_step"] * step for step in range(1, len(figures["by_step"]) + 1)]
        inference.plot(passes, figures["by_step"], **line)
    inference.axvline(report["passes"], color="#8c8c8c", linestyle=":", linewidth=1)
    training.set(title="Validation puzzles during training", xlabel="training FLOPs", ylabel="puzzles solved")
    inference.set(title=f"{report['test_puzzles']:,} test puzzles", xlabel="forward passes of the stack a puzzle")
    for axes in (training, inference):
        percent_axis(axes)
    figure.legend(*training.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return save_figure(figure, output)


def validation_curve(log: Path) -> list[tuple[float, float]]:
    """(training FLOPs, share of the validation puzzles solved) at every evaluation of a run."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [(record["flops"], record["eval"]["exact_accuracy"]) for record in records if "eval" in record]
