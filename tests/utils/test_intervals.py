"""Wilson's interval against numbers worked out by hand, against its defining equation, and at its ends."""

import math

import pytest

from modeling_trm.utils.intervals import wilson_interval

Z = 1.959963984540054


# By hand for 8 of 10: z^2 = 3.841459, centre = (0.8 + 0.1920729) / 1.3841459 = 0.7167402,
# half width = 1.9599640 / 1.3841459 * sqrt(0.016 + 0.00960365) = 1.4160097 * 0.1600114 = 0.2265777.
@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),
        (0, 10, 0.0, 0.2775328),  # z^2 / (n + z^2) = 3.841459 / 13.841459
        (10, 10, 0.7224672, 1.0),
        (1, 1, 0.2065493, 1.0),  # 1 / (1 + z^2) = 1 / 4.841459
        (50, 100, 0.4038315, 0.5961685),  # 0.5 +- z / (2 sqrt(n + z^2)) = 0.5 +- 1.959964 / 20.380526
    ],
)
def test_hand_worked_values(successes: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(successes, count) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(("successes", "count"), [(1, 7), (113, 200), (19_999, 20_000), (3, 1_000_000)])
def test_ends_solve_the_score_equation(successes: int, count: int) -> None:
    """At both ends the observed share is exactly z standard errors away, the error taken at the end itself."""
    share = successes / count
    for end in wilson_interval(successes, count):
        assert abs(share - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / count), rel=1e-9)


def test_ends_are_exact_and_inside() -> None:
    for count in range(1, 200):
        assert wilson_interval(0, count)[0] == 0.0
        assert wilson_interval(count, count)[1] == 1.0
        low, high = wilson_interval(count // 2, count)
        assert 0.0 <= low <= count // 2 / count <= high <= 1.0


def test_more_confidence_is_wider() -> None:
    narrow, wide = wilson_interval(30, 100, confidence=0.8), wilson_interval(30, 100, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (-1, 10), (11, 10)])
def test_impossible_counts(successes: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"count|successes"):
        wilson_interval(successes, count)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_impossible_confidence(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        wilson_interval(1, 2, confidence)
