"""ACT slots: a batch whose puzzles are at different supervision steps; a finished one makes room for a new puzzle.

Source: arXiv 2510.04871, section 2 and the public code's models/recursive_reasoning/trm.py.

Everything random is a function of (seed, step, slot), so the order of the batch's slots over the processes does not
matter and a resumed run needs no generator state. Shapes: B slots of this process, L cells, S positions, D hidden.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..modeling_trm import TRMForGridReasoning
from ..recursion_trm import RecursionState


@dataclass
class Slots:
    """inputs, labels [B, L]; puzzle_ids [B]; steps [B] taken by the puzzle; released [B]: to be refilled; state."""

    inputs: Tensor
    labels: Tensor
    puzzle_ids: Tensor
    steps: Tensor
    released: Tensor
    state: RecursionState

    @classmethod
    def empty(cls, model: TRMForGridReasoning, size: int, seq_len: int) -> "Slots":
        """All released, for grids of seq_len cells: the first refill fills every slot."""
        device = model.device
        cells = torch.zeros(size, seq_len, dtype=torch.long, device=device)
        rows = torch.zeros(size, dtype=torch.long, device=device)
        state = model.initial_state(size, seq_len=seq_len)  # views, which the first refill replaces
        return cls(cells, cells.clone(), rows, rows.clone(), torch.ones(size, dtype=torch.bool, device=device), state)

    def refill(self, inputs: Tensor, labels: Tensor, puzzle_ids: Tensor, fresh: RecursionState) -> None:
        """Give every released slot its row of the arguments and a fresh state; no synchronisation with the device."""
        grid = self.released[:, None]
        self.inputs = torch.where(grid, inputs, self.inputs)
        self.labels = torch.where(grid, labels, self.labels)
        self.puzzle_ids = torch.where(self.released, puzzle_ids, self.puzzle_ids)
        self.steps = self.steps.masked_fill(self.released, 0)
        self.state = fresh.where(self.released, self.state)

    def advance(self, state: RecursionState, done: Tensor, min_steps: Tensor, max_steps: int) -> None:
        """Count a supervision step; release the slots that are `done` and beyond their minimum, or at the last step."""
        self.state = state
        self.steps = self.steps + 1
        self.released = (done & (self.steps >= min_steps)) | (self.steps >= max_steps)

    def state_dict(self) -> dict[str, Tensor]:
        """Flat, for safetensors."""
        state = {f"state.{name}": field for name, field in self.state._asdict().items() if field is not None}
        return {name: value for name, value in vars(self).items() if name != "state"} | state

    def load_state_dict(self, saved: Mapping[str, Tensor], prefix: str = "") -> None:
        """What `state_dict` gave, of which `prefix` stands before each name. Raises ValueError for other shapes."""
        device = self.steps.device
        saved = {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
        for name, present in self.state_dict().items():
            if saved[name].shape != present.shape:
                raise ValueError(f"slots: {name} has shape {list(saved[name].shape)}, expected {list(present.shape)}")
        fields = (saved.get(f"state.{name}") for name in RecursionState._fields)
        self.state = RecursionState(*(None if field is None else field.to(device) for field in fields))  # type: ignore[arg-type]
        for name in ("inputs", "labels", "puzzle_ids", "steps", "released"):
            setattr(self, name, saved[name].to(device))


def exploration(seed: int, step: int, slots: np.ndarray, probability: float, max_steps: int) -> np.ndarray:
    """Minimum steps [B] before a slot may halt: with `probability` uniform in 2..max_steps, else 0.

    Drawn anew at every step for every slot, as in the reference. `slots`: numbers of the slots in the global batch.
    """
    draws = np.random.Generator(np.random.Philox(key=[seed, step])).random((int(slots.max()) + 1, 2))[slots]
    minimum = 2 + np.floor(draws[:, 1] * max(max_steps - 1, 1)).astype(np.int64)
    return np.where(draws[:, 0] < probability, minimum, 0)
