"""What test_ssd_triton.py runs in a process of its own: the Triton kernels in Triton's interpreter, on the CPU.

TRITON_INTERPRET=1 must be set before triton is imported, and would change every kernel of the process.
"""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import silu
from triton.runtime.interpreter import InterpreterBuilder

from modeling_trm import TRMConfig, TRMModel, conv_triton_trm, mamba2_trm, ssd_triton_trm
from modeling_trm.conv_triton_trm import conv_silu, conv_silu_backward
from modeling_trm.mamba2_trm import scale, ssd_chunked, ssd_one_chunk, torch_product
from modeling_trm.ssd_triton_trm import ssd_product, ssd_product_backward, triton_product
from tests.oracles import operators as oracle

# Of the largest entry. float32: running sums reach 130 * 0.4 * 16 = 800, known to 6e-5 (1.3e-5 was seen). bfloat16: 8
# bits, rounded three times on the way, and truncated by the interpreter (a GPU rounds to the nearest).
TOLERANCES = {torch.float32: 5e-5, torch.bfloat16: 0.02}
# Blocks have 32 positions: one position, less than a block, whole blocks, and of many blocks one of two positions.
LENGTHS = [(length, groups, dtype) for length in (1, 5, 64) for groups in (1, 2) for dtype in TOLERANCES]
LENGTHS += [(130, 2, torch.float32)]


@pytest.fixture(autouse=True)
def _dot_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bfloat16 as 16-bit integers, and its dot multiplies those; a GPU multiplies the values."""
    dot = InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        a, b = (self.cast_impl(t, tl.float32) if t.dtype.scalar == tl.bfloat16 else t for t in (a, b))
        return dot(self, a, b, *others)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def ssd_inputs(length: int, groups: int, dtype: torch.dtype, head_dim: int = 3) -> list[Tensor]:
    """x, dt, A, B, C with rates from slow to fast; dt and A are float32 whatever the type of the others."""
    batch, heads, state = 2 if length < 64 else 1, 4, 5  # the interpreter takes its time
    x = torch.randn(batch, length, heads, head_dim).to(dtype)
    dt = torch.nn.functional.softplus(torch.randn(batch, length, heads) - 1)
    A = -torch.tensor([0.05, 0.5, 2.0, 16.0])
    B, C = torch.randn(2, batch, length, groups, state).to(dtype)
    return [t.requires_grad_() for t in (x, dt, A, B.clone(), C.clone())]


def with_kernels(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, product: Any = triton_product) -> Tensor:
    return ssd_one_chunk(scale(x, dt), dt * A, B, C, product)


def outputs_and_gradients(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    y = function(*inputs)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16()  # known to every type
    return [y, *torch.autograd.grad((y.double() * weight).sum(), inputs)]


def assert_close_to_scale(actual: Tensor, expected: Tensor, tolerance: float, name: str) -> None:
    scale = expected.abs().max().clamp(min=1e-30)  # at one position A has no effect: its gradient is 0
    torch.testing.assert_close(
        actual.double() / scale, expected.double() / scale, rtol=0, atol=tolerance, msg=lambda text: f"{name}: {text}"
    )


@pytest.mark.parametrize(("length", "groups", "dtype"), LENGTHS)
def test_output_and_gradients_equal_the_recurrence(length: int, groups: int, dtype: torch.dtype) -> None:
    inputs = ssd_inputs(length, groups, dtype)
    actual = outputs_and_gradients(with_kernels, inputs)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = outputs_and_gradients(oracle.ssm, wide)
    assert actual[0].dtype == dtype
    for name, ours, theirs in zip(("y", "x", "dt", "A", "B", "C"), actual, expected, strict=True):
        # The few numbers of A are sums over all positions, with cancellation.
        assert_close_to_scale(ours, theirs, (5 if name == "A" else 1) * TOLERANCES[dtype], name)


@pytest.mark.parametrize("head_dim", [1, 16, 33])
def test_any_head_size(head_dim: int) -> None:
    inputs = ssd_inputs(20, 2, torch.float32, head_dim)
    actual = outputs_and_gradients(with_kernels, inputs)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    for ours, theirs in zip(actual, outputs_and_gradients(oracle.ssm, wide), strict=True):
        assert_close_to_scale(ours, theirs, TOLERANCES[torch.float32], f"{head_dim}")


def test_the_chunked_form_uses_the_kernels_too() -> None:
    inputs, calls = ssd_inputs(45, 2, torch.float32), []
    product = lambda *t: (calls.append(t[0].shape), triton_product(*t))[1]  # noqa: E731
    actual = outputs_and_gradients(lambda x, dt, A, B, C: ssd_chunked(scale(x, dt), dt * A, B, C, 32, product), inputs)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    for ours, theirs in zip(actual, outputs_and_gradients(oracle.ssm, wide), strict=True):
        assert_close_to_scale(ours, theirs, TOLERANCES[torch.float32], "chunks of 32")
    assert calls == [(2 * 2, 2, 32, 32)]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_extreme_step_sizes_give_no_nan_and_two_runs_the_same_bits(dtype: torch.dtype) -> None:
    x, _, A, B, C = (t.detach() for t in ssd_inputs(70, 1, dtype))
    extremes = torch.tensor([0.0, 1e-30, 1e-3, 1.0, 100.0, 1e4, 1e6])
    inputs = [t.requires_grad_() for t in (x, extremes[torch.randint(len(extremes), (1, 70, 4))], A, B, C)]
    runs = [outputs_and_gradients(with_kernels, inputs) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        assert first.isfinite().all()
        assert torch.equal(first, second)


def test_what_lies_above_the_diagonal_is_not_read() -> None:
    scores, c, u = torch.randn(1, 1, 40, 40), -torch.rand(1, 2, 40).cumsum(2), torch.randn(1, 40, 2, 3)
    spoilt = scores + torch.full((40, 40), float("inf")).triu(1).nan_to_num(nan=0.0)
    results = [
        outputs_and_gradients(triton_product, [t.clone().requires_grad_() for t in (s, c, u)]) for s in (scores, spoilt)
    ]
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("width", "length", "channels"), [(1, 1, 5), (2, 16, 33), (3, 10, 130), (4, 5, 70), (4, 17, 64)]
)
def test_the_convolution_and_its_gradients_equal_the_formula(
    width: int, length: int, channels: int, dtype: torch.dtype
) -> None:
    """Of a slice of wider rows, as the mixer's in_proj leaves them."""
    rows = torch.randn(2, length, channels + 7).to(dtype).requires_grad_()
    weight, bias = torch.randn(channels, width, requires_grad=True), torch.randn(channels, requires_grad=True)
    actual = outputs_and_gradients(lambda x, w, b: conv_silu(x[..., 3 : 3 + channels], w, b), [rows, weight, bias])
    wide = [t.detach().double().requires_grad_() for t in (rows, weight, bias)]
    expected = outputs_and_gradients(
        lambda x, w, b: silu(oracle.causal_conv(x[..., 3 : 3 + channels], w[:, None], b)), wide
    )
    assert actual[0].dtype == dtype
    for name, ours, theirs in zip(("y", "x", "weight", "bias"), actual, expected, strict=True):
        assert_close_to_scale(ours, theirs, TOLERANCES[dtype], name)


def test_the_convolution_gives_the_same_bits_twice_and_keeps_what_it_promises() -> None:
    inputs = [torch.randn(s, requires_grad=True) for s in ((2, 5, 9), (9, 4), (9,))]
    for first, second in zip(*(outputs_and_gradients(conv_silu, inputs) for _ in range(2)), strict=True):
        assert torch.equal(first, second)
    torch.library.opcheck(conv_silu, tuple(inputs))
    rows, weight, bias = (t.detach() for t in inputs)
    torch.library.opcheck(conv_silu, (rows[..., 2:7], weight[2:7], bias[2:7]))
    torch.library.opcheck(conv_silu_backward, (rows, rows, weight, bias))


def mixers(**overrides: Any) -> list[torch.nn.Module]:
    """One layer twice, in PyTorch and with the kernels."""
    sizes = {"hidden_size": 16, "mamba_head_dim": 8, "mamba_d_state": 6, "mamba_n_groups": 2, **overrides}
    both = [
        TRMModel(TRMConfig(block_operators=["mamba2"], ssd_backend=b, **sizes)).stack[0] for b in ("torch", "triton")
    ]
    both[1].load_state_dict(both[0].state_dict())
    return both


def layer_results(mixer: torch.nn.Module, x: Tensor, autocast: bool) -> dict[str, Tensor]:
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = mixer(leaf)
    y.float().square().mean().backward()
    return {"y": y, "x": leaf.grad, **{name: p.grad for name, p in mixer.named_parameters()}}


@pytest.mark.parametrize(
    ("one_chunk_up_to", "autocast"), [(256, True), (16, False)], ids=["one chunk, bfloat16", "chunks, float32"]
)
def test_a_whole_layer_equals_the_pytorch_path(
    one_chunk_up_to: int, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mamba2_trm, "ONE_CHUNK_UP_TO", one_chunk_up_to)
    monkeypatch.setattr(mamba2_trm, "CHUNK", 16)
    x = torch.randn(2, 40, 16)
    expected, actual = (layer_results(mixer, x, autocast) for mixer in mixers())
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype
        # bfloat16: the PyTorch path rounds the decays as well. dt_bias and A_log are sums with cancellation.
        tolerance = 2e-5 if not autocast else 0.2 if name in ("dt_bias", "A_log") else 0.05
        assert_close_to_scale(actual[name], value, tolerance, name)


def test_mixed_types_under_autocast_are_rounded_as_in_pytorch() -> None:
    inputs = [t.detach() for t in ssd_inputs(20, 1, torch.float32)]
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = with_kernels(*inputs, torch_product), with_kernels(*inputs)
    assert actual.dtype == expected.dtype == torch.bfloat16
    assert_close_to_scale(actual, expected, TOLERANCES[torch.bfloat16], "y")


def test_a_compiled_layer_has_the_kernels_in_one_graph() -> None:
    _, mixer = mixers()
    x = torch.randn(2, 20, 16)
    expected = {name: t.detach().clone() for name, t in layer_results(mixer, x, False).items()}
    mixer.zero_grad()
    mixer.compile(fullgraph=True, backend="aot_eager")
    for name, value in layer_results(mixer, x, False).items():
        assert_close_to_scale(value, expected[name], 1e-5, name)


def test_the_operators_keep_what_they_promise() -> None:
    scores, c, u = torch.randn(2, 1, 7, 7), -torch.rand(2, 2, 7).cumsum(2), torch.randn(2, 7, 2, 3)
    torch.library.opcheck(ssd_product, tuple(t.requires_grad_() for t in (scores, c, u)))
    torch.library.opcheck(ssd_product_backward, tuple(t.detach() for t in (u, scores, c, u)))
    # Strided inputs, as the mixer's: B, C and x are parts of one tensor, c is a transposed sum.
    torch.library.opcheck(
        ssd_product,
        (scores.mT.detach(), c.detach().mT.contiguous().mT, u.detach().transpose(1, 2).contiguous().transpose(1, 2)),
    )


def test_float64_is_refused() -> None:
    with pytest.raises(TypeError, match=r"ssd_backend='triton' computes in .*float32.*, not in torch\.float64"):
        mixers()[1].double()(torch.randn(1, 4, 16, dtype=torch.float64))


def test_a_second_copy_of_the_file_has_operators_of_its_own() -> None:
    """As a checkpoint's code has beside the installed package."""
    spec = importlib.util.spec_from_file_location("copies.of-a.checkpoint", ssd_triton_trm.__file__)
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    tensors = torch.randn(1, 1, 5, 5), -torch.rand(1, 2, 5).cumsum(2), torch.randn(1, 5, 2, 3)
    results = [
        outputs_and_gradients(module.triton_product, [t.clone().requires_grad_() for t in tensors])
        for module in (ssd_triton_trm, copy, ssd_triton_trm)
    ]
    assert copy.NAMESPACE != ssd_triton_trm.NAMESPACE
    for one, two, three in zip(*results, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_this_is_the_interpreter() -> None:
    for kernel in (conv_triton_trm._conv_forward, ssd_triton_trm._ssd_forward):
        assert not isinstance(kernel, triton.JITFunction)
    assert "triton" in sys.modules and not ssd_triton_trm.NEEDS_CUDA
    assert ssd_triton_trm.triton_missing(torch.device("cpu")) is None
