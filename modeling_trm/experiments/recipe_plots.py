"""Plots of a comparison of recipes: who solves most, and accuracy against training FLOPs and passes at test time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.figures import COLOURS, PERCENT, new_figure, percent_axis, save_figure

STYLES = ("-", "--", ":", "-.")  # of lines beyond the colours


def plot_recipes(report: dict[str, Any], logs: Mapping[str, Sequence[Path]], output: str | Path) -> Path:
    """Solved at the last step, a dot a seed and a bar at their mean, beside each name in the colour of its lines; then
    a line a seed over training (validation puzzles, averaged weights), and the mean of the seeds over passes (test).

    Args:
        logs: {name: log.jsonl of each seed's run}.
    """
    recipes = report["recipes"]
    figure = new_figure(width=11.0, height=max(3.4, 0.3 * len(recipes) + 1))
    ranking, training, inference = figure.subplots(1, 3)
    for at, (name, figures) in enumerate(recipes.items()):
        line = {"color": COLOURS[at % len(COLOURS)], "linestyle": STYLES[at // len(COLOURS) % len(STYLES)]}
        dots = {"color": line["color"], "marker": "o", "markersize": 4}
        solved = figures["at_last_step"]
        ranking.plot(solved["each"], [at] * len(solved["each"]), **dots, linestyle="none", alpha=0.6)
        ranking.plot(solved["mean"], at, color=line["color"], marker="|", markersize=14, markeredgewidth=2)
        for log in logs[name]:
            training.plot(*zip(*validation_curve(log)), **line, marker="o", markersize=3, alpha=0.8)
        passes = [figures["passes_a_step"] * step for step in range(1, len(figures["by_step"]) + 1)]
        inference.plot(passes, figures["by_step"], **line, marker="o", markersize=3)
    ranking.set_yticks(range(len(recipes)), recipes, fontsize="small")
    for at, label in enumerate(ranking.get_yticklabels()):
        label.set_color(COLOURS[at % len(COLOURS)])
    ranking.invert_yaxis()
    ranking.xaxis.set_major_formatter(PERCENT)
    ranking.set(title="Solved at the last step", xlabel=f"of {report['test_puzzles']:,} test puzzles")
    inference.axvline(report["passes"], color="#8c8c8c", linestyle=":", linewidth=1)
    training.set(title="Validation puzzles during training", xlabel="training FLOPs", ylabel="puzzles solved")
    inference.set(title="Test puzzles", xlabel="forward passes a puzzle")
    for axes in (training, inference):
        percent_axis(axes)
    return save_figure(figure, output)


def validation_curve(log: Path) -> list[tuple[float, float]]:
    """(training FLOPs, share of the validation puzzles solved) at every evaluation of a run."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [(record["flops"], record["eval"]["exact_accuracy"]) for record in records if "eval" in record]
