"""Packed linear layers against the product, and against the formula of the 8-bit one, in float64."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeling_trm.packed_linear_trm import Int8Linear, PackedLinear, int8_missing

ROOT = Path(__file__).parents[2]

DTYPES = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  # relative to the largest output
SHAPES = [(1, 24), (7, 24), (3, 5, 24), (0, 24), (0, 5, 24)]


@pytest.fixture(autouse=True)
def _vnni() -> None:
    # Not int8_missing(): its probe is a product, and a wrong product must fail here, not skip.
    if not torch.cpu._is_vnni_supported():
        pytest.skip("this processor has no AVX512-VNNI")


def bytes_of(row: Tensor) -> tuple[Tensor, Tensor]:
    """One row as whole numbers of -127 to 127 and their scale, float64."""
    scale = row.abs().max() / 127
    return (row / scale).round(), scale


def int8_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One position and one output at a time, float64: [..., I] -> [..., O]."""
    y = torch.zeros(*x.shape[:-1], len(weight), dtype=torch.float64)
    for position, row in zip(y.view(-1, len(weight)), x.double().reshape(-1, x.shape[-1])):
        x_q, x_scale = bytes_of(row)
        for o, weights in enumerate(weight.double()):
            w_q, w_scale = bytes_of(weights)
            position[o] = x_scale * w_scale * (x_q * w_q).sum() + (0 if bias is None else bias[o].double())
    return y


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_equal_their_formulas(shape: tuple[int, ...], dtype: torch.dtype, with_bias: bool) -> None:
    x, weight = torch.randn(shape).to(dtype), torch.randn(40, 24)
    bias = torch.randn(40) if with_bias else None
    before = x.clone()
    exact = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    for layer, expected in (
        (Int8Linear(weight, bias, dtype), int8_product(x, weight, bias)),
        (PackedLinear(weight, bias, dtype), exact),
    ):
        y = layer(x)
        assert (y.dtype, y.shape) == (dtype, (*shape[:-1], 40))
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=DTYPES[dtype] * 20)
    assert torch.equal(x, before)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("linear", [Int8Linear, PackedLinear])
def test_a_product_can_end_in_silu_or_times_a_factor(
    linear: type, shape: tuple[int, ...], dtype: torch.dtype, with_bias: bool
) -> None:
    layer = linear(torch.randn(40, 24), torch.randn(40) if with_bias else None, dtype)
    x, factor = torch.randn(shape).to(dtype), torch.randn(*shape[:-1], 40).to(dtype)
    y, before = layer(x).double(), factor.clone()
    for actual, expected in (
        (layer.silu(layer.prepare(x)), y / (1 + (-y).exp())),
        (layer.times(layer.prepare(x), factor), y * factor.double()),
    ):
        assert (actual.dtype, actual.shape) == (dtype, y.shape)
        torch.testing.assert_close(actual.double(), expected, rtol=DTYPES[dtype], atol=DTYPES[dtype])
    assert torch.equal(factor, before)


def test_bytes_are_near() -> None:
    """Half a step of 1/127 of the largest entry at most."""
    x = torch.randn(50, 64) * torch.logspace(-30, 30, 50)[:, None]
    values, scales = Int8Linear(torch.randn(8, 64), None, torch.float32).prepare(x)
    assert values.dtype == torch.uint8
    assert torch.equal((values.double() - 128).abs().amax(1), torch.full((50,), 127.0, dtype=torch.float64))
    assert (((values.double() - 128) * scales - x).abs() <= 0.501 * scales).all()


def test_zeros_and_the_largest_sums() -> None:
    rows = torch.tensor([0.0, 1.0, -1.0])[:, None].expand(3, 1024)
    y = Int8Linear(rows, None, torch.float32)(rows)
    # 1024 products of 127 * 127: their sum would overflow 16 bits 500 times.
    torch.testing.assert_close(y, torch.tensor([[0, 0, 0], [0, 1024, -1024], [0, -1024, 1024]]).float())


def test_sums_of_16_bits_are_refused() -> None:
    """VNNI is there, but oneDNN is told to do without: pairs of products would overflow."""
    program = "from modeling_trm.packed_linear_trm import int8_missing; print(int8_missing())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "oneDNN does not use AVX512-VNNI: 64 ones summed give" in shown.stdout
    assert int8_missing() is None


@pytest.mark.parametrize("linear", [Int8Linear, PackedLinear])
def test_an_output_is_that_of_its_row_alone(linear: type) -> None:
    layer = linear(torch.randn(48, 32), None, torch.float32)
    x = torch.randn(9, 32) * torch.logspace(-3, 3, 9)[:, None]
    alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(alone, layer(x), rtol=1e-5, atol=0 if linear is Int8Linear else 1e-6)
