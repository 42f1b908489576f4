"""Three small plots of a run: learning curve, exact accuracy against supervision step, halting histogram."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from ..utils.figures import COLOURS, GREY, PERCENT, TOTAL_COLOUR, new_figure, percent_axis, save_figure
from ..utils.intervals import wilson_interval
from .sources import source_in_words

MAX_SOURCES = len(COLOURS)
FEW = 40  # training steps of a log, up to which each is a dot


def learning_curve(log_path: str | Path, output: str | Path) -> Path:
    """Loss, and exact accuracy on training puzzles and on the evaluations, against step and minutes.

    Args:
        log_path: the run's log.jsonl: records of training steps (step, loss, exact_accuracy, seconds since the start)
            and of evaluations ({"step", "eval": metrics of `evaluate_puzzles`, "others": {size of grids: metrics}}).
        output: PNG file to write.

    Raises:
        ValueError: when the log holds no training step.
    """
    with open(log_path, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    training = [record for record in records if "loss" in record]
    evaluations = [record for record in records if "eval" in record]
    if not training:
        raise ValueError(f"{log_path} holds no training step: there is no learning curve to draw")
    steps = np.array([record["step"] for record in training])
    minutes = np.array([record["seconds"] for record in training]) / 60

    figure = new_figure(width=9.0)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _trend(loss_axes, steps, [record["loss"] for record in training], "loss", COLOURS[0])
    loss_axes.set(title="Training loss", ylabel="loss of a supervision step")
    _trend(accuracy_axes, steps, [record["exact_accuracy"] for record in training], "training puzzles", COLOURS[0])
    if evaluations:
        others = evaluations[0].get("others", {})  # a log of an earlier version has none
        own = "evaluation, the model's own size" if others else "evaluation"
        _evaluation_points(accuracy_axes, COLOURS[1], own, evaluations)
        for colour, grid in zip(COLOURS[2:], others):
            points = [{"step": one["step"], "eval": one["others"][grid]} for one in evaluations]
            _evaluation_points(accuracy_axes, colour, f"of {grid}", points)
    accuracy_axes.set(title="Exact accuracy", ylabel="puzzles solved")
    percent_axis(accuracy_axes)
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("training step")
        axes.set_xlim(0, steps[-1])
        _minutes_axis(axes, steps, minutes)
    figure.legend(*accuracy_axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return save_figure(figure, output)


def accuracy_by_step(metrics: dict[str, Any], output: str | Path, subject: str | None = None) -> Path:
    """Exact accuracy against supervision step: the whole set with its 95 % interval, and the largest sources.

    Raises:
        ValueError: when the metrics were taken with early exit, which leaves no curve.
    """
    if "by_step" not in metrics:
        raise ValueError("these metrics have no 'by_step': evaluate with halt=False to record every step")
    steps = np.arange(1, len(metrics["by_step"]) + 1)
    figure = new_figure(width=8.6)
    axes = figure.subplots()
    by_source = metrics["by_source"]
    if len(by_source) > 1:
        largest = sorted(by_source, key=lambda source: -by_source[source]["count"])[:MAX_SOURCES]
        for colour, source in zip(COLOURS, sorted(largest), strict=False):
            group = by_source[source]
            axes.plot(
                steps, group["by_step"], color=colour, linewidth=1.4, label=f"{_legend(source)} ({group['count']:,})"
            )
    _with_band(axes, steps, metrics["by_step"], metrics["count"])
    axes.set(
        title=f"{subject or metrics['task'].capitalize()}: accuracy against thinking time",
        xlabel="supervision step",
        ylabel="puzzles solved",
        xlim=(1, max(2, len(steps))),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent_axis(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), title="source (puzzles)", alignment="left", fontsize=8)
    return save_figure(figure, output)


def halting_histogram(metrics: dict[str, Any], output: str | Path, subject: str | None = None) -> Path:
    """Share of the puzzles that first ask to halt at each supervision step; a grey bar for those that never do."""
    counts = np.array(metrics["halting_histogram"])
    total = metrics["count"]
    steps = np.arange(1, len(counts) + 1)
    never = len(counts) + 1.5
    mean = metrics["mean_halting_step"]
    figure = new_figure(width=5.6)
    axes = figure.subplots()
    axes.bar(steps, counts / total, color=COLOURS[0], width=0.8)
    axes.bar([never], [metrics["never_halted"] / total], color=GREY, width=0.8)
    axes.axvline(mean, color=COLOURS[1], linewidth=1.4, linestyle="--", label=f"mean {mean:.1f} of {len(counts)} steps")
    shown = steps if len(steps) <= 16 else steps[:: -(-len(steps) // 8)]
    axes.set_xticks([*shown, never], [*map(str, shown), "never"])
    axes.set(
        title=f"{subject or metrics['task'].capitalize()}: when the model wants to halt",
        xlabel="supervision step with the first positive halt logit",
        ylabel=f"share of {total:,} puzzles",
    )
    axes.margins(x=0.02, y=0.18)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.legend(loc="upper left" if mean > len(counts) / 2 else "upper right")
    return save_figure(figure, output)


def risk_coverage_curve(
    curve: list[dict[str, float]], certificates: list[dict[str, Any]], output: str | Path, title: str
) -> Path:
    """Wrong answers among those given, against the share of puzzles answered, by the halt probability; and where each
    certificate stands.

    Args:
        curve: of `certificates.risk_coverage`. certificates: rows of `trm certify`, with their outcome.
    """
    figure = new_figure(width=7.6)
    axes = figure.subplots()
    coverage = [point["coverage"] for point in curve]
    low, high = [point["low"] for point in curve], [point["high"] for point in curve]
    axes.fill_between(coverage, low, high, color=TOTAL_COLOUR, alpha=0.12, linewidth=0)
    axes.plot(
        coverage, [point["risk"] for point in curve], color=TOTAL_COLOUR, label="halt probability above any value"
    )
    for row, colour, marker in zip(certificates, COLOURS, "osD^vX"):
        if row["error"] is not None:
            place = 1 - row["abstained"]["share"], row["error"]["share"]
            axes.plot(*place, marker, color=colour, markersize=8, label=row["name"], clip_on=False, linestyle="")
    axes.set(title=title, xlabel="coverage: puzzles answered", ylabel="risk: wrong among the answers", xlim=(0, 1))
    percent_axis(axes)
    axes.xaxis.set_major_formatter(PERCENT)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save_figure(figure, output)


def write_plots(
    folder: str | Path, evaluations: dict[str, dict[str, Any]], log_path: str | Path | None = None
) -> list[Path]:
    """Every plot that these results allow, as PNG files in the folder, named after the evaluation.

    Args:
        evaluations: {name: metrics}; the accuracy curve is left out for metrics taken with early exit.
        log_path: log.jsonl of the training run, if there was one.
    """
    folder = Path(folder)
    written = [] if log_path is None else [learning_curve(log_path, folder / "learning_curve.png")]
    for name, metrics in evaluations.items():
        if "by_step" in metrics:
            written.append(accuracy_by_step(metrics, folder / f"{name}_accuracy_by_step.png", _of(name, metrics)))
        written.append(halting_histogram(metrics, folder / f"{name}_halting.png", _of(name, metrics)))
    return written


def _of(name: str, metrics: dict[str, Any]) -> str:
    """What a plot of an evaluation is of; a run's own test set needs no name."""
    return metrics["task"].capitalize() + ("" if name == "test" else f", {name}")


def _trend(axes: Axes, steps: np.ndarray, values: Iterable[float], label: str, colour: str) -> None:
    """The raw values pale, their centred running mean (over a twentieth of the run) strong."""
    values = np.array(list(values), dtype=np.float64)
    few = "o" if len(values) <= FEW else None  # a line of one point is none
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8, marker=few, markersize=4)
    reach = len(values) // 40
    sums = np.cumsum(np.concatenate([[0.0], values]))
    starts = np.maximum(0, np.arange(len(values)) - reach)
    ends = np.minimum(len(values), np.arange(len(values)) + reach + 1)
    axes.plot(steps, (sums[ends] - sums[starts]) / (ends - starts), color=colour, linewidth=1.8, label=label)


def _legend(source: str) -> str:
    return source_in_words(source).replace(": ", ":\n", 1)


def _evaluation_points(axes: Axes, colour: str, label: str, evaluations: list[dict[str, Any]]) -> None:
    steps = [record["step"] for record in evaluations]
    metrics = [record["eval"] for record in evaluations]
    shares = np.array([metric["exact_accuracy"] for metric in metrics])
    intervals = np.array([metric["exact_accuracy_ci95"] for metric in metrics])
    spread = np.abs(intervals - shares[:, None]).T
    axes.errorbar(
        steps, shares, yerr=spread, color=colour, marker="o", markersize=3.5, linewidth=1.4, elinewidth=0.8,
        capsize=2, clip_on=False, label=f"{label} (95 % interval)",
    )  # fmt: skip


def _with_band(axes: Axes, steps: np.ndarray, shares: list[float], count: int) -> None:
    intervals = np.array([wilson_interval(round(share * count), count) for share in shares])
    axes.fill_between(steps, intervals[:, 0], intervals[:, 1], color=TOTAL_COLOUR, alpha=0.12, linewidth=0)
    axes.plot(steps, shares, color=TOTAL_COLOUR, linewidth=2.2, label=f"all ({count:,})")


def _minutes_axis(axes: Axes, steps: np.ndarray, minutes: np.ndarray) -> None:
    """A second scale on top: minutes of training at those steps (both grow, so interpolation maps between them)."""
    if len(steps) < 2 or minutes[-1] <= 0:
        return
    known_steps, known_minutes = np.concatenate([[0], steps]), np.concatenate([[0.0], minutes])

    def to_minutes(step: ArrayLike) -> ArrayLike:
        return np.interp(np.asarray(step), known_steps, known_minutes)

    def to_steps(minute: ArrayLike) -> ArrayLike:
        return np.interp(np.asarray(minute), known_minutes, known_steps)

    top = axes.secondary_xaxis("top", functions=(to_minutes, to_steps))
    # Only ticks inside the run: interpolation would pile every later one up at its end.
    top.set_ticks([tick for tick in MaxNLocator(6).tick_values(0, minutes[-1]) if tick <= minutes[-1]])
    top.set_xlabel("minutes", fontsize=9)
    top.tick_params(labelsize=8)
