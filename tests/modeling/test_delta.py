"""Gated DeltaNet: the chunked delta rule against the step-by-step recurrence, and the inverse that it rests on."""

import pytest
import torch
from torch import Tensor

from modeling_trm.delta_trm import CHUNK, chunk_size, gated_delta_rule, inverse_of_unit_lower, unit
from tests.oracles import operators as oracle

# One position, less than a chunk, a chunk, Sudoku with its prefix, several chunks with a last one of few positions.
LENGTHS = (1, 2, 5, CHUNK, 97, 3 * CHUNK + 1)


def rule_inputs(length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v, decay, beta: states from forgotten at once to kept throughout."""
    batch, heads, keys, values = 2, 3, 4, 5
    q, k = unit(torch.randn(2, batch, length, heads, keys, dtype=dtype))
    v = torch.randn(batch, length, heads, values, dtype=dtype)
    decay = -torch.rand(batch, length, heads, dtype=dtype) * torch.tensor([1e-3, 0.5, 16.0], dtype=dtype)
    beta = torch.rand(batch, length, heads, dtype=dtype)
    return [t.clone().requires_grad_() for t in (q, k, v, decay, beta)]


@pytest.mark.parametrize("length", LENGTHS)
def test_the_chunked_rule_equals_the_recurrence(length: int) -> None:
    inputs = rule_inputs(length)
    results = []
    for rule in (oracle.delta_rule, gated_delta_rule):
        y = rule(*inputs)
        weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
        results.append([y, *torch.autograd.grad((y * weight).sum(), inputs)])
    for name, expected, actual in zip(("y", "q", "k", "v", "decay", "beta"), *results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")


def test_the_rule_is_causal() -> None:
    inputs = [t.detach() for t in rule_inputs(150)]
    before = gated_delta_rule(*inputs)
    changed = [torch.cat((t[:, :100], t[:, 100:] * 0.5), dim=1) for t in inputs]
    after = gated_delta_rule(*changed)
    torch.testing.assert_close(after[:, :100], before[:, :100], rtol=0, atol=1e-13)
    assert ((after - before)[:, 100:].abs().amax(dim=(0, 2, 3)) > 1e-6).all()


def test_float32_keeps_its_precision_where_all_keys_are_the_same() -> None:
    """The worst system: nothing decays, and every position corrects what the last one wrote, as where latents agree."""
    q, k, v, decay, beta = (t.detach() for t in rule_inputs(97))
    k, decay, beta = k[:, :1].expand_as(k), torch.zeros_like(decay), torch.full_like(beta, 0.999)
    expected = oracle.delta_rule(q, k, v, decay, beta)
    actual = gated_delta_rule(*(t.float() for t in (q, k, v, decay, beta))).double()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [2, 4, 64])
def test_the_inverse(size: int) -> None:
    lower = torch.rand(3, size, size, dtype=torch.float64).tril(-1)
    identity = torch.eye(size, dtype=torch.float64)
    inverse = inverse_of_unit_lower(lower)
    torch.testing.assert_close(inverse @ (identity + lower), identity.expand(3, -1, -1), rtol=0, atol=1e-9)
    assert torch.equal(inverse, inverse.tril())


def test_chunks_are_powers_of_two_and_no_longer_than_needed() -> None:
    assert [chunk_size(length) for length in (1, 2, 3, 5, 33, 64, 65, 916)] == [2, 2, 4, 8, 64, 64, 64, 64]
