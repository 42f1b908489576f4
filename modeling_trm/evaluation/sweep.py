"""Accuracy against compute at test time: more supervision steps, more trajectories, and who chooses among them.

One run serves every combination: trajectories do not depend on what runs beside them, so the first k of K are those of
a run with k, and the answers after each step are in the trace.

Shapes: B puzzles of a batch, K trajectories of each, L cells, S step counts asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..modeling_trm import TRMForGridReasoning
from ..trajectories_trm import SELECTIONS, Trajectories, Verifier, select
from .intervals import wilson_interval
from .plots import COLOURS, GREY, TOTAL_COLOUR, new_figure, percent_axis, save_figure
from .runner import Puzzles, check_puzzles_fit

PLAIN, ANY = "plain", "any"  # one trajectory without noise; some trajectory is right, whoever would choose it
BATCH = 64
NAMES = {
    "halt": "largest halt logit",
    "vote": "most votes",
    "residual": "smallest residual",
    "valid": "the puzzle's rules (verifier)",
    ANY: "any trajectory right",
}


@dataclass(frozen=True)
class Sweep:
    """What is varied, and how trajectories differ; see `solve`.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    steps: Sequence[int]
    trajectories: Sequence[int]
    noise_std: float = 0.0
    noise_on: str = "z_H"
    random_start: bool = False
    seed: int = 0
    selections: Sequence[str] = field(default=("halt", "vote", "residual"))

    def __post_init__(self) -> None:
        for name in ("steps", "trajectories"):
            values = self.__dict__[name]
            if not values or min(values) < 1 or len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)} is not allowed; allowed: distinct numbers from 1")
        unknown = [name for name in self.selections if name not in SELECTIONS]
        if unknown:
            raise ValueError(f"selections holds {unknown[0]!r}; allowed: {', '.join(SELECTIONS)}")


def run_sweep(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    sweep: Sweep,
    *,
    verifier: Verifier | None = None,
    batch_size: int = BATCH,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Rows of steps, trajectories, selection, count, solved, exact_accuracy, ci95 and steps_a_puzzle, the compute.

    Args:
        verifier: for the selection "valid". batch_size: trajectories that run together.

    Raises:
        ValueError: the model does not fit the puzzles, or the two sides of `sweep` and `verifier` do not fit.
    """
    check_puzzles_fit(model, puzzles)
    if ("valid" in sweep.selections) != (verifier is not None):
        raise ValueError("the selection 'valid' and a verifier belong together")
    solved: dict[tuple[int, int, str], int] = {}
    generator = torch.Generator().manual_seed(sweep.seed)  # of all batches: their size changes no draw
    with tqdm(total=len(puzzles), desc="sweeping", unit="puzzle", disable=not progress) as bar:
        for start in range(0, len(puzzles), batch_size):
            part = range(start, min(start + batch_size, len(puzzles)))
            for key, exact_B in _sweep_batch(model, puzzles, part, sweep, verifier, batch_size, generator):
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


def _sweep_batch(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    part: range,
    sweep: Sweep,
    verifier: Verifier | None,
    batch_size: int,
    generator: torch.Generator,
) -> Iterator[tuple[tuple[int, int, str], Tensor]]:
    """((steps, trajectories, selection), bool [B]: solved exactly), for plain solving too."""
    rows = slice(part.start, part.stop)
    input_ids, labels = (
        torch.tensor(ids[rows], device=model.device).long() for ids in (puzzles.inputs, puzzles.labels)
    )
    puzzle_ids = None if puzzles.puzzle_ids is None else torch.tensor(puzzles.puzzle_ids[rows], device=model.device)
    for steps, ended in _ends(model, input_ids, puzzle_ids, sweep, 1, batch_size, {}):
        yield (steps, 1, PLAIN), is_right(ended.answers, labels)[:, 0]
    noise = {
        "noise_std": sweep.noise_std,
        "noise_on": sweep.noise_on,
        "random_start": sweep.random_start,
        "generator": generator,
    }
    for steps, ended in _ends(model, input_ids, puzzle_ids, sweep, max(sweep.trajectories), batch_size, noise):
        right_BK = is_right(ended.answers, labels)
        for k in sweep.trajectories:
            first = Trajectories(*(values[:, :k] for values in ended))
            yield (steps, k, ANY), right_BK[:, :k].any(1)
            for selection in sweep.selections:
                choice_B = select(first, selection, input_ids, verifier if selection == "valid" else None)
                yield (steps, k, selection), right_BK.gather(1, choice_B[:, None])[:, 0]


def _ends(
    model: TRMForGridReasoning,
    input_ids: Tensor,
    puzzle_ids: Tensor | None,
    sweep: Sweep,
    K: int,
    batch_size: int,
    noise: dict[str, Any],
) -> Iterator[tuple[int, Trajectories]]:
    """(steps, how the K trajectories of each puzzle stand after so many) for each number of steps asked for."""
    repeated = None if puzzle_ids is None else puzzle_ids.repeat_interleave(K)
    trace = model.solve(
        input_ids.repeat_interleave(K, dim=0),
        repeated,
        max_steps=max(sweep.steps),
        return_trace=True,
        max_batch=batch_size,
        **noise,
    ).trace
    assert trace is not None
    for steps in sweep.steps:
        taken = trace[steps - 1]
        fields = (taken.answers, taken.halt_probability, taken.residual, torch.full_like(taken.rows, steps))
        yield steps, Trajectories(*(values.unflatten(0, (-1, K)) for values in fields))


def is_right(answers_BKL: Tensor, labels_BL: Tensor) -> Tensor:
    """bool [B, K]: every cell is that of the label; padding in the label is not scored."""
    return ((answers_BKL == labels_BL[:, None]) | (labels_BL[:, None] == 0)).all(-1)


def plot_sweep(rows: Sequence[dict[str, Any]], output: str | Path, title: str) -> Path:
    """Solved puzzles against steps times trajectories: plain solving in black, each selection in its colour."""
    figure = new_figure(width=7.6)
    axes = figure.subplots()
    deepest = max(row["steps"] for row in rows)
    for selection, colour in zip((*SELECTIONS, ANY), (*COLOURS[: len(SELECTIONS)], GREY)):
        _line(axes, [row for row in rows if row["selection"] == selection and row["steps"] == deepest],
              colour, f"{NAMES[selection]}, {deepest} steps each", dashed=selection in (ANY, "valid"))  # fmt: skip
    _line(axes, [row for row in rows if row["selection"] == PLAIN], TOTAL_COLOUR, "one plain trajectory, 1 to n steps")
    axes.set(title=title, xlabel="supervision steps a puzzle (steps x trajectories)", ylabel="puzzles solved")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    percent_axis(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return save_figure(figure, output)


def _line(axes: Any, rows: Sequence[dict[str, Any]], colour: str, label: str, dashed: bool = False) -> None:
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row["steps_a_puzzle"])
    x = [row["steps_a_puzzle"] for row in rows]
    low, high = zip(*(row["ci95"] for row in rows))
    axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    style = {"linestyle": "--" if dashed else "-", "marker": "o", "markersize": 4, "linewidth": 1.6}
    axes.plot(x, [row["exact_accuracy"] for row in rows], color=colour, label=label, **style)
