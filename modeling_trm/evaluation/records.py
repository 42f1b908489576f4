"""What an evaluation keeps of every puzzle, and the figures computed from it.

Records are small (a few bytes a puzzle and step, one a cell) and independent of one another, so that an evaluation can
be sharded: `EvaluationRecords.concatenate` merges the shards of several processes, `summarise` turns records into
JSON-ready metrics. Nothing here runs a model.

Shapes: N puzzles, S supervision steps, L cells (TRM, arXiv 2510.04871, section 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..utils.intervals import wilson_interval

MAX_RATING_BUCKETS = 5
# Figure of what is right whatever the label says -> how people read it. Of mazes a shortest path is asked for.
VALIDITY = {"valid": "valid", "valid_and_shortest": "valid and shortest"}


@dataclass(frozen=True)
class EvaluationRecords:
    """Outcome of every puzzle, one row a puzzle.

    `exact[n, s]` is True when the answer after supervision step s+1 equals the label on every scored cell. Where
    puzzles really stopped early (`early_exit`) there is one column: the answer at the exit. `first_halt` is the first
    step with a positive halt logit, 0 for none within `max_steps`.
    """

    sources: np.ndarray  # str [N]
    ratings: np.ndarray  # int or float [N]
    exact: np.ndarray  # bool [N, S]
    halt_probability: np.ndarray  # float32 [N, S], of the answers that `exact` is about
    first_halt: np.ndarray  # int [N]
    answers: np.ndarray  # uint8 [N, L], token ids of the last answer
    cells_right: np.ndarray  # int [N], of the last answer
    cells: np.ndarray  # int [N], those counted: the blank ones
    non_finite: np.ndarray  # bool [N]
    valid: np.ndarray | None  # bool [N], the last answer obeys the rules
    max_steps: int
    early_exit: bool | float  # see `evaluate_puzzles`, halt

    def __len__(self) -> int:
        return len(self.sources)

    @staticmethod
    def concatenate(parts: Sequence["EvaluationRecords"]) -> "EvaluationRecords":
        """Merge the shards of one evaluation (same model, same number of steps).

        Raises:
            ValueError: when there is nothing to merge or the shards were not run alike.
        """
        if not parts:
            raise ValueError("no evaluation records to concatenate: got an empty list")
        runs = {(part.max_steps, part.early_exit, part.valid is None) for part in parts}
        if len(runs) > 1:
            raise ValueError(f"shards differ in (max_steps, early_exit, without validity): {sorted(runs)}")

        names = "sources ratings exact halt_probability first_halt answers cells_right cells non_finite".split()
        if parts[0].valid is not None:
            names.append("valid")
        merged: dict[str, Any] = {name: np.concatenate([vars(part)[name] for part in parts]) for name in names}
        return replace(parts[0], **merged)


def summarise(records: EvaluationRecords, validity: str = "valid") -> dict[str, Any]:
    """JSON-ready metrics of the records (keys: see `modeling_trm.evaluation.runner`).

    Args:
        validity: of VALIDITY, the figure that `records.valid` is counted under.

    Raises:
        ValueError: when there are no records.
    """
    if len(records) == 0:
        raise ValueError("the evaluation set is empty: there is no puzzle to score")
    exact_N = records.exact[:, -1]
    low, high = wilson_interval(int(exact_N.sum()), len(exact_N))
    metrics: dict[str, Any] = {
        "count": len(records),
        "exact_accuracy": float(exact_N.mean()),
        "exact_accuracy_ci95": [low, high],
        "cell_accuracy": _ratio(records.cells_right.sum(), records.cells.sum()),
        "non_finite": int(records.non_finite.sum()),
        "steps": records.max_steps,
    }
    if records.valid is not None:
        low, high = wilson_interval(int(records.valid.sum()), len(records))
        metrics |= {validity: float(records.valid.mean()), f"{validity}_ci95": [low, high]}
    if not records.early_exit:
        metrics["by_step"] = records.exact.mean(axis=0).tolist()
    metrics["halting_histogram"] = _halting_histogram(records)
    metrics["never_halted"] = int((records.first_halt == 0).sum())
    metrics["mean_halting_step"] = float(_steps_spent(records).mean())
    metrics["halt"] = _halt_metrics(records)
    metrics["by_source"] = {
        str(source): _group(records, records.sources == source, validity) for source in np.unique(records.sources)
    }
    metrics["by_rating"] = _by_rating(records)
    return metrics


def _accuracy(flags: np.ndarray) -> dict[str, Any]:
    low, high = wilson_interval(int(flags.sum()), len(flags))
    return {"count": len(flags), "exact_accuracy": float(flags.mean()), "ci95": [low, high]}


def _group(records: EvaluationRecords, chosen_N: np.ndarray, validity: str) -> dict[str, Any]:
    exact_NS = records.exact[chosen_N]
    group = _accuracy(exact_NS[:, -1])
    if records.valid is not None:
        group[validity] = float(records.valid[chosen_N].mean())
    if not records.early_exit:
        group["by_step"] = exact_NS.mean(axis=0).tolist()
    return group


def _by_rating(records: EvaluationRecords) -> list[dict[str, Any]]:
    """At most five groups of rising difficulty, as equal in size as ties in the rating allow."""
    ratings_N = records.ratings
    ordered = np.sort(ratings_N)
    cuts = [ordered[len(ordered) * i // MAX_RATING_BUCKETS] for i in range(1, MAX_RATING_BUCKETS)]
    bucket_N = np.searchsorted(np.unique(cuts), ratings_N, side="right")
    groups = []
    for bucket in np.unique(bucket_N):
        chosen_N = bucket_N == bucket
        limits = {"min": ratings_N[chosen_N].min().item(), "max": ratings_N[chosen_N].max().item()}
        groups.append(limits | _accuracy(records.exact[chosen_N, -1]))
    return groups


def _halting_histogram(records: EvaluationRecords) -> list[int]:
    return np.bincount(records.first_halt, minlength=records.max_steps + 1)[1:].tolist()


def _steps_spent(records: EvaluationRecords) -> np.ndarray:
    """Steps a puzzle takes when it stops where the model halts: all of them if it never does."""
    return np.where(records.first_halt == 0, records.max_steps, records.first_halt)


def _halt_metrics(records: EvaluationRecords) -> dict[str, Any]:
    """Accuracy of the answer given where the model halts (the last answer where it does not)."""
    column_N = np.zeros(len(records), dtype=np.int64) if records.early_exit else _steps_spent(records) - 1
    exact_N = records.exact[np.arange(len(records)), column_N]
    halted_N = records.first_halt > 0
    return _accuracy(exact_N) | {
        "halted": float(halted_N.mean()),
        "exact_when_halted": _ratio(exact_N[halted_N].sum(), halted_N.sum()),
    }


def _ratio(part: Any, whole: Any) -> float | None:
    """None where there is nothing to take a share of (no cell to fill in, no puzzle that halted)."""
    return float(part) / float(whole) if whole else None
