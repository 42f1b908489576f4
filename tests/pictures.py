"""Pictures in a tenth of their size, their parts not moved apart: drawing takes half a second of each training run."""

from typing import Any

from matplotlib.figure import Figure

_savefig = Figure.savefig


def draw_quickly(figure: Figure, *args: Any, **kwargs: Any) -> None:
    """In the place of Figure.savefig."""
    figure.set_layout_engine("none")
    _savefig(figure, *args, **kwargs | {"dpi": 15})
