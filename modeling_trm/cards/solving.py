"""The picture at the head of a card: a puzzle that the model solves, step by step."""

from pathlib import Path

import numpy as np
import torch

from ..diagnostics.animation import solving_gif
from ..diagnostics.report import observe_puzzles
from ..evaluation.puzzles import Puzzles, choose_subset, tensors_of
from ..modeling_trm import TRMForGridReasoning

TASKS = ("sudoku", "maze")  # whose cells the picture knows to colour
TRIED = 24  # puzzles; the one that takes the most steps is shown


def solving_picture(model: TRMForGridReasoning, puzzles: Puzzles, output: str | Path) -> Path | None:
    """Write the GIF of a puzzle that the model solves as its own reasoning_config says.

    Returns:
        `output`; None, and nothing is written, where none of those tried is solved or the task has no picture.
    """
    if puzzles.task not in TASKS:
        return None
    tried = choose_subset(puzzles, TRIED)
    inputs, _, labels = tensors_of(tried, model.device)
    solved = model.solve(inputs, num_trajectories=1)
    steps = torch.where((solved.answers == labels).all(1), solved.steps, 0)
    number = int(steps.argmax())
    if not steps[number]:
        return None
    shown = tried.select(np.array([number]))
    return solving_gif(observe_puzzles(model, shown, int(steps[number]), progress=False), shown, 0, output)
