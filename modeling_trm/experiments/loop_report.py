"""What the arms of the loop experiment show: a verdict each, Markdown tables, and a figure of small multiples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from ..utils.figures import COLOURS, GREY, PERCENT, TOTAL_COLOUR, new_figure, save_figure
from .loops import ARMS

CHANCE = 1 / 9  # a Sudoku digit guessed
LARGE_LOSS = 0.5  # of what was learnt above chance
Results = Sequence[dict[str, Any]]

# The columns of the figure; black is the one with every switch on, grey the one with none.
FIRST_ONLY = {"bare": GREY, "index": COLOURS[0], "norm": COLOURS[1], "index-norm": COLOURS[2]}
EVERY_LOOP = {
    "inject": GREY,
    "inject-index": COLOURS[0],
    "inject-norm": COLOURS[1],
    "inject-index-norm": TOTAL_COLOUR,
    "trm-inject": COLOURS[3],
}
TRAINED_OTHERWISE = {
    "inject-index-norm-every": TOTAL_COLOUR,
    "inject-norm-every": COLOURS[1],
    "inject-norm-carried": COLOURS[4],
    "trm-inject-carried": COLOURS[3],
}
PANELS = {
    "cell_accuracy": "blanks right",
    "entropy": "entropy (nats)",
    "effective_rank": "effective rank of z",
    "rms": "rms of z",
    "distance": "|z − z before| / |z|",
}
LOGARITHMIC = ("rms", "distance")


def verdict(result: dict[str, Any]) -> str:
    """One word or two for what the loops beyond the trained depth do to an arm.

    "diverged": training or a state went to infinity. "nothing learnt": no better than chance at the trained depth.
    Then by cell accuracy at the last loop against the trained depth, on the same puzzles: "collapse" (falls, by half or
    more of what was learnt above chance), "decline" (falls by less), "stable" (the 95 % interval of the change holds
    0), "improves".
    """
    if result["steps_trained"] < result["settings"]["steps"] or any(row["non_finite"] for row in result["loops"]):
        return "diverged"
    beyond = result["beyond"]
    trained = row_of(result, beyond["from"])
    if trained["cell_ci95"][0] <= CHANCE:
        return "nothing learnt"
    low, high = beyond["ci95"]
    if high < 0:
        return "collapse" if -beyond["change"] >= LARGE_LOSS * (trained["cell_accuracy"] - CHANCE) else "decline"
    return "improves" if low > 0 else "stable"


def row_of(result: dict[str, Any], loop: int) -> dict[str, Any]:
    return next(row for row in result["loops"] if row["loop"] == loop)


def markdown_tables(results: Results) -> str:
    """One line an arm and seed: accuracies with intervals; then what the state and the answers do."""
    settings = results[0]["settings"]
    trained, last = settings["train_loops"], settings["loops"]
    shown = sorted({trained, min(10, last), last})
    heads = [f"right after {n}" for n in shown]
    accuracy = [["arm", "seed", "verdict", *heads, f"change {trained} to {last}", f"solved after {trained}"]]
    inside = [["arm", "seed", f"entropy {trained}, {last}", f"effective rank {trained}, {last}",
               f"rms {trained}, {last}", f"distance {trained}, {last}", f"blanks changed by loop {last}"]]  # fmt: skip
    for result in results:
        rows = [row_of(result, n) for n in shown]
        before, after = row_of(result, trained), row_of(result, last)
        who = [result["arm"], str(result["seed"])]
        change = _share(result["beyond"]["change"], result["beyond"]["ci95"], sign="+")
        solved = _share(before["exact_accuracy"], before["exact_ci95"])
        cells = [_share(row["cell_accuracy"], row["cell_ci95"]) for row in rows]
        accuracy.append([*who, result["verdict"], *cells, change, solved])
        pairs = [
            f"{_number(before[name])}, {_number(after[name])}"
            for name in ("entropy", "effective_rank", "rms", "distance")
        ]
        inside.append([*who, *pairs, f"{100 * after['changed']:.1f} %"])
    return _table(accuracy) + "\n\n" + _table(inside) + "\n"


def plot_loops(results: Results, output: str | Path) -> Path:
    """Measures against loops, a column for each way to give the input and to train; a line a seed."""
    figure = new_figure(width=11.0)
    figure.set_figheight(2.1 * len(PANELS) + 1.4)
    columns = {
        "input in the first loop only": FIRST_ONLY,
        "input at every loop": EVERY_LOOP,
        "the same, trained otherwise": TRAINED_OTHERWISE,
    }
    grid = figure.subplots(len(PANELS), len(columns), sharex=True, sharey="row")
    for column, (title, colours) in enumerate(columns.items()):
        for axes, (name, label) in zip(grid[:, column], PANELS.items()):
            _panel(axes, [result for result in results if result["arm"] in colours], name, colours)
            if column == 0:
                axes.set_ylabel(label)
        grid[0, column].set_title(title)
        grid[-1, column].set_xlabel("loops")
        lines, labels = grid[0, column].get_legend_handles_labels()
        if lines:
            grid[-1, column].legend(lines, labels, loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=2)
    grid[0, 0].yaxis.set_major_formatter(PERCENT)
    figure.suptitle("Loops beyond the trained depth (dotted); dashed: chance", fontsize=11)
    return save_figure(figure, output)


def _panel(axes: Axes, results: Results, name: str, colours: dict[str, str]) -> None:
    labelled = set()
    for result in sorted(results, key=lambda result: list(ARMS).index(result["arm"])):
        arm = result["arm"]
        loops = [row["loop"] for row in result["loops"]]
        values = np.array([row[name] for row in result["loops"]], dtype=np.float64)  # None becomes NaN: a gap
        axes.plot(loops, values, color=colours[arm], linewidth=1.5, alpha=0.9, label=None if arm in labelled else arm)
        labelled.add(arm)
    for result in results[:1]:
        axes.axvline(result["settings"]["train_loops"], color=TOTAL_COLOUR, linewidth=0.9, linestyle=":")
    if name == "cell_accuracy":
        axes.axhline(CHANCE, color=TOTAL_COLOUR, linewidth=0.9, linestyle="--")
        axes.set_ylim(bottom=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda loop, _position: f"{loop:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    if name in LOGARITHMIC:
        axes.set_yscale("log")


def _share(share: float, interval: Sequence[float], sign: str = "") -> str:
    low, high = interval
    return f"{100 * share:{sign}.1f} % ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _table(rows: list[list[str]]) -> str:
    lines = [" | ".join(row) for row in rows]
    lines.insert(1, " | ".join(["---"] * len(rows[0])))
    return "\n".join(f"| {line} |" for line in lines)
