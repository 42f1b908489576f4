"""Voting pass@K: the answers of many augmented views of one test input are votes; the K best candidates are tried.

Source: the ARC evaluator of the tiny recursive model (TRM, arXiv 2510.04871; github.com/SamsungSAILMontreal/
TinyRecursiveModels, evaluators/arc.py). This is not the unbiased estimator of pass@k from n samples (Chen et al. 2021,
the `code_eval` metric): candidates are ranked by their votes and nothing is averaged over draws.

A grid is any canonical text, equal for equal grids ("012/340" for an ARC grid); "" and None are answers that are no
grid.
"""

from collections.abc import Hashable, Mapping, Sequence
from math import fsum, isfinite
from numbers import Real
from typing import Any, NamedTuple

K = (1, 2, 5, 10, 100, 1000)


class Candidate(NamedTuple):
    """One distinct grid among the votes for a test input."""

    grid: str
    votes: int
    score: float  # mean halt probability of its votes


def rank_candidates(predictions: Sequence[str | None], scores: Sequence[float] | None = None) -> list[Candidate]:
    """The distinct grids among the votes, best first: votes and then mean score descending, then text ascending.

    The order is total and does not depend on the order of the votes: the mean is taken with `math.fsum`.

    Args:
        predictions: the grid of each vote; "" or None for an answer that is no grid.
        scores: the halt probability of each vote; without them every score is 0.

    Raises:
        ValueError: when the lengths differ, a vote is no text or a score is no finite number.
    """
    _check_lists(predictions=predictions, scores=[] if scores is None else scores)
    if scores is None:
        scores = [0.0] * len(predictions)
    if len(scores) != len(predictions):
        raise ValueError(f"scores has {len(scores)} entries, predictions has {len(predictions)}; one score a vote")
    scores_of: dict[str, list[float]] = {}
    for grid, score in zip(predictions, scores):
        if not isinstance(score, Real) or not _is_finite(score):
            raise ValueError(f"scores holds {score!r}: a halt probability is a finite number")
        if not (grid is None or isinstance(grid, str)):
            raise ValueError(f"predictions holds {grid!r}: a vote is the text of a grid, or None for no grid")
        # Deviation: the reference counts the empty grid as a candidate, which then takes one of the K places.
        # Why: it can never be an answer, and in a submission it would waste an attempt. evaluators/arc.py, `_crop`.
        if grid:
            scores_of.setdefault(grid, []).append(score)
    candidates = [Candidate(grid, len(values), fsum(values) / len(values)) for grid, values in scores_of.items()]
    # Deviation: the reference leaves exact ties in the order in which the grids were first predicted.
    # Why: that order changes with batch size and number of processes; a text does not. evaluators/arc.py, `result`.
    return sorted(candidates, key=lambda candidate: (-candidate.votes, -candidate.score, candidate.grid))


def pass_at_k(
    predictions: Sequence[Sequence[str | None]],
    references: Sequence[str],
    task_ids: Sequence[str],
    scores: Sequence[Sequence[float]] | None = None,
    k: Sequence[int] | None = None,
) -> dict[str, float]:
    """Share of tasks whose answer is among the first K candidates: mean over a task's test inputs, then over tasks.

    A test input without any candidate counts as wrong.

    Args:
        predictions: for each test input the grids of its votes, of any number; "" or None for an answer that is none.
        references: for each test input the grid that is right.
        task_ids: for each test input the task it belongs to.
        scores: for each test input the halt probability of each vote; without them ties are broken by the text alone.
        k: numbers of candidates that may be tried; None: those of K up to the most votes that an input has.

    Returns:
        {"pass@1": share in 0..1, ...}, in the order of `k`.

    Raises:
        ValueError: when lengths differ, there is no input, a reference is empty or `k` is not a list of distinct
            whole numbers from 1.
    """
    _check_inputs(predictions, references, task_ids, scores)
    k = checked_k(k, max(map(len, predictions)))
    ranks_of: dict[str, list[float]] = {}
    for number, (votes, reference, task_id) in enumerate(zip(predictions, references, task_ids)):
        try:
            ranked = rank_candidates(votes, None if scores is None else scores[number])
        except ValueError as error:
            raise ValueError(f"test input {number} (task {task_id!r}): {error}") from error
        ranks_of.setdefault(task_id, []).append(_rank(ranked, reference))
    results = {}
    for places in k:
        shares = [sum(rank <= places for rank in ranks) / len(ranks) for ranks in ranks_of.values()]
        results[f"pass@{places}"] = fsum(shares) / len(shares)
    return results


def checked_k(k: Sequence[int] | None, votes: int) -> Sequence[int]:
    """`k`; where None, those of K that `votes` can fill: more places than votes are no other figure.

    Raises:
        ValueError: `k` is no list of distinct whole numbers from 1.
    """
    if k is None:
        return [places for places in K if places <= max(votes, 1)]
    allowed = "a list of distinct whole numbers from 1, such as [1, 2]"
    if not isinstance(k, (list, tuple)) or len(k) == 0:
        raise ValueError(f"k must be {allowed}, got {k!r}")
    for places in k:
        if not isinstance(places, int) or isinstance(places, bool) or places < 1:
            raise ValueError(f"k must be {allowed}; {places!r} is not allowed")
    if len(set(k)) < len(k):
        raise ValueError(f"k must be {allowed}; {list(k)} has a number twice")
    return k


def _is_finite(score: Real) -> bool:
    try:
        return isfinite(score)
    except OverflowError:  # a whole number that no float holds
        return False


def _rank(ranked: list[Candidate], reference: str) -> float:
    """Place of the reference among the candidates, from 1; infinity where it is not among them."""
    places = (place for place, candidate in enumerate(ranked, start=1) if candidate.grid == reference)
    return next(places, float("inf"))


def _check_lists(**given: Any) -> None:
    """Raise ValueError for what has no length or order, such as a number or a generator, or is one text."""
    for name, value in given.items():
        if isinstance(value, str | Mapping) or not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
            raise ValueError(f"{name} is {value!r}; allowed: a list")


def _check_inputs(
    predictions: Sequence[Sequence[str | None]],
    references: Sequence[str],
    task_ids: Sequence[str],
    scores: Sequence[Sequence[float]] | None,
) -> None:
    lists = {"predictions": predictions, "references": references, "task_ids": task_ids}
    _check_lists(**lists, scores=[] if scores is None else scores)
    count = len(predictions)
    if count == 0:
        raise ValueError("predictions is empty: there is no share of no tasks")
    lengths = {"references": len(references), "task_ids": len(task_ids)}
    if scores is not None:
        lengths["scores"] = len(scores)
    for field, length in lengths.items():
        if length != count:
            raise ValueError(f"{field} has {length} entries, predictions has {count}; one entry a test input")
    for number, votes in enumerate(predictions):
        if isinstance(votes, str):
            raise ValueError(f"predictions[{number}] is the text {votes[:40]!r}; each entry is a list, one text a vote")
        _check_lists(**{f"predictions[{number}]": votes})
    for number, task_id in enumerate(task_ids):
        if not isinstance(task_id, Hashable) or task_id is None:
            raise ValueError(f"task_ids[{number}] is {task_id!r}; a task's name is a text")
    for number, reference in enumerate(references):
        if not isinstance(reference, str) or reference == "":
            raise ValueError(f"references[{number}] is {reference!r}; leave inputs whose answer is unknown out")
