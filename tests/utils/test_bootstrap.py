"""Intervals and tests over tasks: against full enumeration, closed forms and their own definition."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from modeling_trm.utils import bootstrap
from modeling_trm.utils.bootstrap import bootstrap_interval, paired_interval, share_interval, sign_flip_test


def enumerated_p(first: list[Fraction], second: list[Fraction]) -> Fraction:
    """Every way to swap the two models' scores on each task, in exact arithmetic."""
    differences = [x - y for x, y in zip(first, second)]
    observed = abs(sum(differences))
    signs = list(itertools.product((1, -1), repeat=len(differences)))
    reached = sum(abs(sum(s * d for s, d in zip(sign, differences))) >= observed for sign in signs)
    return Fraction(reached, len(signs))


@pytest.mark.parametrize("seed", range(30))
def test_sign_flips_equal_full_enumeration(seed: int) -> None:
    """Scores that are thirds and halves: equal sums that floats round apart must still count as equal."""
    generator = np.random.default_rng(seed)
    scores = [Fraction(0), Fraction(1, 3), Fraction(1, 2), Fraction(2, 3), Fraction(1)]
    tasks = int(generator.integers(1, 11))
    first, second = ([scores[number] for number in generator.integers(5, size=tasks)] for _ in range(2))
    p = sign_flip_test([float(x) for x in first], [float(x) for x in second])
    assert p == pytest.approx(float(enumerated_p(first, second)), abs=1e-12)


def test_sign_flips_by_hand() -> None:
    """3 of 3 tasks won: 2 of 8 assignments are as one-sided. 5 to 1 of six: |sum| >= 4 in 2 * (1 + 6) of 64."""
    assert sign_flip_test([1, 1, 1], [0, 0, 0]) == 0.25
    assert sign_flip_test([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]) == 14 / 64
    assert sign_flip_test([0.5, 1.0], [0.5, 1.0]) == 1.0
    assert sign_flip_test([1, 1, 1] + [0.5] * 500, [0, 0, 0] + [0.5] * 500) == 0.25  # tasks scored alike do not matter


def test_random_flips_come_near_the_binomial_tail() -> None:
    """40 tasks of which 28 are won: two-sided binomial tail; also when the draws come in many chunks."""
    first = np.array([1.0] * 28 + [0.0] * 12)
    tail = 2 * sum(math.comb(40, wins) for wins in range(28, 41)) / 2**40
    p = sign_flip_test(first, 1 - first)
    assert p == pytest.approx(tail, abs=4 * math.sqrt(tail / bootstrap.FLIPS))
    assert p == sign_flip_test(first, 1 - first) == sign_flip_test(1 - first, first)
    assert sign_flip_test(np.ones(40), np.zeros(40), flips=99) == 1 / 100  # never zero


def test_random_flips_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array([1.0] * 28 + [0.0] * 12)
    monkeypatch.setattr(bootstrap, "CHUNK_ELEMENTS", 1000)
    assert sign_flip_test(first, 1 - first) == pytest.approx(0.0166, abs=0.006)
    assert bootstrap_interval(first) == pytest.approx((0.55, 0.85), abs=0.051)


@pytest.mark.parametrize(("solved", "tasks"), [(30, 100), (200, 400), (5, 400)])
def test_interval_of_a_share_is_the_binomial_one(solved: int, tasks: int) -> None:
    """Resampling 0/1 scores draws from the binomial distribution: its 2.5 % and 97.5 % quantiles, within one task."""
    low, high = bootstrap_interval([1.0] * solved + [0.0] * (tasks - solved))
    share, total, quantiles = solved / tasks, 0.0, []
    for count in range(tasks + 1):
        total += math.comb(tasks, count) * share**count * (1 - share) ** (tasks - count)
        quantiles += [count / tasks] * ((total >= 0.025) + (total >= 0.975) - len(quantiles))
    assert (low, high) == pytest.approx(tuple(quantiles), abs=1.01 / tasks)
    assert low < share < high


def test_interval_holds_the_estimate_shrinks_with_tasks_and_is_seeded() -> None:
    generator = np.random.default_rng(3)
    widths = []
    for tasks in (10, 40, 160, 640):
        scores = generator.integers(0, 3, tasks) / 2
        low, high = share_interval(scores)
        assert 0.0 <= low <= scores.mean() <= high <= 1.0
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] / widths[3] == pytest.approx(8, rel=0.5)  # 1 / sqrt(tasks)
    assert share_interval(scores, seed=1) == share_interval(scores, seed=1)
    assert share_interval(scores, seed=1) != share_interval(scores, seed=2)
    narrow, wide = bootstrap_interval(scores, confidence=0.5), bootstrap_interval(scores, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_nothing_or_everything_solved_still_has_a_width() -> None:
    """Wilson's interval: z^2 / (n + z^2) = 3.841459 / 19.841459 for 0 of 16."""
    assert share_interval([0.0] * 16) == pytest.approx((0.0, 0.1936077), abs=1e-6)
    assert share_interval([1.0] * 16) == pytest.approx((0.8063923, 1.0), abs=1e-6)
    assert share_interval([0.5] * 16) == (0.5, 0.5)
    assert bootstrap_interval([0.0] * 16) == (0.0, 0.0)


def test_paired_interval_is_that_of_the_differences() -> None:
    """Pairing removes what the tasks have in common: much narrower than the two intervals by themselves."""
    generator = np.random.default_rng(0)
    second = generator.random(200)
    first = second + 0.1 + 0.01 * generator.standard_normal(200)
    low, high = paired_interval(first, second)
    assert (low, high) == bootstrap_interval(first - second)
    assert low < (first - second).mean() < high
    assert high - low < 0.1 * (share_interval(second)[1] - share_interval(second)[0])
    assert paired_interval(first, first) == (0.0, 0.0)


@pytest.mark.parametrize("function", [bootstrap_interval, share_interval])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores_T": []}, "at least one task"),
        ({"scores_T": [[0.0, 1.0]]}, r"one number a task .* shape \(1, 2\)"),
        ({"scores_T": [0.0, math.nan]}, "scores must be finite, got nan"),
        ({"scores_T": [0.0, 1.0], "confidence": 95.0}, "confidence must be between 0 and 1"),
        ({"scores_T": [0.0, 1.0], "resamples": 0}, "resamples must be at least 1, got 0"),
    ],
)
def test_bad_arguments(function, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(**arguments)


def test_bad_pairs_and_shares() -> None:
    for function in (paired_interval, sign_flip_test):
        with pytest.raises(ValueError, match="first has 2 tasks, second 3"):
            function([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="flips must be at least 1"):
        sign_flip_test([0], [1], flips=0)
    with pytest.raises(ValueError, match="scores must be between 0 and 1, got 0 to 2"):
        share_interval([0, 2])
