"""Inference: supervision steps on trained weights until the answer stands. Source: arXiv 2510.04871, section 4.

Shapes: B puzzles, b puzzles still running, L cells, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class TraceStep(NamedTuple):
    """What one supervision step answered: rows [b] of the batch still running, answers [b, L], halt probability [b]."""

    rows: Tensor
    answers: Tensor
    halt_probability: Tensor


@dataclass(frozen=True)
class SolveOutput:
    """answers [B, L] token ids; halt_probability [B] of the last step; steps [B] taken; trace, one entry a step."""

    answers: Tensor
    halt_probability: Tensor
    steps: Tensor
    trace: list[TraceStep] | None


def answers_from_logits(logits_BLV: Tensor, input_ids: Tensor, blank_token_id: int | None) -> Tensor:
    """The arg max of each cell; with a `blank_token_id`, only where the input is blank, else the given token."""
    answers = logits_BLV.argmax(-1)
    return answers if blank_token_id is None else torch.where(input_ids == blank_token_id, answers, input_ids)


class ReasoningMixin:
    """Gives a grid-reasoning model `solve`, as GenerationMixin gives a language model `generate`."""

    config: Any
    __call__: Callable[..., Any]

    @torch.no_grad()  # and not inference_mode: its tensors could not enter a later computation with gradients
    def solve(
        self,
        input_ids: Tensor,
        puzzle_ids: Tensor | None = None,
        max_steps: int | None = None,
        halt: bool = False,
        return_trace: bool = False,
    ) -> SolveOutput:
        """Run supervision steps on a batch of puzzles.

        Args:
            input_ids: [B, L] token ids. puzzle_ids: [B] rows of the puzzle table, None for the blank id.
            max_steps: supervision steps; None takes config.halt_max_steps, and more than in training is allowed.
            halt: stop each puzzle after the first step whose halt logit is positive; the batch is compacted, so a
                stopped puzzle costs nothing more. False runs every puzzle for max_steps, as the reference does.
            return_trace: keep the answers of every step.

        Raises:
            ValueError: max_steps below 1, or input_ids that do not fit the model.
        """
        max_steps = self.config.halt_max_steps if max_steps is None else max_steps
        if max_steps < 1:
            raise ValueError(f"max_steps={max_steps} must be at least 1")
        rows = torch.arange(len(input_ids), device=input_ids.device)
        answers = torch.empty_like(input_ids, dtype=torch.long)
        halt_logits = torch.empty(len(input_ids), device=input_ids.device)
        steps = torch.zeros_like(rows)
        trace: list[TraceStep] = []
        state = None
        for step in range(1, max_steps + 1):
            out = self(input_ids, puzzle_ids=puzzle_ids, state=state)
            answers[rows] = answers_from_logits(out.logits, input_ids, self.config.blank_token_id)
            halt_logits[rows] = out.halt_logits.to(halt_logits.dtype)
            steps[rows] = step
            if return_trace:
                trace.append(TraceStep(rows, answers[rows], out.halt_logits.float().sigmoid()))
            state = out.state
            if halt:
                running = out.halt_logits <= 0
                if not running.any():
                    break
                rows, input_ids, state = rows[running], input_ids[running], state.select(running)
                puzzle_ids = None if puzzle_ids is None else puzzle_ids[running]
        return SolveOutput(answers, halt_logits.sigmoid(), steps, trace if return_trace else None)
