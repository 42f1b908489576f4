"""Several models on the same puzzles: what each costs, what each solves, and what only one of them solves.

The models take turns, batch by batch and each time in another order, so that a machine that slows down slows all of
them. A pair is compared puzzle by puzzle: McNemar's exact test looks at the puzzles that only one of two models solves
(Q. McNemar, 1947). Its p-values are not corrected for the number of pairs. With votes, pass@K, coverage and selection
as the paper on Mamba-2 hybrids reports them (arXiv 2602.12078); see `voting.comparison`.

Shapes: N puzzles, S supervision steps, L cells, M models.
"""

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..configuration_trm import PRESETS, TRMConfig
from ..evaluation.puzzles import PAD_TOKEN_ID, Puzzles, check_puzzles_fit
from ..evaluation.records import EvaluationRecords, summarise
from ..evaluation.runner import record_puzzles
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..utils.flops import flops
from ..voting.collect import collect_votes
from ..voting.comparison import compare_votes
from ..voting.records import VoteRecords, load_records
from ..voting.report import summarise_votes
from ..voting.views import PuzzleViews

BATCH = 64
OF_RECORDS = (
    "count", "exact_accuracy", "exact_accuracy_ci95", "cell_accuracy", "by_step", "halt", "mean_halting_step",
    "never_halted", "steps", "non_finite",
)  # fmt: skip
OF_VOTES = ("counts", "pass_at_k", "coverage", "means", "split")
OF_TWO_VOTES = ("pass_at_k", "coverage", "means", "solved_by", "top1_agreement")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one model made of the puzzles, and the seconds it took."""

    records: EvaluationRecords
    seconds: float

    @property
    def solved_N(self) -> np.ndarray:
        return self.records.exact[:, -1]


def compare_models(
    models: Mapping[str, TRMForGridReasoning],
    puzzles: Any,
    *,
    max_steps: int | None = None,
    views: int = 1,
    seed: int = 0,
    batch_size: int = BATCH,
    progress: bool = True,
) -> dict[str, Any]:
    """All figures of all models, of all pairs, and of all models together.

    Args:
        models: {name: model}, two or more, all on one device.
        puzzles: a PuzzleSet.
        max_steps: supervision steps of a puzzle; each model's own `halt_max_steps` when None.
        views: how many views of a puzzle that vote, itself included; 1 leaves votes out.
        seed: of the views and of the bootstrap.

    Returns:
        JSON-ready: {task, fingerprint, count, models: {name: figures}, agreement: [M, M], pairs: [{names, agreement,
        both, only: [of the first, of the second], neither, difference, p}], solved_only_by: {name: puzzles},
        solved_by_all, solved_by_none}. Figures are those of `runner` and {preset, operators, hidden_size, num_latents,
        H_cycles, L_cycles, parameters: {core, table}, flops_step, flops_puzzle, flops_solved_puzzle (stopped at the
        halt; of the puzzles right there), first_right_step: {count, mean}, seconds_per_puzzle}. Votes: `votes` of
        figures and pairs.

    Raises:
        ValueError: fewer than two models, or one that does not fit the puzzles, by its name.
    """
    if len(models) < 2:
        raise ValueError(f"there is nothing to compare: got {len(models)} model, needs two or more")
    for name, model in models.items():
        with _named(name):
            check_puzzles_fit(model, puzzles)
    outcomes = run_side_by_side(models, puzzles, max_steps=max_steps, batch_size=batch_size, progress=progress)
    solved_MN = np.stack([outcome.solved_N for outcome in outcomes.values()])
    pairs = [compare_pair(names, outcomes, puzzles.labels) for names in combinations(models, 2)]
    comparison = {
        "task": puzzles.task,
        "fingerprint": puzzles.fingerprint,
        "count": len(puzzles),
        "models": {name: figures_of(model, outcomes[name]) for name, model in models.items()},
        "agreement": _agreement_matrix(list(models), pairs),
        "pairs": pairs,
        "solved_only_by": solved_only_by(dict(zip(models, solved_MN, strict=True))),
        "solved_by_all": int(solved_MN.all(axis=0).sum()),
        "solved_by_none": int((~solved_MN.any(axis=0)).sum()),
    }
    if views > 1:
        _add_votes(comparison, models, PuzzleViews(puzzles, views, seed), max_steps, seed, batch_size, progress)
    return comparison


def check_grids(name: str, processor: GridProcessor, puzzles: Puzzles) -> None:
    """Raise a ValueError when the processor of a checkpoint is not the puzzles', naming the checkpoint and both."""
    for field in ("task", "grid_shape", "alphabet"):
        of_model, of_data = (vars(side)[field] for side in (processor, puzzles.processor))
        if of_model != of_data:
            raise ValueError(f"checkpoint {name!r} was made for {field} {of_model!r}, the puzzles have {of_data!r}")


def run_side_by_side(
    models: Mapping[str, TRMForGridReasoning],
    puzzles: Puzzles,
    *,
    max_steps: int | None = None,
    batch_size: int = BATCH,
    progress: bool = True,
) -> dict[str, Outcome]:
    """Every puzzle through every model, for all steps; the models take turns."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    names = list(models)
    parts: dict[str, list[Outcome]] = {name: [] for name in names}
    batches = np.array_split(np.arange(len(puzzles)), -(-len(puzzles) // batch_size))
    for model in models.values():  # its first pass is slow, whatever the model: not to be counted
        _run_batch(model, puzzles.select(batches[0]), 1)
    with tqdm(total=len(puzzles), desc="comparing", unit="puzzle", disable=not progress) as bar:
        for number, rows in enumerate(batches):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                parts[name].append(_run_batch(models[name], puzzles.select(rows), max_steps))
            bar.update(len(rows))
    return {name: _joined(parts[name]) for name in names}


def figures_of(model: TRMForGridReasoning, outcome: Outcome) -> dict[str, Any]:
    """See `compare_models`."""
    config, records = model.config, outcome.records
    metrics = summarise(records)
    spent_N = np.where(records.first_halt == 0, records.max_steps, records.first_halt)
    right_at_halt_N = records.exact[np.arange(len(records)), spent_N - 1]
    ever_N = records.exact.any(axis=1)
    first_right = records.exact[ever_N].argmax(axis=1) + 1
    table = 0 if model.model.puzzle_emb is None else model.model.puzzle_emb.weight.numel()
    step = flops(config)
    return {
        "preset": preset_of(config),
        "operators": list(config.block_operators),
        **{name: vars(config)[name] for name in ("hidden_size", "num_latents", "H_cycles", "L_cycles")},
        "parameters": {"core": sum(weight.numel() for weight in model.parameters()) - table, "table": table},
        "flops_step": step,
        "flops_puzzle": step * records.max_steps,
        "flops_solved_puzzle": step * float(spent_N[right_at_halt_N].mean()) if right_at_halt_N.any() else None,
        **{name: metrics[name] for name in OF_RECORDS},
        "first_right_step": {
            "count": int(ever_N.sum()),
            "mean": float(first_right.mean()) if ever_N.any() else None,
        },
        "seconds_per_puzzle": outcome.seconds / len(records),
    }


def preset_of(config: TRMConfig) -> str | None:
    """The name of the preset with these operators and this feedback; None for a pattern of the user's own."""
    own = (config.block_operators, config.answer_feedback)
    kinds = {
        name: (fields["block_operators"], fields.get("answer_feedback", False)) for name, fields in PRESETS.items()
    }
    return next((name for name, kind in kinds.items() if kind == own), None)


def compare_pair(names: Sequence[str], outcomes: Mapping[str, Outcome], labels_NL: np.ndarray) -> dict[str, Any]:
    """How often two models answer alike, what both, one or neither solve, and whether that may be chance."""
    first, second = (outcomes[name] for name in names)
    alike_N = ((first.records.answers == second.records.answers) | (labels_NL == PAD_TOKEN_ID)).all(axis=1)
    a_N, b_N = first.solved_N, second.solved_N
    only = [int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())]
    return {
        "names": list(names),
        "agreement": float(alike_N.mean()),
        "both": int((a_N & b_N).sum()),
        "only": only,
        "neither": int((~a_N & ~b_N).sum()),
        "difference": (only[0] - only[1]) / len(a_N),
        "p": mcnemar_exact(*only),
    }


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value: were a puzzle that one alone solves as likely the other's, so uneven a split or more."""
    count = only_first + only_second
    tail = ways = 1  # C(count, 0), and from it the next ones: not math.comb for each, endless for 100,000 puzzles
    for fewer in range(min(only_first, only_second)):
        ways = ways * (count - fewer) // (fewer + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**count)  # whole numbers up to the division: exact however many there are


def solved_only_by(solved: Mapping[str, np.ndarray]) -> dict[str, int]:
    """For each model the puzzles that it solves and no other does; of bool [N] each."""
    solvers_N = np.sum([*solved.values()], axis=0)
    return {name: int((solved_N & (solvers_N == 1)).sum()) for name, solved_N in solved.items()}


def _run_batch(model: TRMForGridReasoning, batch: Puzzles, max_steps: int | None) -> Outcome:
    started = time.perf_counter()
    # The model itself: packed for every batch its time would hold the packing.
    records = record_puzzles(model, batch, max_steps=max_steps, batch_size=len(batch), progress=False, engine="eager")
    return Outcome(records, time.perf_counter() - started)


def _joined(parts: Sequence[Outcome]) -> Outcome:
    return Outcome(
        EvaluationRecords.concatenate([part.records for part in parts]),
        math.fsum(part.seconds for part in parts),
    )


def _agreement_matrix(names: list[str], pairs: Sequence[dict[str, Any]]) -> list[list[float]]:
    matrix_MM = np.eye(len(names))
    for pair in pairs:
        a, b = (names.index(name) for name in pair["names"])
        matrix_MM[a, b] = matrix_MM[b, a] = pair["agreement"]
    return matrix_MM.tolist()


def _add_votes(
    comparison: dict[str, Any],
    models: Mapping[str, TRMForGridReasoning],
    views: PuzzleViews,
    max_steps: int | None,
    seed: int,
    batch_size: int,
    progress: bool,
) -> None:
    num_views = int(views.views_of_input.max())
    votes: dict[str, VoteRecords] = {}
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            collect_votes(model, views, folder, max_steps=max_steps, batch_size=batch_size, progress=progress)
            votes[name] = load_records(folder)
        report = summarise_votes(votes[name], seed=seed)
        comparison["models"][name]["votes"] = {"views": num_views} | {field: report[field] for field in OF_VOTES}
    for pair in comparison["pairs"]:
        a, b = pair["names"]
        both = compare_votes(votes[a], votes[b], (a, b), seed=seed)
        pair["votes"] = {field: both[field] for field in OF_TWO_VOTES}


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
