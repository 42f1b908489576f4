"""Calibration against the counting of pairs and of bins."""

import numpy as np
import pytest

from modeling_trm.diagnostics.calibration import area_under_curve, calibrate


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs(seed: int) -> None:
    random = np.random.RandomState(seed)
    scores, right = random.randint(0, 12, 60) / 12, random.rand(60) < 0.4  # many ties
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[right] for b in scores[~right]]
    assert area_under_curve(scores, right) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auc_of_the_extremes() -> None:
    right = np.array([False, False, True, True])
    assert area_under_curve(np.array([0.1, 0.2, 0.3, 0.4]), right) == 1
    assert area_under_curve(np.array([0.4, 0.3, 0.2, 0.1]), right) == 0
    assert area_under_curve(np.full(4, 0.7), right) == 0.5
    assert area_under_curve(np.full(4, 0.7), np.ones(4, bool)) is None


def test_bins_and_error_against_a_plain_loop() -> None:
    random = np.random.RandomState(3)
    p = np.concatenate([random.rand(500), [0.0, 1.0, 0.1, 0.5]])
    right = random.rand(len(p)) < p**2  # overconfident
    result, error = calibrate(p, right), 0.0
    for number, entry in enumerate(result["bins"]):
        chosen = [(a, b) for a, b in zip(p, right) if min(int(a * 10), 9) == number]
        assert entry["low"] == number / 10 and entry["count"] == len(chosen)
        mean, share = np.mean([a for a, _ in chosen]), np.mean([b for _, b in chosen])
        assert entry["mean_probability"] == pytest.approx(mean) and entry["right"] == pytest.approx(share)
        error += len(chosen) / len(p) * abs(mean - share)
    assert result["expected_calibration_error"] == pytest.approx(error) and error > 0.1
    assert sum(entry["count"] for entry in result["bins"]) == result["count"] == len(p)


def test_a_calibrated_head_has_no_error() -> None:
    result = calibrate(np.repeat([0.25, 0.75], 4), np.array([1, 0, 0, 0, 1, 1, 1, 0]).astype(bool))
    assert result["expected_calibration_error"] == 0 and result["auc"] == pytest.approx(0.75)


def test_nan_is_counted_and_nothing_is_no_figure() -> None:
    result = calibrate(np.array([np.nan, 0.3]), np.array([True, False]))
    assert (result["count"], result["non_finite"], result["auc"]) == (1, 1, None)
    empty = calibrate(np.array([np.nan]), np.array([True]))
    assert (empty["count"], empty["expected_calibration_error"], empty["right"]) == (0, None, None)
