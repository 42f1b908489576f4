"""Three plots of a comparison: accuracy against steps, who agrees with whom, and what only one model solves.

`comparison` is what `compare.compare_models` returns.
"""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..utils.figures import COLOURS, DOTS_PER_INCH, PERCENT, TOTAL_COLOUR, new_figure, percent_axis, save_figure
from ..utils.intervals import wilson_interval
from ..utils.words import shortened

STYLES = ("-", "--", ":", "-.")  # another one when the colours have run out
SHOWN_NAME = 34  # characters
MOST_NUMBERS = 12  # models whose agreement is also written into the map


def accuracy_curves(comparison: dict[str, Any], output: str | Path, title: str | None = None) -> Path:
    """Exact accuracy of every model after each supervision step, with its 95 % interval; a dot at its mean halt."""
    models, count = comparison["models"], comparison["count"]
    figure = new_figure(width=7.6)
    axes = figure.subplots()
    for (colour, style), (name, figures) in zip(_looks(), models.items(), strict=False):
        shares = figures["by_step"]
        steps = np.arange(1, len(shares) + 1)
        low, high = zip(*(wilson_interval(round(share * count), count) for share in shares), strict=True)
        axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
        label = f"{shortened(name, SHOWN_NAME)}: {100 * shares[-1]:.1f} %"
        axes.plot(steps, shares, color=colour, linestyle=style, linewidth=1.8, label=label)
        halt = (figures["mean_halting_step"], figures["halt"]["exact_accuracy"])
        axes.plot(
            *halt, color=colour, marker="o", markersize=6, markeredgecolor="white", linestyle="none", clip_on=False
        )
    longest = max(figures["steps"] for figures in models.values())
    axes.set(
        title=title or f"{comparison['task'].capitalize()}, {count:,} puzzles: accuracy against thinking time",
        xlabel="supervision step",
        ylabel="puzzles solved",
        xlim=(1, max(2, longest)),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent_axis(axes)
    legend = "after all steps; dot: each puzzle\nstopped by the model itself"
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), title=legend, alignment="left", fontsize=9)
    return save_figure(figure, output)


def agreement_map(comparison: dict[str, Any], output: str | Path, title: str | None = None) -> Path:
    """Share of the puzzles to which two models give the same answer, right or wrong."""
    names = [f"{shortened(name, SHOWN_NAME)}  {number}" for number, name in enumerate(comparison["models"], start=1)]
    matrix_MM = np.array(comparison["agreement"])
    side = max(2.8, 0.8 + 0.55 * len(names))
    figure = Figure(figsize=(side + 3.0, side), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix_MM, vmin=0, vmax=1, cmap="cividis", zorder=2)  # above the grid lines of save_figure
    axes.set_xticks(range(len(names)), [str(number) for number in range(1, len(names) + 1)])
    axes.set_yticks(range(len(names)), names)
    if len(names) <= MOST_NUMBERS:
        for (row, column), share in np.ndenumerate(matrix_MM):
            colour = "white" if share < 0.5 else TOTAL_COLOUR
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, zorder=3)
    # Over the whole figure: over the axes alone it would be cut off beside long names.
    figure.suptitle(title or f"{comparison['task'].capitalize()}: puzzles with the same answer, in %", fontsize=11)
    figure.colorbar(image, ax=axes, format=PERCENT)
    return save_figure(figure, output)


def solved_only_bars(comparison: dict[str, Any], output: str | Path, title: str | None = None) -> Path:
    """How many puzzles each model solves that no other does."""
    only = comparison["solved_only_by"]
    names = list(only)
    figure = Figure(figsize=(7.0, 1.4 + 0.45 * len(names)), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    colours = [colour for (colour, _), _ in zip(_looks(), names, strict=False)]
    bars = axes.barh([shortened(name, SHOWN_NAME) for name in names], list(only.values()), color=colours, height=0.65)
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlim(left=0, right=max(1.0, axes.get_xlim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    shared = f"all solve {comparison['solved_by_all']:,}, none solves {comparison['solved_by_none']:,}"
    axes.set(
        title=title or f"{comparison['task'].capitalize()}: puzzles that one model alone solves",
        xlabel=f"of {comparison['count']:,} puzzles ({shared})",
    )
    return save_figure(figure, output)


def _looks() -> Iterator[tuple[str, str]]:
    """(colour, line style), without end: all colours in the first style, then in the next."""
    return ((colour, style) for style in cycle(STYLES) for colour in COLOURS)
