"""Which Mamba-2 path runs: chosen per call by the tensor's device, forced by the config, one warning for the slow one.

The compiled kernels need a GPU (test_cuda.py); here naive stand-ins with their signatures check what is passed.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling_trm import TRMConfig, TRMForGridReasoning, TRMModel, mamba2_trm, ssd_cuda_trm
from modeling_trm.mamba2_trm import Mamba2
from tests.oracles import operators as oracle

# in_proj has 2 * 128 + 2 * 16 + 8 = 296 outputs, a multiple of 8, so the kernels can take this model.
SIZES = {"hidden_size": 64, "mamba_head_dim": 16, "mamba_d_state": 16, "block_operators": ["mamba2"]}
ON_CPU, ON_GPU = (
    SimpleNamespace(is_cuda=cuda, device=torch.device("cuda" if cuda else "cpu")) for cuda in (False, True)
)


def silu_conv(x_BCL: Tensor, weight_CK: Tensor, bias_C: Tensor) -> Tensor:
    y_BLC = oracle.causal_conv(x_BCL.mT, weight_CK[:, None], bias_C)
    return (y_BLC * oracle.sigmoid(y_BLC)).mT


def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor) -> Tensor:
    return oracle.ssm(x, torch.log1p(torch.exp(dt + dt_bias)), A, B, C) + D[:, None] * x


def gradients(function: Callable[..., Tensor], inputs: list[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
    """In a thread of its own: the body of an operation of torch.library runs below autograd."""

    def compute() -> tuple[Tensor, ...]:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        return torch.autograd.grad(function(*leaves), leaves, dy.detach())

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(compute).result()


def causal_conv1d_fwd_function(
    x: Tensor, weight: Tensor, bias: Tensor, seq_idx: None, initial_states: None, final_states: None, silu: bool
) -> Tensor:
    """causal_conv1d.cpp_functions.causal_conv1d_fwd_function on its documented layout."""
    assert weight.ndim == 2 and x.stride(1) == 1 and silu
    assert weight.dtype == bias.dtype == x.dtype
    return silu_conv(x, weight, bias)


def causal_conv1d_bwd_function(
    x: Tensor, weight: Tensor, bias: Tensor, dout: Tensor,
    seq_idx: None, initial_states: None, dfinal_states: None, dx: None, return_dinitial_states: bool, silu: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    assert x.stride(1) == dout.stride(1) == 1 and silu and not return_dinitial_states
    return *gradients(silu_conv, [x, weight, bias], dout), None


def _mamba_chunk_scan_combined_fwd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int, *, D: Tensor, dt_bias: Tensor, dt_softplus: bool
) -> tuple[Tensor | None, ...]:
    """mamba_ssm.ops.triton.ssd_combined._mamba_chunk_scan_combined_fwd, as far as it is called."""
    assert chunk in (64, 128, 256) and dt_softplus
    return scan(x, dt, A, B, C, D, dt_bias), *[None] * 5  # what its backward pass computes again


def _mamba_chunk_scan_combined_bwd(
    dout: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, out: Tensor, chunk: int,
    *, D: Tensor, dt_bias: Tensor, dt_softplus: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    assert chunk in (64, 128, 256) and dt_softplus
    torch.testing.assert_close(out, scan(x, dt, A, B, C, D, dt_bias))
    dx, ddt, dA, dB, dC, dD, ddt_bias = gradients(scan, [x, dt, A, B, C, D, dt_bias], dout)
    return dx, ddt, dA, dB, dC, dD, None, ddt_bias, None


STAND_INS = (
    causal_conv1d_fwd_function,
    causal_conv1d_bwd_function,
    _mamba_chunk_scan_combined_fwd,
    _mamba_chunk_scan_combined_bwd,
)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if both packages could be imported."""
    monkeypatch.setattr(mamba2_trm, "CUDA_KERNELS_MISSING", None)
    for function in STAND_INS:
        monkeypatch.setattr(ssd_cuda_trm, function.__name__, function, raising=False)


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba2_trm, "CUDA_KERNELS_MISSING", "No module named 'causal_conv1d'")


@pytest.fixture
def warnings_seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the module's logger warns of; warning_once remembers its messages for the life of the process."""
    seen: list[str] = []
    monkeypatch.setattr(mamba2_trm.logger, "warning", seen.append)
    type(mamba2_trm.logger).warning_once.cache_clear()
    return seen


def operator(backend: str, **overrides: Any) -> Mamba2:
    return TRMModel(TRMConfig(**{**SIZES, "ssd_backend": backend, **overrides})).stack[0]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("backend", "tensor", "cuda"),
    [
        ("auto", ON_GPU, True),
        ("auto", ON_CPU, False),
        ("torch", ON_GPU, False),
        ("torch", ON_CPU, False),
        ("cuda", ON_GPU, True),
    ],
)
def test_the_path_follows_the_tensors_device(backend: str, tensor: Any, cuda: bool, warnings_seen: list[str]) -> None:
    mixer = operator(backend)
    mixer.prepare(tensor)
    assert mixer._choose_mix(tensor) == (mixer._mix_cuda if cuda else mixer._mix_torch)
    assert warnings_seen == []


@pytest.mark.parametrize("missing", [None, "No module named 'causal_conv1d'"])
@pytest.mark.parametrize("tensor", [ON_CPU, ON_GPU], ids=["cpu", "gpu"])
def test_triton_is_taken_when_asked_for_and_not_otherwise(
    tensor: Any, missing: str | None, warnings_seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mamba2_trm, "CUDA_KERNELS_MISSING", missing)
    forced, auto = operator("triton"), operator("auto")
    forced.prepare(tensor)
    assert forced._choose_mix(tensor) == forced._mix_triton
    assert warnings_seen == []
    assert auto._choose_mix(tensor) != auto._mix_triton


@pytest.mark.usefixtures("no_kernels")
def test_one_warning_when_a_gpu_takes_the_slow_path(warnings_seen: list[str]) -> None:
    first, second = operator("auto"), operator("auto")
    for _ in range(3):
        assert first.prepare(ON_GPU) == second.prepare(ON_GPU) == ()
        assert first._choose_mix(ON_GPU) == first._mix_torch
        assert second._choose_mix(ON_GPU) == second._mix_torch
    assert len(warnings_seen) == 1
    assert "causal_conv1d" in warnings_seen[0]
    assert "pip install" in warnings_seen[0]
    assert "ssd_backend='torch'" in warnings_seen[0]


@pytest.mark.usefixtures("no_kernels")
def test_no_warning_where_the_torch_path_is_the_right_one(warnings_seen: list[str]) -> None:
    for backend, tensor in (("auto", ON_CPU), ("torch", ON_GPU)):
        mixer = operator(backend)
        mixer.prepare(tensor)
        assert mixer._choose_mix(tensor) == mixer._mix_torch
    assert warnings_seen == []


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("sizes", [{"mamba_d_state": 15}, {"mamba_d_conv": 5}], ids=str)
def test_sizes_that_the_kernels_cannot_take_run_in_torch(sizes: dict[str, int], warnings_seen: list[str]) -> None:
    mixer = operator("auto", **sizes)
    mixer.prepare(ON_GPU)
    assert mixer._choose_mix(ON_GPU) == mixer._mix_torch
    assert len(warnings_seen) == 1
    assert str(*sizes.values()) in warnings_seen[0] or str(mixer.in_proj.out_features) in warnings_seen[0]


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize(("tensor", "reason"), [(ON_GPU, "causal_conv1d")])
def test_forcing_missing_kernels_is_an_error(tensor: Any, reason: str) -> None:
    with pytest.raises(RuntimeError, match=f"ssd_backend='cuda' cannot be used.*{reason}.*pip install"):
        operator("cuda")._choose_mix(tensor)


@pytest.mark.usefixtures("kernels")
def test_forcing_the_kernels_on_a_cpu_tensor_is_an_error(tiny_model: Callable[..., TRMForGridReasoning]) -> None:
    model = tiny_model("tr-mamba2attn", ssd_backend="cuda", hidden_size=64, mamba_d_state=16)
    with pytest.raises(RuntimeError, match="ssd_backend='cuda' cannot be used: the tensor is on cpu"):
        model(torch.zeros(1, 16, dtype=torch.long))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_kernels_are_called_with_what_they_expect(
    groups: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same output and gradients through the stand-ins as through our own PyTorch path; compiled, all in one graph."""
    torch._dynamo.reset()
    mixer = operator("auto", mamba_n_groups=groups).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    results = []
    for use_kernels in (False, True):
        mix = mixer._mix_cuda if use_kernels else mixer._mix_torch
        monkeypatch.setattr(mixer, "_choose_mix", lambda x, mix=mix: mix)
        if use_kernels and compiled:
            mixer.compile(fullgraph=True, backend="aot_eager")
        x = torch.randn(2, 9, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = mixer(x)
        y.square().sum().backward()
        results.append({"y": y, "x": x.grad, **{name: p.grad.clone() for name, p in mixer.named_parameters()}})
        mixer.zero_grad()
    for name, value in results[0].items():
        # A is handed to the kernels in float32, as they want it.
        torch.testing.assert_close(
            results[1][name], value, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.usefixtures("kernels")
def test_the_operations_keep_what_they_promise() -> None:
    """In float64, and with the strides of the mixer's parts of one tensor."""
    random = partial(torch.randn, dtype=torch.float64)
    conv = [random(2, 9, 14)[..., :8], random(8, 4), random(8)]
    x, dt, B, C = random(2, 9, 4, 6)[..., :3], random(2, 9, 4), random(2, 9, 2, 5), random(2, 9, 2, 5)
    ssm = [x, dt, -torch.rand(4, dtype=torch.float64), B, C, random(4), random(4)]
    for operation, inputs in ((ssd_cuda_trm.conv_silu, conv), (ssd_cuda_trm.ssd_scan, ssm)):
        torch.library.opcheck(operation, tuple(tensor.requires_grad_() for tensor in inputs))
        assert torch.autograd.gradcheck(operation, tuple(inputs))


@pytest.mark.usefixtures("kernels")
def test_a_model_may_move_between_devices() -> None:
    mixer = operator("auto")
    taken = [mixer._choose_mix(tensor) for tensor in (ON_CPU, ON_GPU, ON_CPU)]
    assert taken == [mixer._mix_torch, mixer._mix_cuda, mixer._mix_torch]
