"""Is the halting head right about itself? Its probability of "my answer is right now" against whether it was.

Sources: reliability curve and expected calibration error with equal bins, Guo et al., arXiv 1706.04599; AUC as the
rank-sum statistic, Hanley & McNeil (1982). One observation is one puzzle after one supervision step.
"""

from typing import Any

import numpy as np

BINS = 10


def calibrate(probabilities: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Counts, reliability curve, expected calibration error and AUC; figures that are not defined are None.

    Args:
        probabilities: in [0, 1]; NaN is left out and counted. right: bool, of the same shape.

    Returns:
        count, non_finite, right (share), mean_probability, expected_calibration_error, auc, and bins: of low, high,
        count, mean_probability and right; a bin holds low <= p < high, the last one 1 as well.
    """
    finite = np.isfinite(probabilities)
    p, y = probabilities[finite].astype(np.float64), right[finite].astype(bool)
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    bins: list[dict[str, Any]] = []
    for number in range(BINS):
        inside = place == number
        bins.append({"low": number / BINS, "high": (number + 1) / BINS, "count": int(inside.sum())})
        bins[-1] |= {"mean_probability": _mean(p[inside]), "right": _mean(y[inside])}
    filled = [entry for entry in bins if entry["count"]]
    gaps = [entry["count"] * abs(entry["mean_probability"] - entry["right"]) for entry in filled]
    return {
        "count": len(p),
        "non_finite": int((~finite).sum()),
        "right": _mean(y),
        "mean_probability": _mean(p),
        "expected_calibration_error": sum(gaps) / len(p) if len(p) else None,
        "auc": area_under_curve(p, y),
        "bins": bins,
    }


def area_under_curve(scores: np.ndarray, right: np.ndarray) -> float | None:
    """Share of the (right, wrong) pairs in which the right one has the higher score, ties half; None without a pair."""
    positives = int(right.sum())
    negatives = len(right) - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of each distinct score, from 1; ties share their mean rank
    rank_sum = float(ranks[place][right].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
