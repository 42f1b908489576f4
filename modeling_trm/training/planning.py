"""A run that is told how many minutes it has: the number of steps that they hold, from the measured time of a step.

A step costs what its depth costs, and a depth curriculum makes the last steps the dearest: so a few real steps are
measured at every stage, on the run's own model and rows, and undone. The number of supervision steps that a puzzle may
take does not matter: an optimiser step is one of them for every slot. Compiled shapes are compiled while measuring.

The minutes are counted as those of stop_after_minutes, from when the data are read. The plan is made once, at the start
and kept by a resumed run. A machine that becomes slower afterwards makes the run longer: MARGIN is what it may lose;
beyond that, stop_after_minutes ends it in time, but not annealed.
"""

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor
from typing import Any

import numpy as np
import torch

from ..evaluation.runner import evaluate_puzzles
from .arguments import Recipe
from .data import RunData
from .step import TrainingStep

WARM, MEASURED = 2, 10  # steps of a stage that are not timed (compilation, memory), and that are
MARGIN = 0.1  # share of the minutes that is left free: for checkpoints, the log, and a machine that is disturbed
CLOSING = 15.0  # seconds at the end beside the final evaluation: test puzzles read, plots and card written
LONG_RUN = 1_000_000  # steps, so that every stage of a curriculum has the few that are measured


@dataclass(frozen=True)
class Costs:
    """Seconds. stages: (share of the run until which it holds, a step), in order, the last share 1.

    started: spent before the first step. evaluation: a periodic one, after every eval_every steps and the last;
    final: that on the test puzzles, ARC's votes included.
    """

    stages: tuple[tuple[float, float], ...]
    started: float
    evaluation: float
    final: float
    eval_every: int

    def steps_of_stages(self, train_steps: int) -> list[int]:
        """How many of the run's steps each stage has."""
        ends = [0, *(floor(share * train_steps) for share, _ in self.stages)]
        return [end - start for start, end in pairwise(ends)]

    def seconds(self, train_steps: int) -> float:
        """Of a whole run of so many steps."""
        steps = sum(number * cost for number, (_, cost) in zip(self.steps_of_stages(train_steps), self.stages))
        evaluations = -(-train_steps // self.eval_every)
        return self.started + steps + evaluations * self.evaluation + self.final + CLOSING

    def most_steps(self, minutes: float) -> int:
        """The longest run that ends within the minutes, MARGIN of them to spare; 0 if none does."""
        available = 60 * minutes * (1 - MARGIN)
        upper = floor(available / min(cost for _, cost in self.stages)) + 1
        return max(0, bisect_right(range(upper + 1), available, key=self.seconds) - 1)

    def describe(self, train_steps: int, minutes: float) -> str:
        """One line for people."""
        stages = zip(self.steps_of_stages(train_steps), self.stages)
        steps = ", ".join(f"{number:,} at {1000 * cost:.1f} ms" for number, (_, cost) in stages)
        evaluations = f"{-(-train_steps // self.eval_every)} evaluations of {self.evaluation:.1f} s, "
        return (
            f"{train_steps:,} steps in {minutes:g} minutes: {steps}; {evaluations if self.evaluation else ''}"
            f"the final {'one' if self.evaluation else 'evaluation'} {self.final:.1f} s; {MARGIN:.0%} to spare"
        )


def measure_costs(step: TrainingStep, recipe: Recipe, data: RunData, started: float) -> Costs:
    """The costs of the recipe's run on this machine; every process calls it, and all of them get the same.

    Args:
        started: time.perf_counter() at the beginning of the minutes.
    """
    stages, first = _measure_stages(step)
    compiling = max(0.0, first - stages[0])  # of one shape; an evaluation has another
    puzzles = [_measure_evaluation(step, recipe, one) for one in data.of_each_size]
    seconds = [*stages, *puzzles, compiling + time.perf_counter() - started]
    agreed = step.accelerator.reduce(torch.tensor(seconds, device=step.accelerator.device), "mean").tolist()
    stages, puzzles, before = agreed[: len(stages)], agreed[len(stages) : -1], agreed[-1]
    processes = step.accelerator.num_processes
    return Costs(
        stages=tuple(zip((*step.depths, 1.0), stages)),
        started=before,
        evaluation=sum(puzzle * len(one.validation or ()) for puzzle, one in zip(puzzles, data.of_each_size)),
        final=sum(puzzle * _final_puzzles(one, processes) for puzzle, one in zip(puzzles, data.of_each_size)),
        eval_every=recipe.run.eval_every,
    )


def _measure_stages(step: TrainingStep) -> tuple[list[float], float]:
    """Seconds of a step at each stage of the depth, and of the very first one, which compiles.

    The steps are real, and afterwards the run is as before: weights, averages, optimisers and slots are put back.
    """
    before = {part: {name: value.clone() for name, value in named.items()} for part, named in step.state_dict().items()}
    train_steps, step.train_steps = step.train_steps, LONG_RUN
    numbers = [floor(share * LONG_RUN) + 1 for share in (0.0, *step.depths)]
    first = _seconds(_take, step, numbers[0], 1)
    stages = []
    for number in numbers:
        _take(step, number + 1, WARM)
        stages.append(_seconds(_take, step, number + 1 + WARM, MEASURED) / MEASURED)
    step.train_steps = train_steps
    step.load_state_dict(before)
    return stages, first


def _final_puzzles(data: RunData, processes: int) -> int:
    """How many a process solves in the end: the test puzzles; of an ARC run they share the views, which are more."""
    asked = data.recipe.data
    if data.arc is None:
        assert asked.test_puzzles is not None  # the recipe has checked it
        return asked.test_puzzles
    views = int(data.arc_views(asked.views, data.index).views_of_input.sum())
    return ceil(views / processes) + len(data.arc.test())


def _measure_evaluation(step: TrainingStep, recipe: Recipe, data: RunData) -> float:
    """Seconds of a puzzle. Not compiled, as the final evaluation: a further shape would change the run's own graphs."""
    run, puzzles = recipe.run, data.validation
    if puzzles is None:
        puzzles = data.load_test() if data.arc is None else data.arc.training()
    batch = puzzles.select(np.arange(min(len(puzzles), run.eval_batch_size)))

    def evaluate() -> None:
        with torch.compiler.set_stance("force_eager"):
            evaluate_puzzles(
                step.model,
                batch,
                max_steps=run.eval_max_steps,
                batch_size=run.eval_batch_size,
                progress=False,
                engine="eager",
            )

    evaluate()
    return _seconds(evaluate) / len(batch)


def _take(step: TrainingStep, number: int, count: int) -> None:
    """So many steps from this one on; returns when the device has done them."""
    for one in range(number, number + count):
        tallies = step(one)
    tallies["slots"].item()


def _seconds(action: Callable[..., None], *arguments: Any) -> float:
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start
