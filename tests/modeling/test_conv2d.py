"""conv2d on a CPU in bfloat16, whose weight gradient is computed in a way of its own."""

from typing import Any

import pytest
import torch
from torch import Tensor

from modeling_trm import TRMConfig
from modeling_trm.conv2d_trm import Conv2d
from tests.oracles.operators import conv2d


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_its_gradients_are_those_of_the_formula_in_float64(kernel: int) -> None:
    """Of the same rounded numbers, a grid that is not square, behind a prefix."""
    config = TRMConfig(block_operators=["conv2d"], seq_len=42, grid_width=6, hidden_size=16, conv2d_kernel=kernel)
    operator = Conv2d(config).bfloat16()
    x = torch.randn(2, config.num_positions, 16, dtype=torch.bfloat16, requires_grad=True)
    wide = {name: parameter.detach().double().requires_grad_() for name, parameter in operator.named_parameters()}
    wide_x = x.detach().double().requires_grad_()
    y, expected = operator(x), conv2d(wide, config, wide_x)
    assert "_DepthwiseConvBackward" in {type(node).__name__ for node in ancestors(y)}
    weight = torch.randn(y.shape).bfloat16()
    y.backward(weight)
    expected.backward(weight.double())
    for found, wanted in zip((x, *operator.parameters()), (wide_x, *wide.values()), strict=True):
        assert (found.grad.double() - wanted.grad).norm() < 0.02 * wanted.grad.norm()


def ancestors(output: Tensor) -> set[Any]:
    """The nodes of autograd that lead to a tensor."""
    found: set[Any] = set()
    todo = [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in found:
            found.add(node)
            todo += [other for other, _ in node.next_functions]
    return found
