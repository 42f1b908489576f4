"""Losses against scalar transcriptions in float64, at ordinary and extreme logits, with their gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modeling_trm.losses_trm import (
    IGNORE_INDEX,
    TOKEN_LOSSES,
    halting_loss,
    improvement_target,
    is_exact,
    log_stablemax,
    softmax_cross_entropy,
    stablemax_cross_entropy,
)
from tests.oracles import losses as oracle

SMOOTHING = [0.0, 0.2]


@pytest.fixture
def logits() -> Tensor:
    return (3 * torch.randn(4, 5, 6, dtype=torch.float64)).requires_grad_()


@pytest.fixture
def labels() -> Tensor:
    labels = torch.randint(6, (4, 5))
    labels[0, :2] = IGNORE_INDEX
    labels[1, 4] = IGNORE_INDEX
    return labels


@pytest.mark.parametrize("label_smoothing", SMOOTHING)
def test_stablemax_equals_the_formula(logits: Tensor, labels: Tensor, label_smoothing: float) -> None:
    actual = stablemax_cross_entropy(logits, labels, label_smoothing)
    expected = oracle.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((loss * weight).sum(), logits)[0] for loss in (actual, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("label_smoothing", SMOOTHING)
def test_softmax_equals_torch(logits: Tensor, labels: Tensor, label_smoothing: float) -> None:
    actual = softmax_cross_entropy(logits, labels, label_smoothing)
    expected = torch.stack(
        [
            torch.nn.functional.cross_entropy(row, target, label_smoothing=label_smoothing)
            for row, target in zip(logits, labels)
        ]
    )
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)
    ours, theirs = (torch.autograd.grad(loss.square().sum(), logits)[0] for loss in (actual, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_log_probabilities_at_extreme_logits(name: str) -> None:
    """Values of 0, +-1e-3 .. +-1e4 beside each other; finite, right, and with finite gradients, in every dtype."""
    row = [0.0, 1e-3, -1e-3, 1.0, -1.0, 1e4, -1e4, 0.0]
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        logits = torch.tensor([[row]] * 8, dtype=dtype, requires_grad=True)
        loss = TOKEN_LOSSES[name](logits, torch.arange(8)[:, None])
        if name == "stablemax":
            expected = -torch.tensor(oracle.scalar_log_stablemax(logits[0, 0].tolist()), dtype=torch.float64)
            torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)  # float64 inside, whatever comes in
        loss.sum().backward()
        assert loss.isfinite().all()
        assert logits.grad.isfinite().all()


def test_stablemax_gradient_at_zero_is_the_derivative() -> None:
    """Both branches of s have slope 1 at 0: d log p_i / d x_j = [i == j] - p_j, so 2/3 and -1/3 among three zeros."""
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    log_stablemax(logits)[0].backward()
    torch.testing.assert_close(logits.grad, torch.tensor([2 / 3, -1 / 3, -1 / 3], dtype=torch.float64))


def test_stablemax_probabilities_add_up_to_one_and_keep_the_order() -> None:
    logits = torch.linspace(-50, 50, 11, dtype=torch.float64)
    log_p = log_stablemax(logits)
    torch.testing.assert_close(log_p.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert (log_p.diff() > 0).all()


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_ignored_positions_have_no_say(name: str, logits: Tensor, labels: Tensor) -> None:
    loss = TOKEN_LOSSES[name](logits, labels)
    changed = torch.where((labels == IGNORE_INDEX)[..., None], logits * 100 + 7, logits)
    assert torch.equal(TOKEN_LOSSES[name](changed, labels), loss)
    gradient = torch.autograd.grad(loss.sum(), logits)[0]
    assert gradient[labels == IGNORE_INDEX].eq(0).all()
    assert gradient[labels != IGNORE_INDEX].ne(0).all()


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_a_sequence_without_labels_costs_nothing(name: str, logits: Tensor, labels: Tensor) -> None:
    labels[2] = IGNORE_INDEX
    loss = TOKEN_LOSSES[name](logits, labels, 0.2)
    assert loss[2] == 0
    assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_labels_may_be_any_integer_type_and_stay_as_they_are(name: str, logits: Tensor, labels: Tensor) -> None:
    before = labels.clone()
    loss = TOKEN_LOSSES[name](logits, labels)
    assert torch.equal(TOKEN_LOSSES[name](logits, labels.int()), loss)
    assert torch.equal(labels, before)
    assert loss.shape == (4,)


def test_halting_loss_is_the_binary_cross_entropy() -> None:
    logits = torch.tensor([-100.0, -5.0, 0.0, 2.0, 100.0, 0.3], dtype=torch.float64, requires_grad=True)
    exact = torch.tensor([True, False, True, False, True, True])
    loss = halting_loss(logits, exact)
    expected = torch.stack([oracle.binary_cross_entropy(x, hit) for x, hit in zip(logits, exact.tolist())])
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-7)
    assert loss[0].item() == pytest.approx(100)
    assert loss[2].item() == pytest.approx(math.log(2))
    torch.testing.assert_close(
        torch.autograd.grad(loss.sum(), logits)[0], logits.detach().sigmoid() - exact.double(), rtol=1e-6, atol=1e-7
    )


def test_is_exact(logits: Tensor) -> None:
    labels = logits.argmax(-1)
    assert is_exact(logits, labels).tolist() == [True] * 4
    labels[1, 3] = (labels[1, 3] + 1) % 6
    assert is_exact(logits, labels).tolist() == oracle.exact(logits, labels) == [True, False, True, True]
    labels[1, 3] = IGNORE_INDEX  # the one wrong cell is not asked for
    assert is_exact(logits, labels).all()


@settings(max_examples=50)
@given(st.data())
def test_the_targets_of_improvement_are_a_monotone_path(data: st.DataObject) -> None:
    L, steps = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 7))
    puzzle = data.draw(st.lists(st.integers(1, 3), min_size=L, max_size=L))
    label = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, IGNORE_INDEX]), min_size=L, max_size=L))
    order = data.draw(st.permutations([i / L for i in range(L)]))
    expected = oracle.improvement_path(puzzle, label, order, steps)
    before = [0] * L
    for step in range(1, steps + 1):
        target = improvement_target(*torch.tensor([[puzzle], [label]]), torch.tensor([order]), step, steps)[0].tolist()
        assert target == expected[step]
        right = [new == goal for new, goal in zip(target, label)]
        assert all(now >= then for now, then in zip(right, before)), "a cell that was filled in stays"
        before = right
        assert all(new == old for new, old, goal in zip(target, puzzle, label) if old == goal), "given cells"
        assert all(new in (old, goal) for new, old, goal in zip(target, puzzle, label))
    assert target == label


def test_each_step_of_improvement_fills_in_its_share() -> None:
    puzzle, label = torch.ones(2, 12, dtype=torch.long), torch.full((2, 12), 5)
    label[1, 6:] = 1  # six cells of the second puzzle are given
    order = torch.rand(2, 12)
    filled = [(improvement_target(puzzle, label, order, s, 6) != 1).sum(1).tolist() for s in range(1, 7)]
    assert filled == [[2, 1], [4, 2], [6, 3], [8, 4], [10, 5], [12, 6]]
