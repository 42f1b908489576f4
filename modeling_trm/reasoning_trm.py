"""Inference: supervision steps on trained weights until the answer stands, on one trajectory or many.

Source: arXiv 2510.04871, section 4; several trajectories: see trajectories_trm; guidance: arXiv 2511.16886 (DIS).

Shapes: B puzzles, K trajectories of each, n of them still running in a batch, L cells, S positions, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .engines_trm import choose_engine
from .recursion_trm import RecursionState
from .trajectories_trm import LATENTS, SELECTIONS, Noise, Trajectories, Verifier, select


class TraceStep(NamedTuple):
    """One supervision step: rows [b] of the batch still running, answers [b, L]; the others [b]."""

    rows: Tensor
    answers: Tensor
    halt_probability: Tensor
    residual: Tensor
    halt_logits: Tensor


@dataclass(frozen=True)
class SolveOutput:
    """answers [B, L] token ids; halt_probability [B] of the last step; steps [B] taken; trace, one entry a step.

    trajectories: how each of several ended, from which the answers are taken; None for a single one.
    """

    answers: Tensor
    halt_probability: Tensor
    steps: Tensor
    trace: list[TraceStep] | None
    trajectories: Trajectories | None = None


@dataclass(frozen=True)
class Walk:
    """How a trajectory goes; the arguments of `solve` of these names."""

    max_steps: int
    halt: bool | float
    noise_std: float
    noise_on: str
    random_start: bool
    guidance: float
    damping: float

    @property
    def halt_logit(self) -> float | None:
        """The halt logit above which a trajectory stops; None for never."""
        if isinstance(self.halt, bool):
            return 0.0 if self.halt else None
        return math.log(self.halt / (1 - self.halt))

    @property
    def is_random(self) -> bool:
        return self.random_start or self.noise_std > 0

    def check(self, num_latents: int) -> None:
        """Raises ValueError naming the argument, its value and what is allowed."""
        if self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps} must be at least 1")
        check_halt(self.halt)
        if not self.noise_std >= 0:
            raise ValueError(f"noise_std={self.noise_std} is not allowed; allowed: 0 or more")
        if not 0 <= self.damping < 1:
            raise ValueError(f"damping={self.damping} is not allowed; allowed: 0 up to, not including, 1")
        if self.noise_on not in LATENTS:
            raise ValueError(f"noise_on={self.noise_on!r} is unknown; allowed: {', '.join(LATENTS)}")
        if self.noise_on == "z_L" and num_latents == 1:
            raise ValueError("noise_on='z_L': the model has a single latent; allowed: 'z_H'")


def check_halt(halt: bool | float) -> None:
    """Raises ValueError for anything but True, False and a probability between 0 and 1."""
    if not isinstance(halt, bool) and not (isinstance(halt, float) and 0 < halt < 1):
        raise ValueError(f"halt={halt!r} is not allowed; allowed: True, False, or a probability between 0 and 1")


def answers_from_logits(logits_BLV: Tensor, input_ids: Tensor, blank_token_id: int | None) -> Tensor:
    """The arg max of each cell; with a `blank_token_id`, only where the input is blank, else the given token."""
    answers = logits_BLV.argmax(-1)
    return answers if blank_token_id is None else torch.where(input_ids == blank_token_id, answers, input_ids)


class ReasoningMixin:
    """Gives a grid-reasoning model `solve`, as GenerationMixin gives a language model `generate`."""

    config: Any
    initial_state: Callable[..., RecursionState]
    __call__: Callable[..., Any]

    @torch.no_grad()  # and not inference_mode: its tensors could not enter a later computation with gradients
    def solve(
        self,
        input_ids: Tensor,
        puzzle_ids: Tensor | None = None,
        max_steps: int | None = None,
        halt: bool | float = False,
        return_trace: bool = False,
        *,
        num_trajectories: int = 1,
        noise_std: float = 0.0,
        noise_on: str = "z_H",
        random_start: bool = False,
        selection: str = "halt",
        verifier: Verifier | None = None,
        guidance: float = 1.0,
        damping: float = 0.0,
        max_batch: int | None = None,
        generator: torch.Generator | None = None,
        engine: str = "auto",
    ) -> SolveOutput:
        """Run supervision steps on a batch of puzzles.

        Args:
            input_ids: [B, L] token ids. puzzle_ids: [B] rows of the puzzle table, None for the blank id.
            max_steps: supervision steps; None takes config.halt_max_steps; more than in training is allowed.
            halt: stop each trajectory after the first step whose halt probability is above 0.5 (True) or this number;
                the batch is compacted, what has stopped costs nothing more. False: max_steps, as the reference does.
            return_trace: keep the answers of every step (of a single trajectory).
            num_trajectories: K, of each puzzle; they differ by noise or random starts alone.
            noise_std: of the normal noise added to the latent `noise_on`, "z_H" or "z_L", before each step.
            random_start: begin with normal noise instead of the model's fixed initial latents.
            selection: which trajectory is taken, "halt", "vote", "residual" or "valid"; see trajectories_trm.select.
            verifier: for "valid", the rules of the puzzle, which the model does not know; see verifiers_trm.
            guidance: w of l_before + w (l_after - l_before), the logits before and after a step, which give the
                answer, also the one that is fed back; 1 is plain, more extrapolates.
            damping: share of the former latents that is kept in each step; 0 is plain.
            max_batch: trajectories that run together, all when None; bounds the memory, changes nothing but rounding.
            generator: of the noise; PyTorch's global one when None.
            engine: of engines_trm.ENGINES; "auto" is the fastest of the precision, the model's own or autocast's.

        Raises:
            ValueError: an argument that is not allowed, or input_ids that do not fit the model.
        """
        K, steps = num_trajectories, self.config.halt_max_steps if max_steps is None else max_steps
        walk = Walk(steps, halt, noise_std, noise_on, random_start, guidance, damping)
        walk.check(self.config.num_latents)
        _check_search(K, walk.is_random, selection, verifier, max_batch, return_trace)
        items = torch.arange(len(input_ids) * K)  # trajectory k of puzzle b is item b * K + k
        seeds = _draw_seeds(len(items), generator) if walk.is_random else None
        step_by, ends = choose_engine(self, engine), []
        trace: list[list[TraceStep]] | None = [[] for _ in range(steps)] if return_trace else None
        for part in items.split(max_batch or max(len(items), 1)):
            rows = (part // K).to(input_ids.device)
            puzzles = None if puzzle_ids is None else puzzle_ids[rows]
            noise = None if seeds is None else Noise(seeds[part], input_ids.device)
            ends.append(self._walk(step_by, input_ids[rows], puzzles, walk, noise, rows, trace))
        ended = Trajectories(*(torch.cat(fields).unflatten(0, (-1, K)) for fields in zip(*ends)))
        taken = ended.taken(select(ended, selection, input_ids, verifier))
        joined = None if trace is None else [_join(parts) for parts in trace if parts]
        return SolveOutput(taken.answers, taken.halt_logits.sigmoid(), taken.steps, joined, ended if K > 1 else None)

    def _walk(
        self,
        step_by: Callable[..., Any],
        input_ids: Tensor,
        puzzle_ids: Tensor | None,
        walk: Walk,
        noise: Noise | None,
        names: Tensor,
        trace: list[list[TraceStep]] | None,
    ) -> Trajectories:
        """A batch of n trajectories to their ends: fields [n, L] and [n].

        Args:
            step_by: the model, or what an engine made of it. input_ids: [n, L]. trace: a list for each step.
            names: [n], what the trace calls the trajectories.
        """
        n, device = len(input_ids), input_ids.device
        ended = Trajectories(
            torch.empty_like(input_ids, dtype=torch.long),
            torch.empty(n, device=device),
            torch.empty(n, device=device),
            torch.zeros(n, dtype=torch.long, device=device),
        )
        rows, state, logits = torch.arange(n, device=device), self.initial_state(n), None
        if noise is not None and walk.random_start:
            state = noise.start(state, self.config.initial_state_std)
        for step in range(1, walk.max_steps + 1):
            if noise is not None and walk.noise_std:
                state = noise.add(state, rows, walk.noise_on, walk.noise_std)
            out = step_by(input_ids, puzzle_ids=puzzle_ids, state=state)
            logits = out.logits if logits is None or walk.guidance == 1 else logits.lerp(out.logits, walk.guidance)
            ended.answers[rows] = answers_from_logits(logits, input_ids, self.config.blank_token_id)
            ended.halt_logits[rows] = out.halt_logits.to(ended.halt_logits.dtype)
            ended.residual[rows] = _residual(state.z_H, out.state.z_H)
            ended.steps[rows] = step
            if trace is not None:
                halt_logits = out.halt_logits.float()
                taken = names[rows], ended.answers[rows], halt_logits.sigmoid(), ended.residual[rows], halt_logits
                trace[step - 1].append(TraceStep(*taken))
            state, logits = out.state.damped(state, walk.damping), out.logits
            if state.answers is not None:
                state = state._replace(answers=ended.answers[rows])  # guided ones, where the logits are
            if walk.halt_logit is not None:
                running = out.halt_logits.float() <= walk.halt_logit  # bfloat16 would round the bound
                if not running.any():
                    break
                rows, input_ids, state, logits = (
                    rows[running],
                    input_ids[running],
                    state.select(running),
                    logits[running],
                )
                puzzle_ids = None if puzzle_ids is None else puzzle_ids[running]
        return ended


def _residual(before_nSD: Tensor, after_nSD: Tensor) -> Tensor:
    before, after = before_nSD.float().flatten(1), after_nSD.float().flatten(1)
    return (after - before).norm(dim=1) / after.norm(dim=1)


def _join(parts: list[TraceStep]) -> TraceStep:
    """One step of all batches."""
    return TraceStep(*(torch.cat(fields) for fields in zip(*parts)))


def _draw_seeds(count: int, generator: torch.Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**32, (count,), generator=generator, device=device).cpu()


def _check_search(
    K: int, is_random: bool, selection: str, verifier: Verifier | None, max_batch: int | None, return_trace: bool
) -> None:
    if K < 1:
        raise ValueError(f"num_trajectories={K} must be at least 1")
    if K > 1 and not is_random:
        raise ValueError(f"num_trajectories={K} would all be the same one; give noise_std > 0 or random_start=True")
    if selection not in SELECTIONS:
        raise ValueError(f"selection={selection!r} is unknown; allowed: {', '.join(SELECTIONS)}")
    if (selection == "valid") != (verifier is not None):
        raise ValueError(f"selection={selection!r} {'needs' if verifier is None else 'takes no'} verifier")
    if max_batch is not None and max_batch < 1:
        raise ValueError(f"max_batch={max_batch} must be at least 1")
    if return_trace and K > 1:
        raise ValueError(f"return_trace is for a single trajectory, not for num_trajectories={K}")
