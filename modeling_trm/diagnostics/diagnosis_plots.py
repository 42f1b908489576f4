"""Four figures of a diagnosis, PNG files: the answer and the latents by step, every single update, reliability."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..utils.figures import COLOURS, GREY, PERCENT, TOTAL_COLOUR, new_figure, save_figure

Rows = Sequence[dict[str, Any]]
LATENTS = {"z_H": COLOURS[0], "z_L": COLOURS[1]}
WIDTH = 10.0
LINEAR_MARGIN = 0.1  # nats a cell, up to which the margin's scale is linear


def write_diagnosis_plots(folder: str | Path, summary: dict[str, Any]) -> dict[str, Path]:
    """{name: file} of the figures of `report.summarise_observation`; no reliability curve without labels."""
    folder = Path(folder)
    figures = {
        "answers": answers_figure(summary["steps"]),
        "latents": latents_figure(summary["steps"]),
        "updates": updates_figure(summary["updates"]),
    }
    if summary["calibration"] is not None:
        figures["reliability"] = reliability_figure(summary["calibration"])
    return {name: save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()}


def answers_figure(steps: Rows) -> Figure:
    """What each supervision step does to the answer."""
    figure = new_figure(width=WIDTH)
    figure.set_figheight(5.6)
    axes = list(figure.subplots(2, 3).flat)
    _accuracy(axes[0], steps)
    _lines(axes[1], steps, {"entropy": ("entropy", COLOURS[0])}, "Entropy of the answer", "nats a cell")
    _lines(axes[2], steps, {"cells_changed": ("cells", COLOURS[0])}, "Cells changed by the step", "cells a puzzle")
    _lines(axes[3], steps, {"halt_probability": ("halt", COLOURS[0])}, "Halt probability", "mean over puzzles")
    axes[3].set_ylim(0, 1.02)
    margins = {"advantage_margin": ("at the step's start", COLOURS[0]), "advantage_margin_after": ("at its end", GREY)}
    _lines(axes[4], steps, margins, "Advantage margin", "nats a cell")
    _around_zero(axes[4])
    dead = {"dead": ("all puzzles", COLOURS[0]), "dead_unsolved": ("those not yet right", COLOURS[1])}
    _lines(axes[5], steps, dead, "Dead steps", "share of puzzles")
    _shares(axes[5])
    return figure


def latents_figure(steps: Rows) -> Figure:
    """Size, dimension and movement of the latents after each supervision step."""
    figure = new_figure(width=WIDTH)
    figure.set_figheight(5.6)
    axes = list(figure.subplots(2, 2).flat)
    for place, (measure, title, unit) in enumerate(
        (
            ("rms", "Size", "root mean square"),
            ("effective_rank", "Effective rank", "dimensions"),
            ("distance", "Relative change by the step", "|after − before| / |after|"),
            ("cosine", "Cosine with the step before", "cosine"),
        )
    ):
        _lines(axes[place], steps, _of_latents(measure), title, unit)
    axes[0].set_ylim(0, max(1.1, 1.1 * axes[0].dataLim.y1))
    _logarithmic(axes[2])
    return figure


def updates_figure(updates: Rows) -> Figure:
    """Every update of a latent in the order of the run; a vertical line where a supervision step begins."""
    figure = new_figure(width=WIDTH)
    figure.set_figheight(8.0)
    axes = figure.subplots(4, 1, sharex=True)
    x = np.arange(1, len(updates) + 1)
    numbers = np.array([row["step"] for row in updates])
    begins = x[np.diff(numbers, prepend=0) > 0]
    for panel, lines, title, unit in (
        (axes[0], {"entropy": ("entropy", COLOURS[0])}, "Entropy of the answer", "nats a cell"),
        (axes[1], {"advantage_margin": ("margin", COLOURS[0])}, "Advantage margin of the update", "nats a cell"),
        (axes[2], _of_latents("effective_rank"), "Effective rank", "dimensions"),
        (axes[3], _of_latents("distance"), "Relative change by the update", "|after − before| / |after|"),
    ):
        for begin in begins:
            panel.axvline(begin - 0.5, color="#dddddd", linewidth=0.8)
        _lines(panel, updates, lines, title, unit, x)
        panel.set_xlabel("")
    _logarithmic(axes[3])
    _around_zero(axes[1])
    axes[3].set_xlabel("update of a latent (pale lines: a supervision step begins)")
    return figure


def reliability_figure(calibration: dict[str, Any]) -> Figure:
    """How often the answer was right against the halt probability, and how many observations each bin has."""
    figure = new_figure(width=WIDTH)
    curve, counts = figure.subplots(1, 2)
    bins = [entry for entry in calibration["bins"] if entry["count"]]
    curve.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.0, label="calibrated")
    style = {"color": COLOURS[0], "marker": "o", "markersize": 4, "linewidth": 1.6, "clip_on": False}
    curve.plot([e["mean_probability"] for e in bins], [e["right"] for e in bins], label="halting head", **style)
    auc, error = calibration["auc"], calibration["expected_calibration_error"]
    text = " · ".join(f"{name} {'–' if v is None else f'{v:.3f}'}" for name, v in (("AUC", auc), ("error", error)))
    curve.set(title=f"Reliability ({text})", xlabel="halt probability", ylabel="share that is right", xlim=(0, 1))
    curve.set_ylim(0, 1.02)
    curve.legend(loc="upper left")
    places = [(entry["low"] + entry["high"]) / 2 for entry in calibration["bins"]]
    bars = counts.bar(places, [entry["count"] for entry in calibration["bins"]], width=0.09, color=COLOURS[0])
    counts.bar_label(bars, [f"{entry['count']:,}" for entry in calibration["bins"]], fontsize=7, padding=2)
    counts.set(title=f"{calibration['count']:,} observations (puzzle × step)", xlabel="halt probability", xlim=(0, 1))
    counts.set_ylabel("observations")
    return figure


def _accuracy(axes: Axes, steps: Rows) -> None:
    if "exact" in steps[0]:
        low, high = zip(*(row["exact_ci95"] for row in steps))
        axes.fill_between([row["step"] for row in steps], low, high, color=COLOURS[0], alpha=0.15, linewidth=0)
    lines = {"exact": ("puzzles (95 % interval)", COLOURS[0]), "cell_accuracy": ("cells", COLOURS[1])}
    _lines(axes, steps, lines, "Right answers", "share that is right")
    _shares(axes)


def _of_latents(measure: str) -> dict[str, tuple[str, str]]:
    return {f"{name}_{measure}": (name, colour) for name, colour in LATENTS.items()}


def _lines(
    axes: Axes, rows: Rows, lines: dict[str, tuple[str, str]], title: str, unit: str, x: np.ndarray | None = None
) -> None:
    """One line for each measure that some row has, {name: (label, colour)}; rows without it are passed over."""
    x = np.array([row["step"] for row in rows]) if x is None else x
    drawn = 0
    for name, (label, colour) in lines.items():
        points = [(place, row[name]) for place, row in zip(x, rows) if row.get(name) is not None]
        if points:
            drawn += 1
            axes.plot(*zip(*points), color=colour, label=label, linewidth=1.4, marker="o", markersize=2.5)
    axes.set(title=title, xlabel="supervision step", ylabel=unit, xlim=(x[0] - 0.5, x[-1] + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if drawn > 1:
        axes.legend(fontsize=8)
    elif not drawn:
        axes.text(0.5, 0.5, "needs labels", transform=axes.transAxes, ha="center", color=GREY)


def _logarithmic(axes: Axes) -> None:
    """Where there is something above 0: a recursion that stands still has no logarithm."""
    if axes.dataLim.minposy < np.inf and axes.dataLim.y1 > 0:
        axes.set_yscale("log")


def _around_zero(axes: Axes) -> None:
    """The first step's margin is a hundred times the others', whose sign matters as much."""
    axes.set_yscale("symlog", linthresh=LINEAR_MARGIN)
    axes.margins(y=0.1)
    axes.axhline(0, color=TOTAL_COLOUR, linewidth=0.8)


def _shares(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PERCENT)
