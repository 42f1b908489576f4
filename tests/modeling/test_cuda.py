"""On a GPU: every preset agrees with the CPU in float32 and bf16, the compiled Mamba-2 kernels with PyTorch's path."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modeling_trm import PRESETS, TRMConfig, TRMForGridReasoning, TRMModel, mamba2_trm

pytestmark = pytest.mark.cuda

# Sizes that the compiled kernels take: heads of 16, states of 16, 2 * 128 + 2 * 16 + 8 = 296 outputs of in_proj.
SIZES = {"hidden_size": 64, "mamba_d_state": 16, "mamba_head_dim": 16}
needs_kernels = pytest.mark.skipif(
    mamba2_trm.CUDA_KERNELS_MISSING is not None, reason=f"the kernels are missing: {mamba2_trm.CUDA_KERNELS_MISSING}"
)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    difference = (actual.detach().double().cpu() - expected.detach().double().cpu()).square().mean().sqrt()
    return (difference / expected.detach().double().cpu().square().mean().sqrt()).item()


def step(model: TRMForGridReasoning, batch: dict[str, Tensor], device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Logits and gradients of two carried steps on a device; bf16 by autocast over float32 weights."""
    model = model.to(device)
    model.zero_grad()
    state = None
    for _ in range(2):
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = model(**{name: value.to(device) for name, value in batch.items()}, state=state)
        out.loss.backward()
        state = out.state
    found = {name: p.grad.to_dense().cpu().clone() for name, p in model.named_parameters()}
    return {"logits": out.logits.cpu(), "halt_logits": out.halt_logits.cpu(), **found}


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("preset", PRESETS)
def test_float32_agrees_with_the_cpu(preset: str, backend: str, tiny_model, tiny_batch) -> None:
    model = tiny_model(preset, ssd_backend=backend, **SIZES)
    batch = tiny_batch(model.config)
    expected, actual = (step(model, batch, device, torch.float32) for device in ("cpu", "cuda"))
    for name, value in expected.items():
        # The Triton kernels multiply in TF32 (10 bits), everything else in float32.
        tolerance = 1e-4 if backend == "torch" or mamba2_trm.CUDA_KERNELS_MISSING else 2e-2
        assert relative_error(actual[name], value) < tolerance, name


@pytest.mark.parametrize("preset", PRESETS)
def test_bf16_trains_near_float32(preset: str, tiny_model, tiny_batch) -> None:
    model = tiny_model(preset, **SIZES)
    batch = tiny_batch(model.config, 16)
    expected, actual = step(model, batch, "cpu", torch.float32), step(model, batch, "cuda", torch.bfloat16)
    assert relative_error(actual["logits"], expected["logits"]) < 0.1
    for name, value in actual.items():
        assert value.isfinite().all(), name
        assert value.abs().max() > 0, name


@pytest.mark.parametrize("preset", PRESETS)
def test_solve_gives_the_same_answers_as_on_the_cpu(preset: str, tiny_model, tiny_batch) -> None:
    model = tiny_model(preset, ssd_backend="torch", **SIZES).double()
    ids = tiny_batch(model.config, 8)["input_ids"]
    expected = model.solve(ids, halt=True)
    actual = model.cuda().solve(ids.cuda(), halt=True)
    assert actual.answers.device.type == "cuda"
    assert torch.equal(actual.answers.cpu(), expected.answers)
    assert torch.equal(actual.steps.cpu(), expected.steps)


def test_compiled_stack_agrees_with_eager(tiny_model, tiny_batch) -> None:
    model = tiny_model("tr-mamba2mlpt", ssd_backend="torch", **SIZES)
    batch = tiny_batch(model.config)
    eager = step(model, batch, "cuda", torch.float32)
    model.model.stack.compile()
    compiled = step(model, batch, "cuda", torch.float32)
    for name, value in eager.items():
        assert relative_error(compiled[name], value) < 1e-3, name


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 97, 257, 916])
def test_compiled_kernels_agree_with_the_pytorch_path(length: int, dtype: torch.dtype) -> None:
    make: Callable[[str], TRMModel] = lambda backend: TRMModel(  # noqa: E731
        TRMConfig(block_operators=["mamba2"], hidden_size=128, mamba_d_state=32, mamba_head_dim=32, ssd_backend=backend)
    )
    torch_path, kernels = make("torch").stack[0].cuda(), make("cuda").stack[0].cuda()
    kernels.load_state_dict(torch_path.state_dict())
    x = torch.randn(4, length, 128, device="cuda")
    results = []
    for mixer in (torch_path, kernels):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = mixer(leaf)
        y.float().square().mean().backward()
        results.append({"y": y, "x": leaf.grad, **{name: p.grad for name, p in mixer.named_parameters()}})
    for name, value in results[0].items():
        assert relative_error(results[1][name], value) < (2e-2 if dtype == torch.float32 else 6e-2), name
