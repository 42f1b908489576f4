"""Three plots of an evaluation by voting: pass@K against K, the rank of the right candidate, vote entropy.

They draw reports of `summarise_votes`, in the manner of `utils.figures`: without pyplot, safe in a training process.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from ..utils.figures import COLOURS, GREY, new_figure, percent_axis, save_figure
from ..utils.words import shortened

RANK_BINS = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 100), (101, 1000))
ENTROPY_BIN = 0.5  # bits
SHOWN_NAME = 50  # characters of a model's name


def pass_at_k_curves(reports: Mapping[str, dict[str, Any]], output: str | Path, title: str | None = None) -> Path:
    """pass@K against K on a logarithmic axis with its 95 % band; dotted: coverage, the most that any K can reach.

    Args:
        reports: {name of the model: report}; at most as many as the palette has colours.

    Raises:
        ValueError: when there is no report, there are too many, or one has no pass@K.
    """
    if not 1 <= len(reports) <= len(COLOURS):
        raise ValueError(f"reports must hold 1 to {len(COLOURS)} models, got {len(reports)}")
    figure = new_figure(width=6.4)
    axes = figure.subplots()
    ticks: set[int] = set()
    for colour, (name, report) in zip(COLOURS, reports.items(), strict=False):
        if not report["pass_at_k"]:
            raise ValueError(f"report {name!r} has no pass@K: no test input has a known answer")
        ticks |= _curve(axes, name, report, colour)
    some = next(iter(reports.values()))
    axes.set_xscale("log")
    axes.set_xticks(sorted(ticks), [f"{places:,}" for places in sorted(ticks)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(
        title=title or f"{_task(some)}: tasks solved within K attempts",
        xlabel="K, candidates tried in the order of their votes",
        ylabel=f"pass@K of {some['counts']['scored_tasks']:,} tasks",
    )
    percent_axis(axes)
    handles, labels = axes.get_legend_handles_labels()
    heading = "band: 95 % interval; dotted: coverage, at any rank"
    columns = 1 if max(map(len, labels)) > SHOWN_NAME // 2 else 2
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        title=heading,
        fontsize=9,
        title_fontsize=9,
        frameon=False,
    )
    return save_figure(figure, output)


def rank_histogram(report: dict[str, Any], output: str | Path, title: str | None = None) -> Path:
    """How many test inputs have the right grid at which rank; a grey bar for those that never predicted it."""
    ranks = {int(rank): count for rank, count in report["rank_histogram"]["ranks"].items()}
    beyond = RANK_BINS[-1][1]
    bars = {_range_text(low, high): _between(ranks, low, high) for low, high in RANK_BINS}
    if _between(ranks, beyond + 1, max(ranks, default=0)):
        bars[f"over {beyond:,}"] = _between(ranks, beyond + 1, max(ranks))
    absent = report["rank_histogram"]["absent"]
    figure = new_figure(width=7.0)
    axes = figure.subplots()
    positions = [*range(len(bars)), len(bars) + 0.4]
    drawn = axes.bar(positions, [*bars.values(), absent], color=[COLOURS[0]] * len(bars) + [GREY], width=0.8)
    axes.bar_label(drawn, fmt="{:,.0f}", fontsize=8, padding=2)
    axes.set_xticks(positions, [*bars, "not among the\ncandidates"])
    axes.set(
        title=title or f"{_task(report)}: where the right answer is ranked",
        xlabel="rank of the right grid among the candidates",
        ylabel=f"test inputs (of {report['counts']['scored_inputs']:,})",
    )
    axes.margins(x=0.02, y=0.12)
    axes.yaxis.set_major_locator(_whole_numbers())
    return save_figure(figure, output)


def entropy_distribution(report: dict[str, Any], output: str | Path, title: str | None = None) -> Path:
    """Vote entropy of the test inputs, the easy ones below and the hard ones stacked on top of them."""
    threshold = f"{report['split']['threshold']:.0%}"
    groups = {
        f"easy: {threshold} of the votes or more are right": (False, COLOURS[2]),
        f"hard: fewer than {threshold} are right": (True, COLOURS[1]),
        "answer not known": (None, GREY),
    }
    values = {label: _entropies(report, hard) for label, (hard, _) in groups.items()}
    shown = [label for label in groups if values[label]]
    largest = max((entropy for label in shown for entropy in values[label]), default=0.0)
    edges = np.arange(0.0, max(largest, ENTROPY_BIN) + ENTROPY_BIN, ENTROPY_BIN)
    figure = new_figure(width=6.6)
    axes = figure.subplots()
    if shown:
        axes.hist(
            [values[label] for label in shown], bins=edges.tolist(), stacked=True, rwidth=0.9,
            color=[groups[label][1] for label in shown],
            label=[f"{label} ({len(values[label]):,})" for label in shown],
        )  # fmt: skip
        axes.legend(loc="upper right")
    axes.set(
        title=title or f"{_task(report)}: how much the votes disagree",
        xlabel="vote entropy in bits (0: every view gives one answer)",
        ylabel="test inputs",
        xlim=(0, edges[-1]),
    )
    axes.margins(y=0.3)
    axes.yaxis.set_major_locator(_whole_numbers())
    return save_figure(figure, output)


def _curve(axes: Axes, name: str, report: dict[str, Any], colour: str) -> set[int]:
    """Draws one model; returns its values of K."""
    places = [int(key.removeprefix("pass@")) for key in report["pass_at_k"]]
    order = np.argsort(places)
    k = np.array(places)[order]
    estimates = list(report["pass_at_k"].values())
    values = np.array([estimate["value"] for estimate in estimates])[order]
    band = np.array([estimate["ci95"] for estimate in estimates])[order]
    axes.fill_between(k, band[:, 0], band[:, 1], color=colour, alpha=0.15, linewidth=0)
    axes.plot(k, values, color=colour, marker="o", markersize=4, linewidth=1.8, label=shortened(name, SHOWN_NAME))
    axes.axhline(report["coverage"]["value"], color=colour, linewidth=1.2, linestyle=":")
    return set(places)


def _entropies(report: dict[str, Any], hard: bool | None) -> list[float]:
    """Of the inputs of one group that have votes."""
    return [one["entropy_bits"] for one in report["inputs"] if one["hard"] is hard and one["entropy_bits"] is not None]


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(6, integer=True, steps=[1, 2, 5, 10])


def _between(ranks: Mapping[int, int], low: int, high: int) -> int:
    return sum(count for rank, count in ranks.items() if low <= rank <= high)


def _range_text(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _task(report: dict[str, Any]) -> str:
    task = report["task"]
    return task.upper() if task == "arc" else task.capitalize()
