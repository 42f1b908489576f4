"""Mamba-2: both SSD forms against the step-by-step recurrence and against transformers' Mamba2Mixer."""

import itertools

import pytest
import torch
from torch import Tensor
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from modeling_trm import TRMConfig, TRMModel, mamba2_trm
from modeling_trm.conversion.mamba2 import mixer_config
from modeling_trm.mamba2_trm import (
    Mamba2,
    conv_silu_at_once,
    depthwise_conv,
    scale,
    ssd,
    ssd_chunked,
    ssd_one_chunk,
    triangular_sum,
)
from tests.oracles import operators as oracle

# One position, less than a chunk, Sudoku without and with its prefix, the last length of one chunk, the first of
# several, and 30x30 with its prefix.
LENGTHS = (1, 5, 81, 97, 256, 257, 916)
FORMS = {
    "one chunk": lambda x, dt, A, B, C: ssd_one_chunk(scale(x, dt), dt * A, B, C),
    "chunks of 64": lambda x, dt, A, B, C: ssd_chunked(scale(x, dt), dt * A, B, C, 64),
    "chunks of 128": lambda x, dt, A, B, C: ssd_chunked(scale(x, dt), dt * A, B, C, 128),
    "the one chosen": lambda x, dt, A, B, C: ssd(scale(x, dt), dt * A, B, C),
}


def ssd_inputs(length: int, groups: int) -> list[Tensor]:
    """x, dt, A, B, C in float64 with rates from slow to fast: dt A between about -0.01 and -10."""
    batch, heads, head_dim, state = 2, 4, 3, 5
    x = torch.randn(batch, length, heads, head_dim, dtype=torch.float64)
    dt = torch.nn.functional.softplus(torch.randn(batch, length, heads, dtype=torch.float64) - 1)
    A = -torch.tensor([0.05, 0.5, 2.0, 16.0], dtype=torch.float64)
    B, C = torch.randn(2, batch, length, groups, state, dtype=torch.float64)
    return [t.requires_grad_() for t in (x, dt, A, B.clone(), C.clone())]


def gradients(y: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weight = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return list(torch.autograd.grad((y * weight).sum(), inputs))


def assert_close_to_scale(actual: Tensor, expected: Tensor, tolerance: float, name: str = "") -> None:
    """Every entry within `tolerance` of the tensor's largest entry."""
    scale = expected.abs().max().clamp(min=1e-30)  # at one position A has no effect: its gradient is 0
    torch.testing.assert_close(
        actual / scale, expected / scale, rtol=0, atol=tolerance, msg=lambda text: f"{name}: {text}"
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_form_of_ssd_equals_the_recurrence(length: int, groups: int) -> None:
    inputs = ssd_inputs(length, groups)
    expected = oracle.ssm(*inputs)
    expected_gradients = gradients(expected, inputs)
    for form, function in FORMS.items():
        y = function(*inputs)
        assert_close_to_scale(y, expected, 1e-12, form)
        for name, ours, theirs in zip(("x", "dt", "A", "B", "C"), gradients(y, inputs), expected_gradients):
            assert_close_to_scale(ours, theirs, 1e-11, f"{form}, gradient of {name}")


@pytest.mark.parametrize("length", LENGTHS)
def test_short_sequences_take_one_chunk_and_long_ones_chunks_of_64(length: int) -> None:
    inputs = [t.detach() for t in ssd_inputs(length, 1)]
    expected = FORMS["one chunk" if length <= 256 else "chunks of 64"](*inputs)
    assert torch.equal(FORMS["the one chosen"](*inputs), expected)


@pytest.mark.parametrize("form", FORMS)
def test_ssd_is_causal(form: str) -> None:
    inputs = [t.detach() for t in ssd_inputs(150, 1)]
    before = FORMS[form](*inputs)
    for t in (0, 1, 3, 4):  # x, dt, B, C; A has no positions
        inputs[t][:, 100:] += 1
    after = FORMS[form](*inputs)
    torch.testing.assert_close(after[:, :100], before[:, :100], rtol=0, atol=1e-13)
    assert ((after - before)[:, 100:].abs().amax(dim=(0, 2, 3)) > 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [97, 257])
def test_extreme_step_sizes_give_no_nan(length: int, dtype: torch.dtype) -> None:
    """dt of 0 to 1e6 next to each other: exp(dt A) spans 1 to exp(-1.6e7), as do differences of running sums."""
    for form, function in FORMS.items():
        x, _, A, B, C = (t.detach().to(dtype) for t in ssd_inputs(length, 1))
        extremes = torch.tensor([0.0, 1e-30, 1e-3, 1.0, 100.0, 1e4, 1e6], dtype=dtype)
        dt = extremes[torch.randint(len(extremes), (2, length, 4))]
        inputs = [t.requires_grad_() for t in (x, dt, A, B, C)]
        y = function(*inputs)
        assert y.isfinite().all(), form
        for name, gradient in zip(("x", "dt", "A", "B", "C"), torch.autograd.grad(y.square().mean(), inputs)):
            assert gradient.isfinite().all(), (form, name)


def test_float32_ssd_at_900_cells_keeps_its_precision() -> None:
    inputs = [t.detach() for t in ssd_inputs(916, 2)]
    expected = oracle.ssm(*inputs)
    for form, function in FORMS.items():
        # Running sums reach 916 * 0.4 * 16 = 6e3, known to 5e-4 in float32; what they weight is mostly near by.
        assert_close_to_scale(function(*(t.float() for t in inputs)).double(), expected, 1e-4, form)


@pytest.mark.parametrize("width", [1, 2, 4, 5])
@pytest.mark.parametrize("length", [1, 3, 9])
def test_convolution_equals_the_loop_and_conv1d(length: int, width: int) -> None:
    conv = torch.nn.Conv1d(6, 6, width, groups=6, padding=width - 1, dtype=torch.float64)
    x = torch.randn(2, length, 6, dtype=torch.float64)
    y = depthwise_conv(x, conv)
    torch.testing.assert_close(y, oracle.causal_conv(x, conv.weight, conv.bias), rtol=0, atol=1e-14)
    torch.testing.assert_close(y, conv(x.mT)[..., :length].mT, rtol=0, atol=1e-14)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 3e-2)):
        narrow = conv.to(dtype)
        at_once = conv_silu_at_once(x.to(dtype), narrow.weight.detach(), narrow.bias.detach())
        assert at_once.dtype == dtype
        torch.testing.assert_close(at_once.double(), y / (1 + (-y).exp()), rtol=tolerance, atol=tolerance)


# --- transformers' Mamba2Mixer --------------------------------------------------------------------------------------


def mixer_and_ours(**sizes: int) -> tuple[Mamba2Mixer, Mamba2]:
    """Both with the same weights, none of them at its starting value."""
    config = TRMConfig(block_operators=["mamba2"], mamba_d_state=12, mamba_head_dim=16, hidden_size=32, **sizes)
    theirs = Mamba2Mixer(mixer_config(config), layer_idx=0)
    ours = TRMModel(config).stack[0]
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


def test_parameter_names_and_shapes_are_those_of_mamba2mixer() -> None:
    theirs, ours = mixer_and_ours()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("length", LENGTHS)
def test_equals_mamba2mixer_with_copied_weights(length: int) -> None:
    theirs, ours = mixer_and_ours()
    x = torch.randn(2, length, 32)
    results = []
    for mixer in (theirs, ours):
        leaf = x.clone().requires_grad_()
        y = mixer(leaf)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        (y * weight).sum().backward()
        results.append({"y": y, "x": leaf.grad, **{name: p.grad for name, p in mixer.named_parameters()}})
    expected, actual = results
    for name in expected:
        # float32 on both sides: Mamba2Mixer casts to it inside, whatever the model's dtype.
        # The few numbers of dt_bias and A_log sum over all positions, with cancellation: 8e-5 was seen, of other draws.
        assert_close_to_scale(actual[name], expected[name], 3e-4, name)


# --- low precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [97, 257])
def test_bf16_autocast_is_close_to_float32(length: int) -> None:
    _, ours = mixer_and_ours()
    x = torch.randn(4, length, 32)
    results = []
    for enabled in (False, True):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = ours(leaf)
        assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
        y.float().square().mean().backward()
        results.append(
            {"y": y.float(), "x": leaf.grad, **{name: p.grad.clone() for name, p in ours.named_parameters()}}
        )
        ours.zero_grad()
    for name, expected in results[0].items():
        # bfloat16 carries 8 bits (0.4 %); a handful of roundings in a row stay within 3 % of the root mean square. The
        # few numbers of dt_bias and A_log are sums with cancellation: 9 % was seen.
        error = (results[1][name] - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert error < (0.2 if name in ("dt_bias", "A_log") else 0.03), f"{name}: {error:.3f}"


def test_step_sizes_and_rates_reach_the_scan_in_float32_under_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias of -7 has a spacing of 0.03 in bf16: what the input adds to it would be lost."""
    _, ours = mixer_and_ours()
    seen: list[Tensor] = []
    monkeypatch.setattr(mamba2_trm, "ssd", lambda *inputs: (seen.extend(inputs), ssd(*inputs))[1])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        ours.dt_bias.fill_(-7)
        x = torch.randn(2, 9, 32)
        ours(x)
        dt_raw = ours.in_proj(x)[..., -ours.n_heads :].float()
    u, decay, B, C, _ = seen
    assert u.dtype == B.dtype == C.dtype == torch.bfloat16
    assert decay.dtype == torch.float32
    torch.testing.assert_close(decay, torch.nn.functional.softplus(dt_raw - 7) * -ours.A_log.exp(), rtol=1e-6, atol=0)


def test_no_form_depends_on_what_lies_in_uninitialised_memory() -> None:
    assert torch.empty(3).isnan().all()  # the guard that conftest sets up
    for length, function in itertools.product((5, 70), FORMS.values()):
        assert function(*ssd_inputs(length, 1)).isfinite().all()


@pytest.mark.parametrize("dim", [1, 2])
def test_a_running_sum_as_a_product_equals_cumsum(dim: int) -> None:
    """What CUDA computes where deterministic algorithms are asked for; under autocast too."""
    x = torch.randn(2, 30, 40, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        actual = triangular_sum(x, dim)
    expected = x.double().cumsum(dim)
    assert actual.dtype == x.dtype
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)
    weight = torch.randn_like(x)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (actual, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
