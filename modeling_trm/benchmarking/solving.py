"""Puzzles solved while the time is taken, some at a time, so that a round is a batch and no puzzle is solved twice."""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from ..evaluation.puzzles import PAD_TOKEN_ID, Puzzles, tensors_of

Chunk = tuple[Tensor, Tensor]  # input_ids and labels [B, L]
Solver = Callable[[Tensor], tuple[Tensor, Tensor]]  # input_ids [B, L] -> answers [B, L], steps [B]


def chunks_of(puzzles: Puzzles, at_a_time: int, device: torch.device) -> list[Chunk]:
    """Equal ones, so that their times compare; what is left over at the end is not used."""
    inputs, _, labels = tensors_of(puzzles, device)
    size = min(at_a_time, len(inputs))
    whole = len(inputs) // size * size
    return list(zip(inputs[:whole].split(size), labels[:whole].split(size)))


class Solved:
    """Each call solves the next chunk; after as many calls as there are chunks `result` tells how well."""

    def __init__(self, solver: Solver, chunks: Sequence[Chunk]) -> None:
        self.solver, self.chunks, self.numbers = solver, chunks, cycle(range(len(chunks)))
        self.exact: dict[int, Tensor] = {}
        self.steps: dict[int, Tensor] = {}

    def __call__(self) -> None:
        number = next(self.numbers)
        inputs, labels = self.chunks[number]
        answers, self.steps[number] = self.solver(inputs)
        self.exact[number] = ((answers == labels) | (labels == PAD_TOKEN_ID)).all(-1)

    def first(self) -> None:
        """To warm up: the first chunk, not counted."""
        self.solver(self.chunks[0][0])

    def result(self) -> dict[str, Any]:
        exact, steps = torch.cat(list(self.exact.values())), torch.cat(list(self.steps.values()))
        solved = f"{int(exact.sum())} of {len(exact)}"
        return {"solved": solved, "mean steps": f"{steps.float().mean():.2f}"}
