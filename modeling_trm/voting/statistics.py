"""What the votes for one test input say: how sure and how right they are, and whether the answer was found at all.

Coverage (is the right grid among the candidates?) and selection (is it ranked first?) as the paper on Mamba-2 hybrids
reports them per test input (arXiv 2602.12078). Two definitions that it leaves open:

    share     votes of a grid / all votes cast for that input, those that are no grid included. They count as one more
              outcome in the entropy, so that the shares add up to 1, as in TRM's evaluator, where the empty grid is a
              candidate; here it is none, so it takes no rank and is not counted among the unique candidates.
    entropy   -sum share * log2(share), in bits. The paper names no unit; its figures are too large to be nats: with
              266.6 candidates and a first share of 41.1 % on average, no votes can have 4.56 nats.

Shapes: T tasks, K values of k.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.pass_at_k.ranking import rank_candidates
from .records import TestInput, VoteRecords


@dataclass(frozen=True)
class InputStatistics:
    """Figures of one test input. Shares are of all its votes; without a vote the shares are 0 and the entropy None."""

    name: str  # "task id, test 0"
    task_id: str
    has_reference: bool
    votes: int
    votes_without_grid: int
    unique_candidates: int
    entropy_bits: float | None
    top1_share: float
    top1_margin: float  # share of the first candidate minus that of the second
    rank: int | None  # place of the right grid, from 1; None: not among the candidates, or unknown
    correct_share: float | None  # of the right grid; None: unknown
    top1_grid: str  # "": no candidate

    def solved_within(self, places: int) -> bool:
        return self.rank is not None and self.rank <= places


def input_name(test_input: TestInput) -> str:
    return f"{test_input.task_id}, test {test_input.pair}"


def statistics_of(records: VoteRecords) -> list[InputStatistics]:
    """The figures of every test input, in the order of the records."""
    return [_statistics(test_input, *records.of_input(number)) for number, test_input in enumerate(records.inputs)]


def task_scores(statistics: Sequence[InputStatistics], k: Sequence[int]) -> tuple[list[str], np.ndarray]:
    """Task ids in order of appearance, and the share of each task's scored test inputs solved within k candidates.

    Returns:
        ([T], float64 [T, K]); test inputs without a reference are left out, and so are tasks that have no other.
    """
    inputs_of: dict[str, list[InputStatistics]] = {}
    for statistic in statistics:
        if statistic.has_reference:
            inputs_of.setdefault(statistic.task_id, []).append(statistic)
    scores_TK = [
        [sum(one.solved_within(places) for one in inputs) / len(inputs) for places in k]
        for inputs in inputs_of.values()
    ]
    return list(inputs_of), np.array(scores_TK, dtype=np.float64).reshape(len(inputs_of), len(k))


def mean(values: Sequence[float]) -> float | None:
    """The mean, whatever the order of the values; None of no values."""
    return math.fsum(values) / len(values) if values else None


def _statistics(test_input: TestInput, predictions: list[str], halt_probability: list[float]) -> InputStatistics:
    ranked = rank_candidates(predictions, halt_probability)
    total = len(predictions)
    without_grid = total - sum(candidate.votes for candidate in ranked)
    shares = [candidate.votes / total for candidate in ranked]
    outcomes = [*shares, without_grid / total] if without_grid else shares
    first, second = (*shares, 0.0, 0.0)[:2]
    places = {candidate.grid: place for place, candidate in enumerate(ranked, start=1)}
    known = test_input.reference is not None
    rank = None if test_input.reference is None else places.get(test_input.reference)
    return InputStatistics(
        name=input_name(test_input),
        task_id=test_input.task_id,
        has_reference=known,
        votes=total,
        votes_without_grid=without_grid,
        unique_candidates=len(ranked),
        entropy_bits=math.fsum(share * math.log2(1 / share) for share in outcomes) if total else None,
        top1_share=first,
        top1_margin=first - second,
        rank=rank,
        correct_share=None if not known else 0.0 if rank is None else shares[rank - 1],
        top1_grid=ranked[0].grid if ranked else "",
    )
