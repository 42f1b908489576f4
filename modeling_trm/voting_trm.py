"""Votes: the distinct answers to the views of a puzzle, or of several trajectories, ranked.

Source: TRM (arXiv 2510.04871), public evaluator for ARC: the answer of most votes, ties by the mean halt probability.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Candidate(NamedTuple):
    """One distinct answer among the votes for a puzzle."""

    answer: str
    votes: int
    halt_probability: float  # mean of its votes


def rank_votes(answers: Sequence[str], halt_probability: Sequence[float]) -> list[Candidate]:
    """The distinct answers but "", best first: votes and then mean halt probability descending, then text ascending.

    The order is total and does not depend on that of the votes. A probability that is not finite counts as 0.
    """
    votes_of: dict[str, list[float]] = {}
    for answer, probability in zip(answers, halt_probability, strict=True):
        if answer:
            votes_of.setdefault(answer, []).append(probability if math.isfinite(probability) else 0.0)
    candidates = [Candidate(answer, len(votes), math.fsum(votes) / len(votes)) for answer, votes in votes_of.items()]
    return sorted(candidates, key=lambda candidate: (-candidate.votes, -candidate.halt_probability, candidate.answer))
