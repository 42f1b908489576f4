"""The picture of a sweep: puzzles solved against supervision steps spent on each, with the kind of breadth in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..reasoning_config_trm import SELECTIONS
from ..utils.figures import COLOURS, GREY, TOTAL_COLOUR, new_figure, percent_axis, save_figure
from .sweep import ANY, PLAIN

NAMES = {
    "halt": "largest halt logit",
    "vote": "most votes",
    "residual": "smallest residual",
    "valid": "the puzzle's rules (verifier)",
    ANY: "any trajectory right",
}
MARKERS = "osD^vX"


def plot_sweep(rows: Sequence[dict[str, Any]], output: str | Path, title: str, breadth: str) -> Path:
    """Solved puzzles against steps times trajectories: plain solving in black, each selection in its colour.

    Args:
        breadth: what makes the trajectories differ, `Sweep.breadth`.
    """
    figure = new_figure(width=7.6)
    axes = figure.subplots()
    deepest = max(row["steps"] for row in rows)
    colours = (*COLOURS[: len(SELECTIONS)], GREY)
    for place, (selection, colour) in enumerate(zip((*SELECTIONS, ANY), colours)):
        chosen = [row for row in rows if row["selection"] == selection and row["steps"] == deepest]
        label = f"{NAMES[selection]}, {deepest} steps each"
        _line(axes, chosen, colour, label, dashed=selection in (ANY, "valid"), place=place)
    plain = [row for row in rows if row["selection"] == PLAIN]
    _line(axes, plain, TOTAL_COLOUR, "one plain trajectory, 1 to n steps", dashed=False, place=len(colours))
    axes.set(title=title, xlabel="supervision steps a puzzle (steps x trajectories)", ylabel="puzzles solved")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    percent_axis(axes)
    figure.legend(
        loc="outside lower center", ncols=2, frameon=False, title=f"breadth: {breadth}; chosen by", fontsize=9
    )
    return save_figure(figure, output)


def _line(axes: Any, rows: Sequence[dict[str, Any]], colour: str, label: str, dashed: bool, place: int) -> None:
    """Each line is thinner than the one before, and its marks are of another form: equal curves show all the same."""
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row["steps_a_puzzle"])
    x = [row["steps_a_puzzle"] for row in rows]
    low, high = zip(*(row["ci95"] for row in rows))
    axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    style = {
        "linestyle": "--" if dashed else "-",
        "marker": MARKERS[place],
        "markersize": 9 - place,
        "linewidth": 5 - 0.7 * place,
    }
    axes.plot(x, [row["exact_accuracy"] for row in rows], color=colour, label=label, **style)
