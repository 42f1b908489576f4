"""Figures in one manner: size, palette, axes, and PNG files written whole or not at all.

Built without pyplot: no display, no global state, safe in a training process.
"""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .files import write_bytes

# Okabe and Ito's palette, which colour-blind readers can tell apart; black is kept for the total.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
TOTAL_COLOUR = "#222222"
GREY = "#8c8c8c"
DOTS_PER_INCH = 150
PERCENT = FuncFormatter(lambda share, _position: f"{100 * share:g}%")


def new_figure(width: float, height: float = 3.4) -> Figure:
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")


def save_figure(figure: Figure, output: str | Path) -> Path:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e3e3", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.title.set_fontsize(11)
        legend = axes.get_legend()
        if legend is not None:
            legend.set_frame_on(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_bytes(output, buffer.getvalue())


def percent_axis(axes: Axes) -> None:
    """From 0 to a little above the data, 100 % at most: low curves stay readable and none looks higher than it is.

    A little room below 0, so that a line at 0 % does not lie on the axis.
    """
    top = min(1.02, max(0.05, 1.1 * axes.dataLim.y1))
    axes.set_ylim(-0.03 * top, top)
    axes.yaxis.set_major_formatter(PERCENT)
