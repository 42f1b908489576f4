"""What happens to latents in training besides the recursion: random starts, noise, corrupted answers to start from.

A model that always begins at the same latents learns one way to the answer; these teach it to come back to it from
elsewhere. Sources: random starts, noise and damping, arXiv 2605.21488 (EqR); the start from a corrupted answer, trained
for one step, the public digit-field TRM. Deviation: noise and damping come once a supervision step, as in `solve`, and
not with every call of the stack, which so is one function in training and at inference.

Shapes: B slots of this process, L cells, S positions, D hidden.
"""

import numpy as np
import torch
from torch import Tensor

from ..modeling_trm import TRMForGridReasoning
from ..randomness_trm import random_bits
from ..recursion_trm import RecursionState
from .arguments import OptimisationArguments

PAD_ID = 0  # of every alphabet
STREAM = 1000  # of the random numbers of slot 0's process; keeps them apart from what else this seed draws
START, NOISE, ANSWERS = range(3)  # what is drawn at a step, each from a generator of its own


class Perturbation:
    """Every draw is a function of the run's seed, the step and the process's first slot, made on the device."""

    def __init__(
        self, arguments: OptimisationArguments, model: TRMForGridReasoning, seed: int, slots: np.ndarray, seq_len: int
    ) -> None:
        self.arguments, self.model, self.seed, self.slots, self.seq_len = arguments, model, seed, slots, seq_len

    def start(self, step: int) -> RecursionState:
        """What a puzzle begins with that comes at this step: fixed latents, or random ones drawn for each slot."""
        state = self.model.initial_state(len(self.slots), seq_len=self.seq_len)
        if not self.arguments.random_start:
            return state
        return self._add_noise(state.map(torch.zeros_like), float(self.model.config.initial_state_std), step, START)

    def corrupted(self, step: int, labels_BL: Tensor, puzzle_ids_B: Tensor) -> tuple[Tensor, Tensor]:
        """Which puzzles that come at this step begin with a corrupted answer, bool [B], and z_H then, [B, (K,) S, D].

        Up to `corruption` of an answer's cells, another share for each puzzle, are replaced by other cells of it.
        """
        B, L = labels_BL.shape
        device, generator = labels_BL.device, self._generator(step, ANSWERS)
        draws = torch.rand(B, L + 2, generator=generator, device=device)
        others_BL = torch.randint(L, (B, L), generator=generator, device=device)
        replaced_BL = draws[:, 2:] < self.arguments.corruption * draws[:, 1:2]
        drawn_BL = labels_BL.gather(1, others_BL)
        is_cell_BL = (labels_BL != PAD_ID) & (drawn_BL != PAD_ID)
        answers_BL = torch.where(replaced_BL & is_cell_BL, drawn_BL, labels_BL)
        with torch.no_grad():
            plain = self.model.initial_state(B, seq_len=L).replaced(answers=None, steps=None)
            z_H = self.model.model.embed(answers_BL, puzzle_ids_B, plain)
        return draws[:, 0] < self.arguments.corrupted_share, z_H

    def disturb(self, step: int, state: RecursionState) -> RecursionState:
        """The latents with noise, before the supervision step."""
        return self._add_noise(state, self.arguments.noise_std, step, NOISE) if self.arguments.noise_std else state

    def _add_noise(self, state: RecursionState, std: float, step: int, kind: int) -> RecursionState:
        generator = self._generator(step, kind)
        return state.map(lambda z: z + std * torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype))

    def _generator(self, step: int, kind: int) -> torch.Generator:
        drawn = random_bits(self.seed, np.array([step]), STREAM + int(self.slots[0]), 3)[0, kind]
        return torch.Generator(self.model.device).manual_seed(int(drawn) >> 32)
