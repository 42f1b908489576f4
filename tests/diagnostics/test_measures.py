"""Measures against NumPy, and the advantage margin against autograd."""

import numpy as np
import pytest
import torch

from modeling_trm.diagnostics import measures


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_entropy_and_confidence_against_numpy() -> None:
    logits = torch.randn(3, 5, 7) * 4
    p = softmax(logits.double().numpy())
    torch.testing.assert_close(measures.entropy(logits), torch.tensor(-(p * np.log(p)).sum(-1)))
    torch.testing.assert_close(measures.confidence(logits), torch.tensor(p.max(-1)))


def test_entropy_of_the_even_and_of_the_impossible() -> None:
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf, -torch.inf], [0.0, *[-torch.inf] * 3]]])
    expected = torch.tensor([[4.0, 2.0, 1.0]], dtype=torch.float64).log()
    torch.testing.assert_close(measures.entropy(logits), expected)


@pytest.mark.parametrize("shape", [(4, 9, 21), (4, 21, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_effective_rank_against_numpys_svd(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    z = (torch.randn(shape) * torch.logspace(0, -3, shape[2])).to(dtype)
    expected = []
    for matrix in z.double().numpy():
        s = np.linalg.svd(matrix, compute_uv=False)
        p = s / s.sum()
        expected.append(np.exp(-(p * np.log(p)).sum()))
    torch.testing.assert_close(measures.effective_rank(z), torch.tensor(expected), rtol=1e-6, atol=0)


def test_effective_rank_of_known_matrices() -> None:
    alike = torch.randn(1, 1, 12).expand(1, 30, 12)  # all positions the same
    z = torch.zeros(1, 30, 12)
    z[0, :5, :5] = 3 * torch.eye(5)
    for matrix, rank in ((alike, 1.0), (z, 5.0), (torch.eye(12)[None], 12.0)):
        torch.testing.assert_close(measures.effective_rank(matrix), torch.tensor([rank]).double(), rtol=1e-5, atol=0)


def test_effective_rank_of_what_is_not_finite_is_nan_for_that_puzzle_alone() -> None:
    z = torch.randn(3, 4, 5)
    z[1, 2, 3] = torch.inf
    assert measures.effective_rank(z).isnan().tolist() == [False, True, False]


def test_size_and_movement_against_numpy() -> None:
    before, after = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    b, a = (z.double().numpy().reshape(3, -1) for z in (before, after))
    norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    torch.testing.assert_close(measures.rms(after), torch.tensor(np.sqrt((a**2).mean(1))))
    torch.testing.assert_close(measures.cosine(after, before), torch.tensor((a * b).sum(1) / norms[0] / norms[1]))
    expected = torch.tensor(np.linalg.norm(a - b, axis=1) / norms[0])
    torch.testing.assert_close(measures.relative_distance(after, before), expected)
    assert (measures.relative_distance(after, after) == 0).all()


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0, 1.5])
def test_advantage_margin_is_minus_the_slope_of_the_loss_in_w(w: float) -> None:
    before, after = torch.randn(2, 6, 5).double(), torch.randn(2, 6, 5).double()
    labels = torch.randint(5, (2, 6))
    slope = torch.empty(2, 6, dtype=torch.float64)
    for b in range(2):
        for cell in range(6):
            weight = torch.tensor(w, dtype=torch.float64, requires_grad=True)
            logits = before[b, cell] + weight * (after[b, cell] - before[b, cell])
            torch.nn.functional.cross_entropy(logits, labels[b, cell]).backward()
            assert weight.grad is not None
            slope[b, cell] = weight.grad
    torch.testing.assert_close(measures.advantage_margin(before, after, labels, w), -slope)


def test_the_gain_lies_between_the_margins() -> None:
    before, after, labels = torch.randn(4, 50, 5) * 2, torch.randn(4, 50, 5) * 2, torch.randint(5, (4, 50))
    gain = (after.log_softmax(-1) - before.log_softmax(-1)).gather(-1, labels[..., None])[..., 0]
    start, end = (measures.advantage_margin(before, after, labels, w) for w in (0.0, 1.0))
    assert (end <= gain + 1e-5).all() and (gain <= start + 1e-5).all()
    assert (gain[start <= 0] <= 1e-5).all() and (start <= 0).any()  # dead: nothing was gained


def test_margin_of_hand_made_steps() -> None:
    before, labels = torch.zeros(1, 4, 2), torch.tensor([[0, 0, 0, -100]])
    after = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [3.0, 3.0], [1.0, 0.0]]])  # better, worse, nothing changed in effect
    torch.testing.assert_close(
        measures.advantage_margin(before, after, labels)[0, :3], torch.tensor([1.0, -1.0, 0.0]).double()
    )


def test_mean_over_leaves_out_what_is_masked() -> None:
    values, mask = torch.tensor([[1.0, torch.nan, 3.0], [torch.nan, 5.0, 6.0]]), torch.tensor([[1, 0, 1], [0, 0, 0]])
    assert measures.mean_over(values, mask.bool()).tolist() == [2.0, 0.0]
