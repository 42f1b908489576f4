"""One data set by the card protocol: what the card says of it."""

from pathlib import Path
from typing import Any

from ..evaluation.plots import write_plots
from ..evaluation.puzzles import Puzzles
from ..modeling_trm import TRMForGridReasoning
from ..utils.machine import library_versions
from .card import SOLVING
from .protocol import Protocol, measure
from .solving import solving_picture
from .ways import plain_figures, rows_of


def measure_card(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    protocol: Protocol,
    folder: str | Path,
    *,
    command: str,
    dataset: str,
    batch_size: int = 32,
    engine: str = "auto",
    progress: bool = True,
) -> tuple[dict[str, Any], Path]:
    """An evaluation of metrics.json (see `card`) with its `ways`, and the folder of its plots.

    Its plain figures are those of the pass "steps", or without it of the pass "halting".

    Args:
        folder: of the passes, and plots/. command: that reproduces the figures. dataset: the test puzzles in words.
            The others are those of `measure`.

    Raises:
        ValueError: as `measure`.
    """
    measured = measure(model, puzzles, protocol, folder, batch_size=batch_size, engine=engine, progress=progress)
    figures = plain_figures(measured[0]) | {
        "command": command,
        "dataset": dataset,
        "split": "test",
        "versions": library_versions(),
        "ways": [row for one in measured for row in rows_of(one, model.config.halt_max_steps, command)],
    }
    plots = Path(folder) / "plots"
    write_plots(plots, {figures["split"]: figures})
    solving_picture(model, puzzles, plots / SOLVING)
    return figures, plots
