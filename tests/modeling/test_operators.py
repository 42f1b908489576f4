"""Every registered operator: its float64 oracle, outputs and gradients, and the contract that the stack relies on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.parametrizations import weight_norm

from modeling_trm import OPERATORS, TRMConfig, TRMForGridReasoning, TRMModel
from modeling_trm.attention_trm import MOST_POSITIONS, attend
from modeling_trm.layers_trm import Operator, apply_rotary, rms_norm, rms_norm_over, rotary_tables
from modeling_trm.mlp_trm import left_multiply
from modeling_trm.operators_trm import Stack
from tests.conftest import alone
from tests.oracles import operators as oracle

VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {},
    "no rotary embedding": {"position_embedding": "none"},
    "normalised gate with bias": {"mlp_gate": "normalized", "mlp_gate_bias": 1.0},
    "swiglu with bias, wider": {"mlp_gate_bias": -0.5, "mlp_expansion": 6},
    "two groups, short convolution": {"mamba_n_groups": 2, "mamba_d_conv": 2},
    "the whole state turned, wider convolutions": {
        "mamba_rope_fraction": 1,
        "delta_d_conv": 2,
        "mlp_conv_kernel": 3,
        "conv2d_kernel": 5,
    },
    "mean of the fields": {"symbol_mixing": "mean"},
    "rows and columns": {"position_embedding": "rope2d"},
    "boxes too": {"axial_lines": ["boxes", "columns", "rows"], "axial_heads": 1, "axial_head_dim": 4},
    "no prefix, one attention head": {"puzzle_prefix_len": 0, "num_puzzles": 1, "num_attention_heads": 1},
}
ATOL = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 0.1}  # bfloat16: 8 bits, through three projections


def build(name: str, config: TRMConfig, dtype: torch.dtype = torch.float64) -> Operator:
    """The operator as the model initialises it, each parameter moved off its starting value (D = 1, norm = 1, ...)."""
    operator = TRMModel(config).stack[0].to(dtype)
    assert type(operator) is OPERATORS[name]
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return operator


def random_input(config: TRMConfig, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, *config.latent_shape, dtype=dtype)


def gradients(output: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Gradients of one fixed random projection of the output, which every entry of it takes part in."""
    generator = torch.Generator(output.device).manual_seed(1)
    weight = torch.randn(output.shape, dtype=torch.float64, generator=generator, device=output.device)
    return list(torch.autograd.grad((output.double() * weight).sum(), inputs))


# --- the oracle -----------------------------------------------------------------------------------------------------


def test_every_operator_has_an_oracle() -> None:
    assert set(oracle.ORACLES) == set(OPERATORS)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", OPERATORS)
def test_output_and_gradients_equal_the_oracle(name: str, variant: str, tiny_config: Callable[..., TRMConfig]) -> None:
    config = tiny_config("trm-attn", **alone(name), **VARIANTS[variant])
    operator, x = build(name, config), random_input(config).requires_grad_()
    weights = dict(operator.named_parameters())
    expected = oracle.ORACLES[name](weights, config, x)
    actual = operator(x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=ATOL[torch.float64])
    names, tensors = zip(*weights.items())
    for key, ours, theirs in zip(
        ("x", *names), gradients(actual, x, *tensors), gradients(expected, x, *tensors), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("preset_operators", [[name, other] for name in OPERATORS for other in ("mlp", "mlp_t")])
def test_stack_normalises_after_every_sublayer_over_that_operators_axis(
    preset_operators: list[str], tiny_config: Callable[..., TRMConfig]
) -> None:
    fields = "symbols" in preset_operators
    config = tiny_config("trm-attn", block_operators=preset_operators, symbol_fields=fields)
    stack, h = TRMModel(config).stack.double(), random_input(config)
    expected = oracle.stack(dict(stack.named_parameters()), config, h)
    torch.testing.assert_close(stack(h), expected, rtol=0, atol=ATOL[torch.float64])
    # The square mean over the last operator's axis is 1, over the other axis it is not.
    axis = oracle.NORM_AXIS.get(preset_operators[-1], 2)
    squares = stack(h).square().flatten(0, -3)
    torch.testing.assert_close(squares.mean(axis), torch.ones_like(squares.mean(axis)), rtol=0, atol=1e-3)
    assert (squares.mean(3 - axis) - 1).abs().max() > 0.1


@pytest.mark.parametrize("length", [1, 97, 916])
def test_rotary_tables_are_those_of_the_paper_at_the_lengths_in_use(length: int) -> None:
    x = torch.randn(1, 1, length, 16)
    expected = oracle.rotate(x[0, 0].double(), 10000.0)
    # float32 angles: 916 radians are known to 916 * 2^-24 = 5e-5; float64 to 1e-13.
    for dtype, tolerance in ((torch.float32, 3e-4), (torch.float64, 1e-12), (torch.bfloat16, 4e-2)):
        actual = apply_rotary(x.to(dtype), *rotary_tables(length, 16, 10000.0, like=x.to(dtype)))
        assert actual.dtype == dtype
        torch.testing.assert_close(actual[0, 0].double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("norm", "dtype"),
    [*((rms_norm, dtype) for dtype in ATOL), (rms_norm_over, torch.float32), (rms_norm_over, torch.bfloat16)],
)
@pytest.mark.parametrize("dim", [-1, -2])
def test_rms_norm(dim: int, norm: Callable[..., Tensor], dtype: torch.dtype) -> None:
    x = (3 * torch.randn(2, 5, 7, dtype=torch.float64)).to(dtype)
    actual = norm(x.clone(), 1e-5, dim)
    assert actual.dtype == dtype
    expected = oracle.rms_norm(x.double(), dim, 1e-5)
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 8e-3}[dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


# --- the contract: what a user's own operator has to keep, too ------------------------------------------------------


def check_shape_and_dtype(name: str, config: TRMConfig) -> None:
    for dtype in ATOL:
        x = random_input(config, dtype=dtype)
        y = build(name, config, dtype)(x)
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert y.isfinite().all()


def check_norm_axis(name: str, config: TRMConfig) -> None:
    assert OPERATORS[name].norm_dim in (-1, -2)


def check_every_parameter_gets_a_gradient(name: str, config: TRMConfig) -> None:
    operator, x = build(name, config), random_input(config).requires_grad_()
    parameters = dict(operator.named_parameters())
    for key, gradient in zip(("x", *parameters), gradients(operator(x), x, *parameters.values()), strict=True):
        assert gradient.isfinite().all(), key
        assert gradient.abs().max() > 0, key


def check_inputs_are_not_mutated(name: str, config: TRMConfig) -> None:
    operator, x = build(name, config), random_input(config)
    before = x.clone()
    operator(x)
    assert torch.equal(x, before)


def check_repeatable_and_stateless(name: str, config: TRMConfig) -> None:
    operator, x = build(name, config), random_input(config)
    first = operator(x)
    operator(random_input(config))
    assert torch.equal(operator(x), first)


def check_prepared_and_alone_give_the_same_bits(name: str, config: TRMConfig) -> None:
    operator, x = build(name, config), random_input(config)
    prepared = operator.prepare(torch.zeros_like(x))  # it reads no values
    assert torch.equal(operator(x, *prepared), operator(x))


def check_rows_of_a_batch_are_independent(name: str, config: TRMConfig) -> None:
    operator, x = build(name, config), random_input(config, batch=3)
    alone = torch.cat([operator(row[None]) for row in x])
    torch.testing.assert_close(operator(x), alone, rtol=0, atol=ATOL[torch.float64])


def check_low_precision_stays_near_float64(name: str, config: TRMConfig) -> None:
    operator, x = build(name, config), random_input(config)
    expected = operator(x)
    for dtype in (torch.float32, torch.bfloat16):
        actual = operator.to(dtype)(x.to(dtype)).double()
        # Root mean square error against the output's own scale: 2^-24 and 2^-8 with some growth.
        error = (actual - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert error < {torch.float32: 3e-6, torch.bfloat16: 0.03}[dtype]
        operator.double()


def check_stack_and_model_run(name: str, config: TRMConfig) -> None:
    assert Stack(config)[0].__class__ is OPERATORS[name]
    model = TRMForGridReasoning(config)
    ids = torch.randint(config.vocab_size, (2, config.seq_len))
    out = model(ids, labels=ids)
    out.loss.backward()
    assert out.loss.isfinite()


CONTRACT = [
    check_shape_and_dtype,
    check_norm_axis,
    check_every_parameter_gets_a_gradient,
    check_inputs_are_not_mutated,
    check_repeatable_and_stateless,
    check_prepared_and_alone_give_the_same_bits,
    check_rows_of_a_batch_are_independent,
    check_low_precision_stays_near_float64,
    check_stack_and_model_run,
]


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", OPERATORS)
def test_contract(name: str, check: Callable[[str, TRMConfig], None], tiny_config: Callable[..., TRMConfig]) -> None:
    check(name, tiny_config("trm-attn", **alone(name)))


class NeighbourMean(Operator):
    """A user's own operator, with a parameter outside any Linear: a scaled mean of neighbouring positions."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.empty(config.hidden_size))

    def init_parameters(self) -> None:
        torch.nn.init.ones_(self.scale)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.scale.to(x_BLD.dtype) * (x_BLD.roll(1, dims=1) + x_BLD.roll(-1, dims=1)) / 2


def test_a_users_operator_joins_in_one_line(
    tiny_config: Callable[..., TRMConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setitem(OPERATORS, "neighbour_mean", NeighbourMean)
    config = tiny_config("trm-attn", block_operators=["neighbour_mean", "attention", "mlp"])
    for check in CONTRACT:
        check("neighbour_mean", config)
    # It is serialised by its name alone.
    model = TRMForGridReasoning(config)
    model.save_pretrained(tmp_path)
    loaded = TRMForGridReasoning.from_pretrained(tmp_path)
    assert loaded.config.block_operators == ["neighbour_mean", "attention", "mlp"]
    ids = torch.randint(config.vocab_size, (2, config.seq_len))
    assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize(("mlp_t_norm", "dim"), [("positions", -2), ("channels", -1)])
def test_the_norm_after_mlp_t_runs_over_the_axis_of_the_config(
    tiny_config: Callable[..., TRMConfig], mlp_t_norm: str, dim: int
) -> None:
    config = tiny_config("trm-mlp-t", block_operators=["mlp_t"], mlp_t_norm=mlp_t_norm)
    stack = TRMForGridReasoning(config).model.stack.double()
    x = torch.randn(2, config.num_positions, config.hidden_size, dtype=torch.float64)
    summed = x + stack[0](x)
    expected = summed / (summed.pow(2).mean(dim, keepdim=True) + config.rms_norm_eps).sqrt()
    torch.testing.assert_close(stack(x), expected, rtol=1e-12, atol=1e-12)


# --- forms for CUDA, run here on the CPU ----------------------------------------------------------------------------

GATES: list[dict[str, Any]] = [{}, {"mlp_gate": "normalized", "mlp_gate_bias": 0.5}, {"mlp_gate_bias": -0.5}]


@pytest.mark.parametrize("gate", GATES, ids=str)
@pytest.mark.parametrize(("cells", "multiple"), [(16, 8), (14, 8), (1, 3), (11, 5)])  # rows of 8, padded, one, odd F
def test_mlp_t_from_the_left_is_the_transposed_linear_layer(
    tiny_config: Callable[..., TRMConfig], cells: int, multiple: int, gate: dict[str, Any]
) -> None:
    config = tiny_config("trm-mlp-t", block_operators=["mlp_t"], seq_len=cells, mlp_multiple_of=multiple, **gate)
    mixer, x = build("mlp_t", config), random_input(config).requires_grad_()
    inputs = [x, *mixer.parameters()]
    expected, actual = mixer(x), mixer.forward_from_the_left(x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    for ours, theirs in zip(gradients(actual, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


class OnCuda(Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    is_cuda = True


def test_on_cuda_mlp_t_calls_a_layer_that_something_was_put_on(tiny_config: Callable[..., TRMConfig]) -> None:
    config = tiny_config("trm-mlp-t", block_operators=["mlp_t"])
    mixer, x = build("mlp_t", config), random_input(config).as_subclass(OnCuda)
    plain, taken = mixer(x), []
    layer = mixer.down_proj
    layer.register_forward_hook(lambda module, inputs, out: taken.append(out) or 2 * out)
    torch.testing.assert_close(mixer(x), 2 * plain)
    assert len(taken) == 1
    layer._forward_hooks.clear()
    weight_norm(layer)
    mixer(x).sum().backward()
    assert layer.parametrizations.weight.original1.grad is not None
    layer.parametrizations.weight.original0.data.mul_(3)
    torch.testing.assert_close(mixer(x), 3 * plain)


def test_mlp_t_from_the_left_under_autocast(tiny_config: Callable[..., TRMConfig]) -> None:
    config = tiny_config("trm-mlp-t", block_operators=["mlp_t"], **GATES[1])
    mixer, x = build("mlp_t", config, torch.float32), random_input(config, dtype=torch.float32).requires_grad_()
    inputs = [x, *mixer.parameters()]
    expected = mixer(x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = mixer.forward_from_the_left(x)
    assert actual.dtype == torch.bfloat16
    for ours, theirs in zip((actual, *gradients(actual, *inputs)), (expected, *gradients(expected, *inputs))):
        # bfloat16 has 8 bits (0.4 %), through two products and the gate.
        assert (ours.double() - theirs).square().mean().sqrt() < 0.02 * theirs.double().square().mean().sqrt()


@pytest.mark.parametrize("rows", [5, 8])
def test_left_multiply_has_exact_gradients_and_one_product_for_the_weights(rows: int) -> None:
    weight, x = torch.randn(3, rows, dtype=torch.float64), torch.randn(2, rows, 4, dtype=torch.float64)
    weight, x = weight.requires_grad_(), x.requires_grad_()
    assert torch.autograd.gradcheck(left_multiply, (weight, x))
    y = left_multiply(weight, x)
    with torch.profiler.profile(record_shapes=True) as profile:
        y.backward(torch.ones_like(y))
    # aten::mm [M, B * D] x [B * D, K]; no [B, M, K] is summed.
    products = [event.input_shapes for event in profile.events() if event.name == "aten::mm"]
    assert products == [[[3, 8], [8, 8]]]


@pytest.mark.parametrize(
    ("backend", "on_gpu", "left"), [("auto", True, True), ("torch", True, False), ("auto", False, False)]
)
def test_mlp_t_takes_the_left_product_on_cuda_alone(
    tiny_config: Callable[..., TRMConfig], monkeypatch: pytest.MonkeyPatch, backend: str, on_gpu: bool, left: bool
) -> None:
    config = tiny_config("trm-mlp-t", block_operators=["mlp_t"], mlp_t_backend=backend)
    mixer, x = build("mlp_t", config), random_input(config)
    monkeypatch.setattr(mixer, "forward_from_the_left", lambda x: "left")

    class OnGpu(torch.Tensor):
        is_cuda = on_gpu

    y = mixer(x.as_subclass(OnGpu))
    assert (isinstance(y, str) and y == "left") is left


@pytest.mark.parametrize("backend", ["flash", "math"])
def test_attention_backends_of_the_cpu_agree(tiny_config: Callable[..., TRMConfig], backend: str) -> None:
    results = []
    for name in ("auto", backend):
        torch.manual_seed(0)
        config = tiny_config("trm-attn", block_operators=["attention"], attention_backend=name)
        operator, x = build("attention", config), random_input(config).requires_grad_()
        with torch.profiler.profile() as profile:
            y = operator(x)
        names = {event.name for event in profile.events()}
        flash = any("scaled_dot_product_flash_attention" in name for name in names)
        assert flash is (name != "math")
        results.append([y, *gradients(y, x, *operator.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "positions", "fused"),
    [(torch.bfloat16, 97, False), (torch.bfloat16, MOST_POSITIONS + 1, True), (torch.float32, 97, True)],
)
def test_attention_takes_two_products_where_the_fused_kernel_is_slow(
    dtype: torch.dtype, positions: int, fused: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v, y_grad = torch.randn(4, 1, 2, positions, 8, generator=generator).to(dtype).unbind(0)
    inputs = [part.requires_grad_() for part in (q, k, v)]
    with torch.profiler.profile() as profile:
        y = attend(*inputs)
    assert any("flash_attention" in event.name for event in profile.events()) is fused
    exact_inputs = [part.detach().double().requires_grad_() for part in inputs]
    heads = [oracle.head(*parts) for parts in zip(*(part[0] for part in exact_inputs), strict=True)]
    exact = torch.autograd.grad(exact_y := torch.stack(heads)[None], exact_inputs, y_grad.double())
    for got, expected in zip((y, *torch.autograd.grad(y, inputs, y_grad)), (exact_y, *exact), strict=True):
        error = (got.double() - expected).norm() / expected.norm()
        assert error < (0.01 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("backend", ["cudnn", "efficient"])
def test_attention_backends_of_cuda_are_refused_elsewhere_by_name(
    tiny_config: Callable[..., TRMConfig], backend: str
) -> None:
    operator = build(
        "attention", config := tiny_config("trm-attn", block_operators=["attention"], attention_backend=backend)
    )
    with pytest.raises(RuntimeError, match=f"attention_backend='{backend}' cannot be used: .* on cpu; set .*'auto'"):
        operator(random_input(config))
