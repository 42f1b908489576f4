"""Intervals and tests for means over tasks: the percentile bootstrap, and the sign-flip test of two models.

Tasks are what is resampled: the test inputs of one task are alike, so they stay together (a cluster bootstrap), which
here means to resample the scores of the tasks. Seeded, NumPy alone.

Sources: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13 and 15; sign flips: R. A.
Fisher, "The Design of Experiments" (1935), section 21. The counted share of random flips includes the observed one,
as in Phipson and Smyth, "Permutation p-values should never be zero" (2010).

Shapes: T tasks, R resamples.
"""

import numpy as np
from numpy.typing import ArrayLike

from .intervals import wilson_interval

RESAMPLES = 4_000
FLIPS = 10_000
MAX_EXACT_TASKS = 16  # 2^16 sign assignments take milliseconds
CHUNK_ELEMENTS = 4_000_000


def bootstrap_interval(
    scores_T: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean score of the tasks that the resampled means fill at this confidence.

    With few tasks it is somewhat too narrow. A single task, or tasks that all score alike, give no width at all.

    Raises:
        ValueError: when there are no scores, one is not finite, or `confidence` or `resamples` is out of range.
    """
    scores_T = _checked(scores_T, "scores")
    _check_numbers(confidence, resamples)
    generator = np.random.default_rng(seed)
    tasks = len(scores_T)
    means_R = np.empty(resamples)
    for rows in _chunks(resamples, tasks):
        means_R[rows] = scores_T[generator.integers(tasks, size=(rows.stop - rows.start, tasks))].mean(axis=1)
    low, high = np.quantile(means_R, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def share_interval(
    scores_T: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """`bootstrap_interval` of scores in [0, 1]; Wilson's interval where every task scores 0 or every task scores 1.

    None of 16 tasks solved does not mean that no task could be: there resampling would claim an interval of no width.

    Raises:
        ValueError: as `bootstrap_interval`, and for a score outside [0, 1].
    """
    scores_T = _checked(scores_T, "scores")
    if scores_T.min() < 0 or scores_T.max() > 1:
        raise ValueError(f"scores must be between 0 and 1, got {scores_T.min():g} to {scores_T.max():g}")
    if scores_T.min() == scores_T.max() and scores_T[0] in (0.0, 1.0):
        return wilson_interval(int(scores_T.sum()), len(scores_T), confidence)
    return bootstrap_interval(scores_T, confidence, resamples, seed)


def paired_interval(
    first_T: ArrayLike, second_T: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of mean(first) - mean(second) for two models on the same tasks: tasks keep both scores.

    Raises:
        ValueError: as `bootstrap_interval`, and when the numbers of tasks differ.
    """
    return bootstrap_interval(_differences(first_T, second_T), confidence, resamples, seed)


def sign_flip_test(first_T: ArrayLike, second_T: ArrayLike, flips: int = FLIPS, seed: int = 0) -> float:
    """Two-sided p-value of "both models score alike": per task, which model got which score is a coin flip.

    p = share of the sign assignments whose |mean difference| reaches the observed one. Tasks without a difference
    cannot matter and are left out; all assignments are counted for up to 16 others, `flips` random ones beyond, where
    p = (1 + count) / (1 + flips).

    Raises:
        ValueError: when there are no scores, one is not finite, the numbers of tasks differ or `flips` is below 1.
    """
    if flips < 1:
        raise ValueError(f"flips must be at least 1, got {flips}")
    differences_T = _differences(first_T, second_T)
    differences_T = differences_T[differences_T != 0]
    tasks = len(differences_T)
    if tasks == 0:
        return 1.0
    # Sums of equal scores in another order may differ in the last bits: such a draw still counts as reaching it.
    reached = abs(differences_T.sum()) - 1e-12 * np.abs(differences_T).sum()
    if tasks <= MAX_EXACT_TASKS:
        bits = (np.arange(2**tasks)[:, None] >> np.arange(tasks)) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ differences_T) >= reached))
    generator = np.random.default_rng(seed)
    count = 0
    for rows in _chunks(flips, tasks):
        bits = generator.integers(2, size=(rows.stop - rows.start, tasks), dtype=np.int8)
        count += int(np.sum(np.abs((1.0 - 2.0 * bits) @ differences_T) >= reached))
    return (1 + count) / (1 + flips)


def _differences(first_T: ArrayLike, second_T: ArrayLike) -> np.ndarray:
    first_T, second_T = _checked(first_T, "first"), _checked(second_T, "second")
    if len(first_T) != len(second_T):
        raise ValueError(f"first has {len(first_T)} tasks, second {len(second_T)}; they are compared task by task")
    return first_T - second_T


def _checked(scores_T: ArrayLike, field: str) -> np.ndarray:
    scores_T = np.asarray(scores_T, dtype=np.float64)
    if scores_T.ndim != 1 or len(scores_T) == 0:
        raise ValueError(f"{field} must hold one number a task and at least one task, got shape {scores_T.shape}")
    if not np.isfinite(scores_T).all():
        raise ValueError(f"{field} must be finite, got {scores_T[~np.isfinite(scores_T)][0]}")
    return scores_T


def _check_numbers(confidence: float, resamples: int) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")


def _chunks(draws: int, tasks: int) -> list[slice]:
    """Ranges of draws whose random numbers fit into memory together."""
    size = max(1, CHUNK_ELEMENTS // tasks)
    return [slice(start, min(start + size, draws)) for start in range(0, draws, size)]
