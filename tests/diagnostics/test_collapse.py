"""Warnings on hand-made runs: they come where something collapses while the answer is wrong, and only there."""

import torch

from modeling_trm.diagnostics.collapse import find_warnings
from modeling_trm.diagnostics.observation import STEP, Moment, Observation

WRONG, RIGHT = [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]
FALLING, STEADY = [1.0, 0.2, 0.01], [1.0, 0.9, 0.8]


def run(exact: list[list[float]] | None, **measures: list[list[float]]) -> Observation:
    """An observation from lists [B][T]."""
    columns = {**measures, **({} if exact is None else {"exact": exact})}
    values = {name: torch.tensor(rows).double() for name, rows in columns.items()}
    moments = [Moment(STEP, t + 1, None, None, {name: v[:, t] for name, v in values.items()}) for t in range(3)]
    return Observation(moments, torch.empty(3, 0, 0), torch.empty(3, 0, 0))


def test_steady_runs_have_no_warning() -> None:
    assert find_warnings(run([WRONG, RIGHT], entropy=[STEADY, STEADY], z_H_effective_rank=[STEADY, STEADY])) == []


def test_entropy_that_collapses_while_wrong() -> None:
    (warning,) = find_warnings(run([WRONG, WRONG, RIGHT], entropy=[FALLING, STEADY, FALLING]))
    assert "entropy of the answer falls below 5 % of its largest value on 1 of the 2 puzzles" in warning
    assert "first at step 3" in warning


def test_a_solved_puzzle_may_be_sure() -> None:
    assert find_warnings(run([RIGHT, [0.0, 1.0, 1.0]], entropy=[FALLING, FALLING])) == []
    # Nor was one stuck that was sure too early and solved in the end.
    assert find_warnings(run([RIGHT, WRONG], entropy=[[1.0, 0.01, 0.01], STEADY])) == []


def test_effective_rank_of_either_latent() -> None:
    found = find_warnings(run([WRONG], z_H_effective_rank=[STEADY], z_L_effective_rank=[[9.0, 20.0, 8.0]]))
    assert len(found) == 1 and "effective rank of z_L falls below 50 %" in found[0] and "step 3" in found[0]


def test_the_largest_value_is_an_earlier_one() -> None:
    assert find_warnings(run([WRONG], entropy=[[0.01, 0.5, 1.0]])) == []


def test_few_of_many_are_no_news() -> None:
    assert find_warnings(run([WRONG] * 20, entropy=[FALLING] + [STEADY] * 19)) == []
    assert len(find_warnings(run([WRONG] * 20, entropy=[FALLING] * 2 + [STEADY] * 18))) == 1


def test_nan_is_named_with_and_without_labels() -> None:
    broken = [[1.0, torch.nan, torch.nan], STEADY]
    for exact in (None, [WRONG, WRONG]):
        (warning,) = find_warnings(run(exact, entropy=broken))
        assert warning.startswith("entropy is NaN or infinite on 1 of 2 puzzles, from step 2")
