"""On a GPU: every preset agrees with the CPU in float32 and bf16, the kernels of Mamba-2 with PyTorch's path."""

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from modeling_trm import PRESETS, TRMConfig, TRMForGridReasoning, TRMModel, mamba2_trm
from modeling_trm.layers_trm import Operator

pytestmark = pytest.mark.cuda

# Sizes that the compiled kernels take: heads of 16, states of 16, 2 * 128 + 2 * 16 + 8 = 296 outputs of in_proj.
SIZES = {"hidden_size": 64, "mamba_d_state": 16, "mamba_head_dim": 16}
# Few numbers whose gradients are sums over all positions, with cancellation: two right paths differ by up to 0.06 in
# bfloat16, by 1.4e-4 in float32 (seen on an H200).
CANCELLING = ("A_log", "dt_bias")
needs_kernels = pytest.mark.skipif(
    mamba2_trm.CUDA_KERNELS_MISSING is not None, reason=f"the kernels are missing: {mamba2_trm.CUDA_KERNELS_MISSING}"
)
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Of the root mean squares; the error itself where nothing is expected (the decay's gradient at one position)."""
    actual, expected = (t.detach().double().cpu() for t in (actual, expected))
    scale = expected.square().mean().sqrt().item()
    return (actual - expected).square().mean().sqrt().item() / (scale or 1.0)


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """All that is too far is named in one line, with its error; of CANCELLING three times as much is allowed."""
    errors = {name: relative_error(actual[name], value) for name, value in expected.items()}
    too_far = {
        name: f"{error:.1e}"
        for name, error in errors.items()
        if not error < tolerance * (3 if name.endswith(CANCELLING) else 1)
    }
    assert not too_far, f"{too_far}, allowed {tolerance}"


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


@pytest.mark.parametrize("backend", ["torch", "auto", pytest.param("triton", marks=needs_triton)])
@pytest.mark.parametrize("preset", PRESETS)
def test_float32_agrees_with_the_cpu(preset: str, backend: str, tiny_model, tiny_batch) -> None:
    model = tiny_model(preset, ssd_backend="torch", **SIZES)
    batch = tiny_batch(model.config)
    expected = step(model, batch, "cpu", torch.float32)
    model.set_kernels(ssd_backend=backend)
    actual = step(model, batch, "cuda", torch.float32)
    # mamba_ssm's kernels multiply in TF32 (10 bits), everything else in float32.
    assert_near(actual, expected, 5e-4 if backend != "auto" or mamba2_trm.CUDA_KERNELS_MISSING else 2e-2)


@pytest.mark.parametrize("preset", PRESETS)
def test_bf16_trains_as_near_to_float32_as_on_the_cpu(preset: str, tiny_model, tiny_batch) -> None:
    """Untrained models that mix positions by an MLP or Mamba-2 multiply bfloat16's rounding up to 0.3 in two steps.

    Twice the CPU's error: rounding otherwise, by a thousandth of every weight, moves it by up to a factor of 2.1
    (tr-mamba3attn, eight draws).
    """
    model = tiny_model(preset, **SIZES)
    batch = tiny_batch(model.config, 16)
    exact, rounded = (step(model, batch, "cpu", dtype) for dtype in (torch.float32, torch.bfloat16))
    actual = step(model, batch, "cuda", torch.bfloat16)
    allowed = 2 * relative_error(rounded["logits"], exact["logits"]) + 0.02
    assert relative_error(actual["logits"], exact["logits"]) < allowed
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


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # asked by dynamo
def test_compiled_stack_agrees_with_eager(tiny_model, tiny_batch) -> None:
    model = tiny_model("tr-mamba2mlpt", ssd_backend="torch", **SIZES)
    batch = tiny_batch(model.config)
    eager = step(model, batch, "cuda", torch.float32)
    model.model.stack.compile()
    compiled = step(model, batch, "cuda", torch.float32)
    assert_near(compiled, eager, 1e-3)


def layer(name: str, **overrides: object) -> Operator:
    sizes = {"hidden_size": 128, "mamba_d_state": 32, "mamba_head_dim": 32, **overrides}
    return TRMModel(TRMConfig(block_operators=[name], **sizes)).stack[0].cuda()


def layer_results(operator: Operator, x: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Output and gradients; bf16 by autocast over float32 weights."""
    operator.zero_grad()
    leaf = x.clone().requires_grad_()
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = operator(leaf)
    y.float().square().mean().backward()
    return {"y": y, "x": leaf.grad, **{name: p.grad.clone() for name, p in operator.named_parameters()}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 97, 257, 916])
@pytest.mark.parametrize(
    ("backend", "groups"),
    [
        pytest.param("cuda", 1, marks=needs_kernels),
        pytest.param("triton", 1, marks=needs_triton),
        pytest.param("triton", 2, marks=needs_triton),
    ],
)
def test_kernels_agree_with_the_pytorch_path(backend: str, groups: int, length: int, dtype: torch.dtype) -> None:
    torch_path, kernels = (layer("mamba2", ssd_backend=name, mamba_n_groups=groups) for name in ("torch", backend))
    kernels.load_state_dict(torch_path.state_dict())
    x = torch.randn(4, length, 128, device="cuda")
    expected, actual = (layer_results(mixer, x, dtype) for mixer in (torch_path, kernels))
    # mamba_ssm's kernels multiply in TF32, ours in float32.
    tolerance = 6e-2 if dtype == torch.bfloat16 else 2e-2 if backend == "cuda" else 1e-3
    assert_near(actual, expected, tolerance)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [97, 916])
def test_the_triton_kernels_give_the_same_bits_twice_and_compile(length: int, dtype: torch.dtype) -> None:
    mixer, x = layer("mamba2", ssd_backend="triton"), torch.randn(4, length, 128, device="cuda")
    first, second = (layer_results(mixer, x, dtype) for _ in range(2))
    for name, value in first.items():
        if name != "conv1d.bias":  # sums of PyTorch's own
            assert torch.equal(second[name], value), name
    mixer.compile(fullgraph=True)
    assert_near(layer_results(mixer, x, dtype), first, 1e-3 if dtype == torch.float32 else 6e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", [{}, {"mlp_gate": "normalized", "mlp_gate_bias": 0.5}], ids=str)
@pytest.mark.parametrize("cells", [64, 81, 900])
def test_mlp_t_from_the_left_agrees_with_the_transposed_layer(
    cells: int, gate: dict[str, object], dtype: torch.dtype
) -> None:
    left, transposed = (layer("mlp_t", seq_len=cells, mlp_t_backend=name, **gate) for name in ("auto", "torch"))
    transposed.load_state_dict(left.state_dict())
    x = torch.randn(4, cells + 16, 128, device="cuda")
    expected, actual = layer_results(transposed, x, dtype), layer_results(left, x, dtype)
    left.compile(fullgraph=True)
    for found in (actual, layer_results(left, x, dtype)):
        assert_near(found, expected, 1e-4 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize("backend", ["cudnn", "flash", "efficient", "math"])
@pytest.mark.parametrize("length", [97, 916])
def test_attention_backends_agree(length: int, backend: str) -> None:
    chosen, auto = (layer("attention", attention_backend=name) for name in (backend, "auto"))
    chosen.load_state_dict(auto.state_dict())
    x = torch.randn(4, length, 128, device="cuda")
    expected, actual = (layer_results(operator, x, torch.bfloat16) for operator in (auto, chosen))
    chosen.compile(fullgraph=True)
    for found in (actual, layer_results(chosen, x, torch.bfloat16)):
        assert_near(found, expected, 3e-2)


@pytest.mark.parametrize("backend", ["cudnn", "flash"])
def test_attention_in_float32_is_refused_where_it_has_no_kernel(backend: str) -> None:
    with pytest.raises(RuntimeError, match=f"attention_backend='{backend}' cannot be used: .*torch.float32"):
        layer("attention", attention_backend=backend)(torch.randn(1, 97, 128, device="cuda"))
