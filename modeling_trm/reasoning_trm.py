"""Inference: supervision steps on trained weights until the answer stands, on one trajectory or many.

Source: arXiv 2510.04871, section 4; several trajectories: see trajectories_trm; guidance: arXiv 2511.16886 (DIS).

Shapes: B puzzles, K trajectories of each, n of them still running in a batch, L cells, S positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .certificates_trm import attempt_until_certain, is_certain
from .engines_trm import choose_engine
from .reasoning_config_trm import RULES, ReasoningConfig
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

    trajectories: how each of several ended, from which the answers are taken, and with a certificate a single one too;
        else None. After 0 steps: not run, because one before it was certain.
    certain: bool [B], with a certificate: elsewhere the answer is only the best guess; None without one.
    attempts: int64 [B], with a certificate: trajectories run.
    """

    answers: Tensor
    halt_probability: Tensor
    steps: Tensor
    trace: list[TraceStep] | None
    trajectories: Trajectories | None = None
    certain: Tensor | None = None
    attempts: Tensor | None = None


def answers_from_logits(logits_BLV: Tensor, input_ids: Tensor, blank_token_id: int | None) -> Tensor:
    """The arg max of each cell; with a `blank_token_id`, only where the input is blank, else the given token."""
    answers = logits_BLV.argmax(-1)
    return answers if blank_token_id is None else torch.where(input_ids == blank_token_id, answers, input_ids)


def as_ids(name: str, ids: Any, optional: bool = False) -> Any:
    """Whole numbers of any type as int64. Raises TypeError, saying what makes them, for anything else."""
    if ids is None and optional:
        return None
    if not isinstance(ids, Tensor):
        raise TypeError(
            f"{name} is of type {type(ids).__name__}, not a tensor of token ids [B, L] (puzzle_ids: [B]); the "
            f'processor makes them, processor(puzzle)["input_ids"], and pipeline("grid-reasoning", model=...) takes '
            f"puzzles as text"
        )
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{name} holds {ids.dtype}; allowed: whole numbers, the ids of tokens or puzzles")
    return ids.long()


class ReasoningMixin:
    """Gives a grid-reasoning model `solve`, as GenerationMixin gives a language model `generate`."""

    config: Any
    reasoning_config: ReasoningConfig
    initial_state: Callable[..., RecursionState]
    checked: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
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
            verifier: for selection="valid" and certificate="rules": the rules of the puzzle, which the model does not
                know; see verifiers_trm.
            generator: of the noise; PyTorch's global one when None.
            return_trace: keep the answers of every step (of a single trajectory).
            options: fields of ReasoningConfig, in the place of reasoning_config's.

        Raises:
            TypeError: an unknown option, or text instead of token ids.
            ValueError: one that is not allowed, or input_ids or puzzle_ids that do not fit the model or each other.
        """
        input_ids, puzzle_ids = self.checked(input_ids, puzzle_ids)
        config = self._reasoning(reasoning_config, options)
        _check_together(config, verifier, return_trace, self.config.num_latents)
        B, K = len(input_ids), config.num_trajectories
        steps = config.max_steps or self.config.halt_max_steps
        trace: list[list[TraceStep]] | None = [[] for _ in range(steps)] if return_trace else None
        run = self._runner(input_ids, puzzle_ids, config, steps, generator, trace)
        attempts = None
        if config.certificate is None:
            ended = Trajectories(*(field.unflatten(0, (-1, K)) for field in run(torch.arange(B * K))))
        else:
            judge = partial(is_certain, input_ids=input_ids, config=config, verifier=verifier)
            attempts = attempt_until_certain(lambda rows, k: run(rows * K + k, k > 0), judge, B, K)
            ended = attempts.ended
        choice = select(ended, config.selection, input_ids, verifier)
        if attempts is not None:
            choice = torch.where(attempts.certain, attempts.tried - 1, choice)
        taken = ended.taken(choice)
        return SolveOutput(
            taken.answers,
            taken.halt_logits.sigmoid(),
            taken.steps,
            None if trace is None else [_join(parts) for parts in trace if parts],
            ended if K > 1 or attempts is not None else None,
            None if attempts is None else attempts.certain,
            None if attempts is None else attempts.tried,
        )

    def _runner(
        self,
        input_ids: Tensor,
        puzzle_ids: Tensor | None,
        config: ReasoningConfig,
        steps: int,
        generator: torch.Generator | None,
        trace: list[list[TraceStep]] | None,
    ) -> Callable[..., Trajectories]:
        """(items int64 [n], noisy) -> how these ended, fields [n, L] and [n]; item b * K + k is trajectory k of b."""
        K = config.num_trajectories
        seeds = _draw_seeds(len(input_ids) * K, generator) if config.is_random else None
        step_by = choose_engine(self, config.engine)

        def run(items: Tensor, noisy: bool = True) -> Trajectories:
            ends = []
            for part in items.split(config.max_batch or max(len(items), 1)):
                rows = (part // K).to(input_ids.device)
                puzzles = None if puzzle_ids is None else puzzle_ids[rows]
                noise = Noise(seeds[part], input_ids.device) if noisy and seeds is not None else None
                ends.append(self._walk(step_by, input_ids[rows], puzzles, config, steps, noise, rows, trace))
            return Trajectories(*map(torch.cat, zip(*ends)))

        return run

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
                state = state.replaced(answers=ended.answers[rows])  # guided ones, where the logits are
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
    if (config.selection == "valid" or config.certificate == RULES) != (verifier is not None):
        certificate = "" if config.certificate is None else f" with certificate={config.certificate!r}"
        raise ValueError(
            f"selection={config.selection!r}{certificate} {'needs' if verifier is None else 'takes no'} verifier"
        )
    if return_trace and config.num_trajectories > 1:
        raise ValueError(f"return_trace is for a single trajectory, not for num_trajectories={config.num_trajectories}")
