"""The card protocol: how a checkpoint solves with more steps, with halting, with views and with noise.

Four passes over puzzles, each resumable (`evaluation.chunks`), each of a size of its own:

    steps          every puzzle takes all steps: accuracy after each of them, exact
    halting        a puzzle stops at the first step whose halt probability is above the threshold: what solving costs
    views          the same for K relabelled views of a puzzle, whose answers vote
    trajectories   the same for K noisy trajectories of a puzzle, of which the halt logit or the votes choose one

Sources: steps and halting, views: arXiv 2510.04871; noisy trajectories: arXiv 2605.19943.

Shapes: N puzzles, K views or trajectories of each, S supervision steps, L cells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..evaluation.chunks import Outcome, run_in_chunks
from ..evaluation.engine import computed_with
from ..evaluation.puzzles import Puzzles, check_puzzles_fit, choose_subset, tensors_of
from ..evaluation.sweep import ANY, check_numbers_of_views, each_view, is_right
from ..modeling_trm import TRMForGridReasoning
from ..reasoning_config_trm import ReasoningConfig
from ..trajectories_trm import Trajectories, select
from ..utils.machine import describe_machine
from ..views_trm import View
from ..voting.collect import model_sha256

PASSES = ("steps", "halting", "views", "trajectories")


@dataclass(frozen=True)
class Protocol:
    """What is measured. Raises ValueError naming the field, its value and what is allowed.

    Attributes:
        puzzles: {pass: number of puzzles}; a pass with 0 is left out. steps: the largest number of each walk, but of
            the pass "halting", which may take halt_steps. halt: threshold of all passes but "steps".
        views, trajectories: numbers K that are reported, from one run of the largest.
        noise_std, noise_on: what makes trajectories differ. seed: of puzzles chosen, views, noise.
    """

    puzzles: dict[str, int]
    steps: int = 16
    halt: float = 0.95
    halt_steps: int = 64
    views: tuple[int, ...] = (8, 32)
    trajectories: tuple[int, ...] = (8,)
    noise_std: float = 0.1
    noise_on: str = "z_H"
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.puzzles if name not in PASSES]
        if unknown:
            raise ValueError(f"puzzles names the pass {unknown[0]!r}; allowed: {', '.join(PASSES)}")
        if min(self.puzzles.values()) < 0 or not (self.puzzles.get("steps") or self.puzzles.get("halting")):
            raise ValueError(f"puzzles={self.puzzles} is not allowed; allowed: 0 or more, steps or halting above 0")
        for name in ("steps", "halt_steps"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name}={vars(self)[name]} is not allowed; allowed: 1 or more")
        for name in ("views", "trajectories"):
            numbers = vars(self)[name]
            if not numbers or min(numbers) < 2 or len(set(numbers)) < len(numbers):
                raise ValueError(f"{name}={list(numbers)} is not allowed; allowed: distinct numbers from 2")
        if not 0 < self.halt < 1:
            raise ValueError(f"halt={self.halt} is not allowed; allowed: a probability between 0 and 1")
        if not self.noise_std > 0:
            raise ValueError(f"noise_std={self.noise_std} is not allowed; allowed: above 0")

    def settings(self, name: str) -> dict[str, Any]:
        """What decides the outcome of a pass, JSON-ready."""
        if name == "steps":
            return {"steps": self.steps}
        if name == "halting":
            return {"halt": self.halt, "steps": self.halt_steps}
        stop = {"halt": self.halt, "steps": self.steps, "seed": self.seed}
        if name == "views":
            return {**stop, "views": list(self.views)}
        return {**stop, "trajectories": list(self.trajectories), "noise_std": self.noise_std, "noise_on": self.noise_on}


@dataclass(frozen=True)
class Measured:
    """The outcome of a pass: arrays of N puzzles (see `_single` and `_several`), and what it was run on and with."""

    name: str
    settings: dict[str, Any]
    puzzles: Any
    outcome: Outcome
    engine: str
    precision: str
    hardware: str


def measure(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    protocol: Protocol,
    folder: str | Path,
    *,
    batch_size: int = 32,
    engine: str = "auto",
    progress: bool = True,
) -> list[Measured]:
    """Run the passes that the protocol asks for and the folder does not hold yet.

    Args:
        folder: for the outcome of each pass, FOLDER/PASS. batch_size: walks that run together; one chunk on disk.
        engine: of engines_trm.ENGINES.

    Raises:
        ValueError: the model does not fit the puzzles, the task has no views or not so many, or the folder holds
            another evaluation, or one that was begun on another machine.
    """
    check_puzzles_fit(model, puzzles)
    wanted = [name for name in PASSES if protocol.puzzles.get(name)]
    if "views" in wanted:
        check_numbers_of_views(puzzles, protocol.views)
    facts = computed_with(model, engine) | {"hardware": describe_machine(model.device)}
    weights, measured = model_sha256(model), []
    for number, name in enumerate(wanted, start=1):
        chosen = choose_subset(puzzles, protocol.puzzles[name], protocol.seed)
        settings = protocol.settings(name)
        manifest = {**settings, **facts, "pass": name, "weights": weights, "data": chosen.fingerprint}
        outcome = run_in_chunks(
            _way_to_run(model, chosen, protocol, name, engine),
            len(chosen),
            Path(folder) / name,
            manifest,
            chunk_size=max(1, batch_size // _walks_of(protocol, name)),
            title=f"pass {number} of {len(wanted)}, {name}",
            progress=progress,
        )
        measured.append(Measured(name, settings, chosen, outcome, **facts))
    return measured


def _walks_of(protocol: Protocol, name: str) -> int:
    return {"views": max(protocol.views), "trajectories": max(protocol.trajectories)}.get(name, 1)


def _way_to_run(
    model: TRMForGridReasoning, puzzles: Puzzles, protocol: Protocol, name: str, engine: str
) -> Callable[[np.ndarray], Outcome]:
    def run(numbers: np.ndarray) -> Outcome:
        batch = tensors_of(puzzles.select(numbers), model.device)
        ways: dict[str, Any] = {"engine": engine, "max_steps": protocol.settings(name)["steps"]}
        if name == "steps":
            return _single(model, *batch, **ways)
        ways["halt"] = protocol.halt
        if name == "halting":
            return _single(model, *batch, **ways)
        if name == "trajectories":
            ways |= {"noise_std": protocol.noise_std, "noise_on": protocol.noise_on}
            # A seed of its own for each chunk: the outcome does not depend on where a run was resumed.
            ways["generator"] = torch.Generator().manual_seed((protocol.seed << 32) + int(numbers[0]))
            return _several(model, *batch, protocol.trajectories, ("halt", "vote"), **ways)
        views = partial(each_view, puzzles=puzzles, numbers=numbers, seed=protocol.seed)
        return _several(model, *batch, protocol.views, ("vote",), views, **ways)

    return run


def _single(
    model: TRMForGridReasoning, input_ids: Tensor, puzzle_ids: Tensor | None, labels: Tensor, **ways: Any
) -> Outcome:
    """exact [N, S]: the answer given when S' = 1..S steps are allowed; halt_logits [N, S], both held from the halt on.

    answers uint8 [N, L], the last ones; cells_right, cells [N]: of these, among the blank cells; steps [N] taken.
    """
    solved = model.solve(input_ids, puzzle_ids, ReasoningConfig(), return_trace=True, **ways)
    assert solved.trace is not None
    shape = (len(input_ids), ways["max_steps"])
    exact = torch.zeros(shape, dtype=torch.bool)
    halt_logits = torch.zeros(shape)
    for step, taken in enumerate(solved.trace):  # each holds until the next one replaces it
        exact[taken.rows, step:] = is_right(taken.answers[:, None], labels[taken.rows]).cpu()
        halt_logits[taken.rows, step:] = taken.halt_logits.cpu()[:, None]
    blank = model.config.blank_token_id
    counted = (labels != 0) if blank is None else (labels != 0) & (input_ids == blank)
    tallies = {
        "exact": exact,
        "halt_logits": halt_logits,
        "answers": solved.answers.to(torch.uint8),
        "cells_right": ((solved.answers == labels) & counted).sum(1),
        "cells": counted.sum(1),
        "steps": solved.steps,
    }
    return {name: tally.cpu().numpy() for name, tally in tallies.items()}


def _several(
    model: TRMForGridReasoning,
    input_ids: Tensor,
    puzzle_ids: Tensor | None,
    labels: Tensor,
    numbers_K: tuple[int, ...],
    selections: tuple[str, ...],
    each_of_views: Callable[..., Tensor] | None = None,
    **ways: Any,
) -> Outcome:
    """For each K, "vote K" bool [N]: the answer chosen among the first K is right; "steps K" [N]: of all K together.

    Args:
        each_of_views: applies or undoes the views of the walks; without, they differ by noise alone.
    """
    K = max(numbers_K)
    starts_NKL = input_ids[:, None].expand(-1, K, -1)
    if each_of_views is not None:
        starts_NKL = each_of_views(View.apply, ids_BKL=starts_NKL)
    repeated = None if puzzle_ids is None else puzzle_ids.repeat_interleave(K)
    solved = model.solve(starts_NKL.flatten(0, 1), repeated, ReasoningConfig(), return_trace=True, **ways)
    assert solved.trace is not None
    residual = torch.zeros(len(solved.steps), device=solved.steps.device)
    halt_logits = torch.zeros_like(residual)
    for taken in solved.trace:
        residual[taken.rows], halt_logits[taken.rows] = taken.residual, taken.halt_logits
    fields = (solved.answers, halt_logits, residual, solved.steps)
    ended = Trajectories(*(values.unflatten(0, (-1, K)) for values in fields))
    if each_of_views is not None:
        ended = ended._replace(answers=each_of_views(View.undo, ids_BKL=ended.answers))
    right_NK = is_right(ended.answers, labels)
    tallies: dict[str, Tensor] = {}
    for k in numbers_K:
        first = Trajectories(*(values[:, :k] for values in ended))
        tallies[f"{ANY} {k}"], tallies[f"steps {k}"] = right_NK[:, :k].any(1), first.steps.sum(1)
        for selection in selections:
            choice_N = select(first, selection, input_ids, None)
            tallies[f"{selection} {k}"] = right_NK.gather(1, choice_N[:, None])[:, 0]
    return {name: tally.cpu().numpy() for name, tally in tallies.items()}
