"""Deep improvement supervision: each supervision step has a target of its own, on a path from the puzzle to the answer.

Source: arXiv 2511.16886. Every puzzle takes all halt_max_steps steps and none halts, so all slots are at the same
step: step number t of the run is step (t - 1) mod halt_max_steps + 1 of every puzzle, and the random order in which a
puzzle's cells are filled in is a function of the seed, the step at which it came and its slot.

Shapes: B slots of this process, b of one part of them, L cells.
"""

import numpy as np
from torch import Tensor

from ..losses_trm import improvement_target
from ..randomness_trm import random_floats
from .rows import send

STREAM = 51  # keeps the orders apart from what else is drawn by this seed and these counters


class ImprovementPath:
    """The targets of a run. slots: numbers [B] of this process's slots in the global batch of `batch_size`."""

    def __init__(self, seed: int, slots: np.ndarray, batch_size: int, max_steps: int) -> None:
        self.seed, self.slots, self.batch_size, self.max_steps = seed, slots, batch_size, max_steps
        self.order: tuple[int, Tensor] | None = None  # when its puzzles came, and [B, L]: drawn and sent once for them

    def targets(self, step: int, rows: slice, inputs_bL: Tensor, labels_bL: Tensor, begun: int = 0) -> Tensor:
        """What this process's slots `rows` are asked for at the run's step `step`, counted from 1: [b, L].

        begun: the step after which all slots took their first puzzles; they move in step from there.
        """
        past, taken = divmod(step - 1 - begun, self.max_steps)
        born = -(-begun // self.max_steps) + past  # not the orders of the run's first puzzles again
        if self.order is None or self.order[0] != born:
            drawn = random_floats(self.seed, born * self.batch_size + self.slots, STREAM, inputs_bL.shape[1])
            self.order = born, send(drawn.astype(np.float32), inputs_bL.device)
        return improvement_target(inputs_bL, labels_bL, self.order[1][rows], taken + 1, self.max_steps)
