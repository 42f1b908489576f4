"""Supervision steps taken apart: every update of a latent seen, measured against the one before it.

A supervision step has H_cycles cycles of L_cycles updates of z_L and one of z_H; with a single latent, of L_cycles
updates of z_H (recursion_trm.cycle). Three levels are measured, each against its own predecessor: "update", "cycle" and
"step". The latents before the first step are the model's initial ones, read out by its heads like any other.

Measures, [B] each: entropy (nats) and cells_changed over the free cells (the blank ones where the task has a blank,
else all); with labels exact, exact_before, cell_accuracy, advantage_margin (w = 0), advantage_margin_after (w = 1) and
dead; halt_probability; of each latent its rms, effective_rank, cosine and distance to the one before. An update of z_L
leaves the answer as it was: it has measures of z_L alone.

Shapes: B puzzles, L cells, V vocabulary, S positions, D hidden, T supervision steps.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..evaluation.engine import in_evaluation_mode
from ..modeling_trm import TRMForGridReasoning
from ..reasoning_trm import answers_from_logits
from ..recursion_trm import RecursionState
from . import measures

UPDATE, CYCLE, STEP = "update", "cycle", "step"


@dataclass(frozen=True)
class Moment:
    """The measures after an update, a cycle or a step (`level`); all numbers count from 1.

    L_cycle is None for the update of z_H that ends a cycle, and like H_cycle where the level has none.
    """

    level: str
    step: int
    H_cycle: int | None
    L_cycle: int | None
    values: dict[str, Tensor]


@dataclass(frozen=True)
class Observation:
    """moments in the order of the run; answers int64 [T, B, L] and confidence [T, B, L] after every step."""

    moments: list[Moment]
    answers: Tensor
    confidence: Tensor

    def level(self, name: str) -> list[Moment]:
        return [moment for moment in self.moments if moment.level == name]

    @staticmethod
    def join(parts: Sequence["Observation"]) -> "Observation":
        """The puzzles of several observations of the same number of steps as one."""
        moments = []
        for same in zip(*(part.moments for part in parts), strict=True):
            first = same[0]
            values = {name: torch.cat([moment.values[name] for moment in same]) for name in first.values}
            moments.append(Moment(first.level, first.step, first.H_cycle, first.L_cycle, values))
        answers = torch.cat([part.answers for part in parts], dim=1)
        return Observation(moments, answers, torch.cat([part.confidence for part in parts], dim=1))


class Reading(NamedTuple):
    """Latents and what the heads make of them; `own` the measures of each latent by itself, [B] each."""

    state: RecursionState
    logits: Tensor
    halt_logits: Tensor
    answers: Tensor
    own: dict[str, Tensor]


class Goal(NamedTuple):
    """The puzzles: what is to be filled in (free) and what of it can be scored, bool [B, L]; labels or None."""

    input_ids: Tensor
    free: Tensor
    labels: Tensor | None
    scored: Tensor


def updates(
    stack: Callable[[Tensor], Tensor], state: RecursionState, x: Tensor, H_cycles: int, L_cycles: int
) -> Iterator[tuple[int, int | None, RecursionState]]:
    """(H cycle, L cycle or None, the latents) after every update of one supervision step, as recursion_trm.cycle."""
    z_H, z_L = state.z_H, state.z_L
    for h in range(1, H_cycles + 1):
        for l in range(1, L_cycles + 1):  # noqa: E741 (the paper's letter)
            if z_L is None:
                z_H = stack(z_H + x)
            else:
                z_L = stack(z_L + z_H + x)
            yield h, l, state._replace(z_H=z_H, z_L=z_L)
        if z_L is not None:
            z_H = stack(z_H + z_L)
            yield h, None, state._replace(z_H=z_H, z_L=z_L)


@torch.no_grad()
def observe(
    model: TRMForGridReasoning,
    input_ids: Tensor,
    puzzle_ids: Tensor | None = None,
    labels: Tensor | None = None,
    max_steps: int | None = None,
) -> Observation:
    """Run supervision steps without halting and measure every update of them. See the module's docstring.

    Args:
        input_ids: [B, L] token ids. puzzle_ids: [B] rows of the puzzle table; None is the blank row 0.
        labels: [B, L] token ids; 0 (padding) and below are not scored. None leaves out what needs them.
        max_steps: supervision steps; None takes config.halt_max_steps.

    Raises:
        ValueError: max_steps below 1, input_ids or labels of another shape than [B, L], or a size of grids that the
            model does not answer.
    """
    config = model.config
    steps = config.halt_max_steps if max_steps is None else max_steps
    if steps < 1:
        raise ValueError(f"max_steps={steps} must be at least 1")
    if labels is not None and labels.shape != input_ids.shape:
        raise ValueError(f"labels has shape {list(labels.shape)}; allowed: {list(input_ids.shape)} as input_ids")
    config.vocab_size_of(input_ids.shape[1])
    with in_evaluation_mode(model):
        return _observe(model, _goal(input_ids, labels, config.blank_token_id), puzzle_ids, steps)


def _observe(model: TRMForGridReasoning, goal: Goal, puzzle_ids: Tensor | None, steps: int) -> Observation:
    config = model.config
    start = _read(model, _initial_state(model, goal.input_ids, puzzle_ids), goal, None)
    now = start._replace(answers=goal.input_ids)  # the first answer is compared with the puzzle itself
    before = dict.fromkeys((UPDATE, CYCLE, STEP), now)
    moments, answers, confidences = [], [], []
    for step in range(1, steps + 1):
        x = model.model.embed(goal.input_ids, puzzle_ids, now.state)  # of every step: it may read the last answer
        for h, l, state in updates(model.model.stack, now.state, x, config.H_cycles, config.L_cycles):  # noqa: E741
            now = _read(model, state, goal, now)
            moments.append(Moment(UPDATE, step, h, l, _measure(now, before[UPDATE], goal)))
            before[UPDATE] = now
            if l is None or (state.z_L is None and l == config.L_cycles):
                moments.append(Moment(CYCLE, step, h, None, _measure(now, before[CYCLE], goal)))
                before[CYCLE] = now
        moments.append(Moment(STEP, step, None, None, _measure(now, before[STEP], goal)))
        carried = model.with_answers(now.state, now.logits, goal.input_ids)
        now = now._replace(state=carried._replace(steps=None if carried.steps is None else carried.steps + 1))
        before[STEP] = now
        answers.append(now.answers.cpu())
        confidences.append(measures.confidence(now.logits).cpu())
    return Observation(moments, torch.stack(answers), torch.stack(confidences))


def _initial_state(model: TRMForGridReasoning, input_ids: Tensor, puzzle_ids: Tensor | None) -> RecursionState:
    """In the dtype of the embedding, which is autocast's where that is on, as in the model's forward."""
    state = model.initial_state(len(input_ids), seq_len=input_ids.shape[1])
    return state.map(lambda z: z.to(model.model.embed(input_ids, puzzle_ids, state).dtype))


def _goal(input_ids: Tensor, labels: Tensor | None, blank_token_id: int | None) -> Goal:
    free = torch.ones_like(input_ids, dtype=torch.bool) if blank_token_id is None else input_ids == blank_token_id
    return Goal(input_ids, free, labels, torch.zeros_like(free) if labels is None else labels > 0)


def _read(model: TRMForGridReasoning, state: RecursionState, goal: Goal, last: Reading | None) -> Reading:
    """The latents through the heads, as the model's forward does; what has not changed is not computed again."""
    own = {} if last is None else dict(last.own)
    for name, z, same in zip(("z_H", "z_L"), state, (None, None) if last is None else last.state):
        if z is not None and z is not same:
            own |= {f"{name}_rms": measures.rms(z), f"{name}_effective_rank": measures.effective_rank(z)}
    if last is not None and state.z_H is last.state.z_H:
        return last._replace(state=state, own=own)
    logits, halt_logits = model.read_out(state.z_H)
    answers = answers_from_logits(logits, goal.input_ids, model.config.blank_token_id)
    return Reading(state, logits, halt_logits, answers, own)


def _measure(now: Reading, before: Reading, goal: Goal) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    if now.state.z_H is not before.state.z_H:
        values |= _of_answer(now, before, goal)
    for name, z, former in zip(("z_H", "z_L"), now.state, before.state):
        if z is not None and former is not None and z is not former:
            values |= {key: value for key, value in now.own.items() if key.startswith(name)}
            values[f"{name}_cosine"] = measures.cosine(z, former)
            values[f"{name}_distance"] = measures.relative_distance(z, former)
    return {name: value.cpu() for name, value in values.items()}


def _of_answer(now: Reading, before: Reading, goal: Goal) -> dict[str, Tensor]:
    values = {
        "entropy": measures.mean_over(measures.entropy(now.logits), goal.free),
        "cells_changed": measures.wide(((now.answers != before.answers) & goal.free).sum(1)),
        "halt_probability": measures.wide(now.halt_logits).sigmoid(),
    }
    if goal.labels is None:
        return values
    filled = goal.free & goal.scored
    margin, margin_after = (
        measures.mean_over(measures.advantage_margin(before.logits, now.logits, goal.labels, w), filled)
        for w in (0.0, 1.0)
    )
    return values | {
        "exact": measures.wide(_exact(now.answers, goal)),
        "exact_before": measures.wide(_exact(before.answers, goal)),
        "cell_accuracy": measures.mean_over(measures.wide(now.answers == goal.labels), filled),
        "advantage_margin": margin,
        "advantage_margin_after": margin_after,
        "dead": torch.where(margin.isnan(), margin, (margin <= 0).to(margin.dtype)),
    }


def _exact(answers_BL: Tensor, goal: Goal) -> Tensor:
    return ((answers_BL == goal.labels) | ~goal.scored).all(1)
