"""Accuracy against compute at test time: more supervision steps, more trajectories, and who chooses among them.

One run serves every combination: trajectories do not depend on what runs beside them, so the first k of K are those of
a run with k, and the answers after each step are in the trace. What makes trajectories differ, the breadth, is noise
(see ReasoningConfig) or relabelling: trajectory k then solves view k of the puzzle, the first the puzzle as it is, and
the answers are undone before anybody compares them.

Shapes: B puzzles of a batch, K trajectories of each, N = B * K, L cells.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..modeling_trm import TRMForGridReasoning
from ..reasoning_config_trm import SELECTIONS, ReasoningConfig
from ..trajectories_trm import Trajectories, Verifier, select
from ..utils.intervals import wilson_interval
from ..views_trm import View, check_views, draw_view, most_views
from .puzzles import Puzzles, check_puzzles_fit, tensors_of
from .stepwise import trajectories_by_step

PLAIN, ANY = "plain", "any"  # one trajectory of the puzzle as it is; some trajectory is right, whoever would choose it
BATCH = 64


@dataclass(frozen=True)
class Sweep:
    """What is varied, and how trajectories differ: by noise and random starts (see ReasoningConfig), or as views.

    Args:
        trajectories: numbers of noisy trajectories of a puzzle. views: numbers of views, in the place of trajectories.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    steps: Sequence[int]
    trajectories: Sequence[int] = ()
    views: Sequence[int] = ()
    noise_std: float = 0.0
    noise_on: str = "z_H"
    random_start: bool = False
    seed: int = 0
    selections: Sequence[str] = field(default=("halt", "vote", "residual"))

    def __post_init__(self) -> None:
        if self.views and (self.trajectories or self.noise_std or self.random_start):
            raise ValueError("views excludes trajectories, noise_std and random_start: one kind of breadth a sweep")
        for name in ("steps", "views" if self.views else "trajectories"):
            values = self.__dict__[name]
            if not values or min(values) < 1 or len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)} is not allowed; allowed: distinct numbers from 1")
        unknown = [name for name in self.selections if name not in SELECTIONS]
        if unknown:
            raise ValueError(f"selections holds {unknown[0]!r}; allowed: {', '.join(SELECTIONS)}")

    @property
    def widths(self) -> Sequence[int]:
        """Numbers of trajectories, whatever makes them differ."""
        return self.views or self.trajectories

    @property
    def breadth(self) -> str:
        """What makes the trajectories differ, in words."""
        kinds = [f"noise {self.noise_std:g} on {self.noise_on}"] if self.noise_std else []
        kinds += ["random starts"] if self.random_start else []
        return "relabelled views" if self.views else " and ".join(kinds) or "nothing"


def run_sweep(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    sweep: Sweep,
    *,
    verifier: Verifier | None = None,
    batch_size: int = BATCH,
    progress: bool = True,
    engine: str = "auto",
) -> list[dict[str, Any]]:
    """Rows of steps, trajectories, selection, count, solved, exact_accuracy, ci95 and steps_a_puzzle, the compute.

    Args:
        verifier: for the selection "valid". batch_size: trajectories that run together.
        engine: of engines_trm.ENGINES.

    Raises:
        ValueError: the model does not fit the puzzles, the two sides of `sweep` and `verifier` do not fit, or the task
            has not so many views.
    """
    check_puzzles_fit(model, puzzles)
    if ("valid" in sweep.selections) != (verifier is not None):
        raise ValueError("the selection 'valid' and a verifier belong together")
    if sweep.views:
        check_numbers_of_views(puzzles, sweep.views)
    solved: dict[tuple[int, int, str], int] = {}
    plain = ReasoningConfig(max_steps=max(sweep.steps), max_batch=batch_size, engine=engine)
    generator = torch.Generator().manual_seed(sweep.seed)  # of all batches: their size changes no draw
    with tqdm(total=len(puzzles), desc="sweeping", unit="puzzle", disable=not progress) as bar:
        for start in range(0, len(puzzles), batch_size):
            part = range(start, min(start + batch_size, len(puzzles)))
            for key, exact_B in _sweep_batch(model, puzzles, part, sweep, plain, verifier, generator):
                solved[key] = solved.get(key, 0) + int(exact_B.sum())
            bar.update(len(part))
    return [
        {
            "steps": steps,
            "trajectories": k,
            "selection": selection,
            "count": len(puzzles),
            "solved": right,
            "exact_accuracy": right / len(puzzles),
            "ci95": wilson_interval(right, len(puzzles)),
            "steps_a_puzzle": steps * k,
        }
        for (steps, k, selection), right in sorted(solved.items(), key=lambda item: (item[0][2], item[0][:2]))
    ]


def check_numbers_of_views(puzzles: Puzzles, views: Sequence[int]) -> None:
    """Raise a ValueError where the puzzles have no views, or not so many."""
    height, width = puzzles.processor.grid_shape
    check_views(puzzles.task, max(views))
    most = most_views(puzzles.task, (height, width), max(views))
    if most < max(views):
        raise ValueError(f"views={list(views)} is not allowed; a {puzzles.task} of {height} x {width} has {most} views")


def _sweep_batch(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    part: range,
    sweep: Sweep,
    plain: ReasoningConfig,
    verifier: Verifier | None,
    generator: torch.Generator,
) -> Iterator[tuple[tuple[int, int, str], Tensor]]:
    """((steps, trajectories, selection), bool [B]: solved exactly), for plain solving too."""
    input_ids, puzzle_ids, labels = tensors_of(puzzles, model.device, slice(part.start, part.stop))
    alone = trajectories_by_step(model, input_ids, puzzle_ids, 1, plain)
    for steps in sweep.steps:
        yield (steps, 1, PLAIN), is_right(alone[steps - 1].answers, labels)[:, 0]
    K = max(sweep.widths)
    noisy = plain.updated(noise_std=sweep.noise_std, noise_on=sweep.noise_on, random_start=sweep.random_start)
    repeated = None if puzzle_ids is None else puzzle_ids.repeat_interleave(K)
    starts_NL = input_ids.repeat_interleave(K, dim=0)
    if sweep.views:
        starts_NL = each_view(View.apply, puzzles, part, sweep.seed, starts_NL.unflatten(0, (-1, K))).flatten(0, 1)
    stand = trajectories_by_step(model, starts_NL, repeated, K, noisy, generator=generator)
    for steps in sweep.steps:
        ended = stand[steps - 1]
        if sweep.views:
            ended = ended._replace(answers=each_view(View.undo, puzzles, part, sweep.seed, ended.answers))
        right_BK = is_right(ended.answers, labels)
        for k in sweep.widths:
            first = Trajectories(*(values[:, :k] for values in ended))
            yield (steps, k, ANY), right_BK[:, :k].any(1)
            for selection in sweep.selections:
                choice_B = select(first, selection, input_ids, verifier if selection == "valid" else None)
                yield (steps, k, selection), right_BK.gather(1, choice_B[:, None])[:, 0]


def each_view(
    change: Callable[[View, np.ndarray], np.ndarray],
    puzzles: Puzzles,
    numbers: Iterable[int],
    seed: int,
    ids_BKL: Tensor,
) -> Tensor:
    """`change` is apply or undo: of view k of puzzle numbers[b] for row (b, k)."""
    shape = puzzles.processor.grid_shape
    changed = [
        [change(draw_view(puzzles.task, shape, seed, int(number), view), ids_L) for view, ids_L in enumerate(ids_KL)]
        for number, ids_KL in zip(numbers, ids_BKL.cpu().numpy(), strict=True)
    ]
    return torch.from_numpy(np.array(changed)).to(ids_BKL.device)


def is_right(answers_BKL: Tensor, labels_BL: Tensor) -> Tensor:
    """bool [B, K]: every cell is that of the label; padding in the label is not scored."""
    return ((answers_BKL == labels_BL[:, None]) | (labels_BL[:, None] == 0)).all(-1)
