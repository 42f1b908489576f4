"""Inference: supervision steps on trained weights until the answer stands, on one trajectory or many.

Source: arXiv 2510.04871, section 4; several trajectories: see trajectories_trm; guidance: arXiv 2511.16886 (DIS).

Shapes: B puzzles, K trajectories of each, n of them still running in a batch, L cells, S positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .engines_trm import choose_engine
from .reasoning_config_trm import ReasoningConfig
from .recursion_trm import RecursionState
from .trajectories_trm import Noise, Trajectories, Verifier, select


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


def answers_from_logits(logits_BLV: Tensor, input_ids: Tensor, blank_token_id: int | None) -> Tensor:
    """The arg max of each cell; with a `blank_token_id`, only where the input is blank, else the given token."""
    answers = logits_BLV.argmax(-1)
    return answers if blank_token_id is None else torch.where(input_ids == blank_token_id, answers, input_ids)


def require_token_ids(input_ids: Any) -> None:
    """Raise TypeError, saying what makes token ids, where there are none."""
    if not isinstance(input_ids, Tensor):
        raise TypeError(
            f"input_ids is of type {type(input_ids).__name__}, not a tensor of token ids [B, L]; the processor makes "
            f'them, processor(puzzle)["input_ids"], and pipeline("grid-reasoning", model=...) takes puzzles as text'
        )


class ReasoningMixin:
    """Gives a grid-reasoning model `solve`, as GenerationMixin gives a language model `generate`."""

    config: Any
    reasoning_config: ReasoningConfig
    initial_state: Callable[..., RecursionState]
    __call__: Callable[..., Any]

    @torch.no_grad()  # and not inference_mode: its tensors could not enter a later computation with gradients
    def solve(
        self,
        input_ids: Tensor,
        puzzle_ids: Tensor | None = None,
        reasoning_config: ReasoningConfig | None = None,
        *,
        verifier: Verifier | None = None,
        generator: torch.Generator | None = None,
        return_trace: bool = False,
        **options: Any,
    ) -> SolveOutput:
        """Run supervision steps on a batch of puzzles.

            model.solve(input_ids, max_steps=32, halt=0.95)

        Args:
            input_ids: [B, L] token ids. puzzle_ids: [B] rows of the puzzle table, None for the blank id.
            reasoning_config: how; None takes model.reasoning_config, the checkpoint's own.
            verifier: for selection="valid", the rules of the puzzle, which the model does not know; see verifiers_trm.
            generator: of the noise; PyTorch's global one when None.
            return_trace: keep the answers of every step (of a single trajectory).
            options: fields of ReasoningConfig, in the place of reasoning_config's.

        Raises:
            TypeError: an unknown option, or text instead of token ids.
            ValueError: one that is not allowed, or input_ids that do not fit the model.
        """
        require_token_ids(input_ids)
        config = self._reasoning(reasoning_config, options)
        _check_together(config, verifier, return_trace, self.config.num_latents)
        K, steps = config.num_trajectories, config.max_steps or self.config.halt_max_steps
        items = torch.arange(len(input_ids) * K)  # trajectory k of puzzle b is item b * K + k
        seeds = _draw_seeds(len(items), generator) if config.is_random else None
        step_by, ends = choose_engine(self, config.engine), []
        trace: list[list[TraceStep]] | None = [[] for _ in range(steps)] if return_trace else None
        for part in items.split(config.max_batch or max(len(items), 1)):
            rows = (part // K).to(input_ids.device)
            puzzles = None if puzzle_ids is None else puzzle_ids[rows]
            noise = None if seeds is None else Noise(seeds[part], input_ids.device)
            ends.append(self._walk(step_by, input_ids[rows], puzzles, config, steps, noise, rows, trace))
        ended = Trajectories(*(torch.cat(fields).unflatten(0, (-1, K)) for fields in zip(*ends)))
        taken = ended.taken(select(ended, config.selection, input_ids, verifier))
        joined = None if trace is None else [_join(parts) for parts in trace if parts]
        return SolveOutput(taken.answers, taken.halt_logits.sigmoid(), taken.steps, joined, ended if K > 1 else None)

    def _reasoning(self, given: ReasoningConfig | None, options: dict[str, Any]) -> ReasoningConfig:
        """What a call asks for, on top of the checkpoint's own defaults."""
        if given is not None and type(given).__name__ != ReasoningConfig.__name__:  # by name: it may be remote code
            raise TypeError(f"reasoning_config={given!r} is no ReasoningConfig; options have names, as max_steps=16")
        config = (self.reasoning_config.updated(views=1) if given is None else given).updated(**options)
        if config.views > 1:
            raise ValueError(
                f"views={config.views}: solve takes token ids, which are one view of each puzzle; the pipeline makes "
                f"views of a puzzle and counts their votes"
            )
        return config

    def _walk(
        self,
        step_by: Callable[..., Any],
        input_ids: Tensor,
        puzzle_ids: Tensor | None,
        config: ReasoningConfig,
        steps: int,
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
        rows, state, logits = torch.arange(n, device=device), self.initial_state(n, seq_len=input_ids.shape[1]), None
        if noise is not None and config.random_start:
            state = noise.start(state, self.config.initial_state_std)
        for step in range(1, steps + 1):
            if noise is not None and config.noise_std:
                state = noise.add(state, rows, config.noise_on, config.noise_std)
            out = step_by(input_ids, puzzle_ids=puzzle_ids, state=state, return_dict=True)
            logits = out.logits if logits is None or config.guidance == 1 else logits.lerp(out.logits, config.guidance)
            ended.answers[rows] = answers_from_logits(logits, input_ids, self.config.blank_token_id)
            ended.halt_logits[rows] = out.halt_logits.to(ended.halt_logits.dtype)
            ended.residual[rows] = _residual(state.z_H, out.state.z_H)
            ended.steps[rows] = step
            if trace is not None:
                halt_logits = out.halt_logits.float()
                taken = names[rows], ended.answers[rows], halt_logits.sigmoid(), ended.residual[rows], halt_logits
                trace[step - 1].append(TraceStep(*taken))
            state, logits = out.state.damped(state, config.damping), out.logits
            if state.answers is not None:
                state = state._replace(answers=ended.answers[rows])  # guided ones, where the logits are
            if config.halt_logit is not None:
                running = out.halt_logits.float() <= config.halt_logit  # bfloat16 would round the bound
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


def _check_together(config: ReasoningConfig, verifier: Verifier | None, return_trace: bool, num_latents: int) -> None:
    """What depends on the model and on what is no field."""
    if config.noise_on == "z_L" and num_latents == 1:
        raise ValueError("noise_on='z_L': the model has a single latent; allowed: 'z_H'")
    if (config.selection == "valid") != (verifier is not None):
        raise ValueError(f"selection={config.selection!r} {'needs' if verifier is None else 'takes no'} verifier")
    if return_trace and config.num_trajectories > 1:
        raise ValueError(f"return_trace is for a single trajectory, not for num_trajectories={config.num_trajectories}")
