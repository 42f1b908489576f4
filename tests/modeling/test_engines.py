"""Engines of solve(): each against the model in float64, fresh weights, halting, and what cannot run.

The packed forms against the formulas: the model in float64 is itself held to the naive transcriptions elsewhere.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from datasets_builders.features import load_puzzles
from modeling_trm import OPERATORS, GridProcessor, TRMForGridReasoning
from modeling_trm.engines_trm import ENGINES, choose_engine, resolve_engine
from modeling_trm.evaluation import choose_subset
from modeling_trm.layers_trm import Operator
from modeling_trm.mamba3_trm import Mamba3
from modeling_trm.mlp_trm import MlpT
from tests.conftest import IMAGE, ONE_OF_A_KIND, alone
from tests.modeling.conftest import PUZZLES

# Of one supervision step, relative to the norm of what is compared.
TOLERANCES = {"packed": 2e-5, "eager": 2e-5, "bfloat16": 0.2, "int8": 0.3}
ROUNDING = ("bfloat16", "int8")  # engines that answer otherwise where two tokens are about as likely
VARIANTS: list[dict[str, Any]] = [
    {},
    {"mlp_gate": "normalized", "mlp_gate_bias": 0.5, "mlp_t_norm": "channels"},
    {"position_embedding": "learned", "num_latents": 1, "mamba_n_groups": 2, "mlp_gate_bias": -0.5},
]


@pytest.fixture(autouse=True)
def _micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two puzzles of 18 positions, without symbol fields."""
    monkeypatch.setattr("modeling_trm.engines_trm.ELEMENTS", 40 * 32)


# torch.compile's code has a test of its own: compiling every preset would take minutes.
@pytest.fixture(params=[name for name in ENGINES if name != "compiled"])
def engine(request: pytest.FixtureRequest, tiny_model: Callable[..., TRMForGridReasoning]) -> str:
    """The name of each engine that this machine has."""
    reason = ENGINES[request.param].missing(tiny_model("trm-attn"))
    if reason is not None:
        pytest.skip(reason)
    return request.param


def one_step(call: Callable[..., Any], model: TRMForGridReasoning, problem: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Logits, halt logits and latents after a step, in float64."""
    with torch.no_grad():
        out = call(problem[0], puzzle_ids=problem[1], state=model.initial_state(PUZZLES))
    values = (out.logits, out.halt_logits, out.state.z_H, out.state.z_L)
    return [value.double() for value in values if value is not None]


def errors(actual: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(actual, expected)]


@pytest.mark.parametrize("variant", VARIANTS, ids=["plain", "gate", "one latent"])
@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_a_step_equals_float64(engine: str, preset: str, variant: dict[str, Any], make, problem) -> None:
    model = make(preset, **variant)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate_bias"):
                parameter.normal_()
    exact = copy.deepcopy(model).double()
    expected = one_step(exact, exact, problem)
    tolerance = TOLERANCES[engine]
    assert max(errors(one_step(choose_engine(model, engine), model, problem), expected)) < tolerance


@pytest.mark.slow
def test_compiled_equals_float64_for_batches_of_every_size_and_leaves_the_model_alone(make, monkeypatch) -> None:
    model = make("trm-mlp-t")
    reason = ENGINES["compiled"].missing(model)
    if reason is not None:
        pytest.skip(reason)
    stack, exact = model.model.stack, copy.deepcopy(model).double()
    for size in (PUZZLES, 3, 2):
        problem = torch.randint(6, (size, 16)), torch.arange(size)
        with torch.no_grad():
            found, expected = (
                step(problem[0], puzzle_ids=problem[1], state=exact.initial_state(size, dtype)).logits.double()
                for step, dtype in ((choose_engine(model, "compiled"), torch.float32), (exact, torch.float64))
            )
        assert max(errors([found], [expected])) < TOLERANCES["eager"]
    assert model.model.stack is stack
    monkeypatch.setattr("modeling_trm.engines_trm.can_compile", lambda device: False)
    with pytest.raises(ValueError, match=r"engine=.compiled. cannot run here: torch\.compile finds no compiler here"):
        choose_engine(model, "compiled")


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_packed_under_autocast_is_as_exact_as_eager_under_autocast(preset: str, make, problem) -> None:
    model = make(preset)
    if ENGINES["bfloat16"].missing(model) is not None:
        pytest.skip(ENGINES["bfloat16"].missing(model))
    exact = copy.deepcopy(model).double()
    expected = one_step(exact, exact, problem)
    with torch.autocast("cpu", torch.bfloat16):
        engines = [choose_engine(model, name) for name in ("eager", "packed")]
        eager, packed = (errors(one_step(engine, model, problem), expected) for engine in engines)
    assert sum(packed) < 2 * sum(eager)


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_weights_in_bfloat16_are_multiplied_in_float32_where_that_is_faster(
    preset: str, make, problem, monkeypatch
) -> None:
    """As on processors without instructions for bfloat16; rounded is what a step takes and passes on alone."""
    model = make(preset)
    if ENGINES["packed"].missing(model) is not None:
        pytest.skip(ENGINES["packed"].missing(model))
    model.bfloat16()
    exact = copy.deepcopy(model).double()
    expected = one_step(exact, exact, problem)
    monkeypatch.setattr("modeling_trm.engines_trm.bfloat16_pays", lambda: False)
    monkeypatch.setattr("modeling_trm.engines_trm.has_bfloat16", lambda: False)
    assert resolve_engine(model, "auto") == "packed" and model.dtype == torch.bfloat16
    eager, packed = (
        errors(one_step(choose_engine(model, name), model, problem), expected) for name in ("eager", "auto")
    )
    assert sum(packed) < sum(eager)
    with torch.autocast("cpu", torch.bfloat16):  # asked for
        assert resolve_engine(model, "auto") == "eager"


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_int8_equals_float64_with_rounded_linear_layers(preset: str, make, problem, monkeypatch) -> None:
    """Everything else in float32. The tolerance is for rounding that falls the other way at a half (seen: 0.023)."""
    model = make(preset)
    if ENGINES["int8"].missing(model) is not None:
        pytest.skip(ENGINES["int8"].missing(model))
    exact = copy.deepcopy(model).double()
    for name, layer in exact.model.stack.named_modules():
        if isinstance(layer, torch.nn.Linear) and not isinstance(exact.model.stack.get_submodule(name[:1]), MlpT):
            exactly = _never_rounded(exact.config, exact.model.stack.get_submodule(name[:1]), name)
            layer.forward = partial(_rounded_linear, layer.weight.detach(), exactly)
    expected = one_step(exact, exact, problem)
    monkeypatch.setattr("modeling_trm.engines_trm.bfloat16_pays", lambda: False)
    assert max(errors(one_step(choose_engine(model, "int8"), model, problem), expected)) < 0.06


def _never_rounded(config: Any, operator: Operator, name: str) -> slice:
    """Outputs that add up over all positions: step sizes, rates, angles, writing strengths."""
    if name.endswith("in_proj"):
        small = (
            3 * config.mamba_n_heads + config.mamba_n_angles if isinstance(operator, Mamba3) else config.mamba_n_heads
        )
        return slice(-small, None)
    return slice(None) if name.endswith(("a_proj", "b_proj")) else slice(0)


def _rounded_linear(weight: Tensor, exactly: slice, x: Tensor) -> Tensor:
    """Weights and activations as whole numbers of -127 to 127 times a scale a row; some outputs `exactly`."""
    rounded = [(t / (scale := t.abs().amax(-1, keepdim=True) / 127)).round() * scale for t in (x, weight)]
    y = rounded[0] @ rounded[1].T
    y[..., exactly] = x @ weight[exactly].T
    return y


def test_packed_mamba2_beyond_one_chunk_equals_float64(make, problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeling_trm.mamba2_trm.ONE_CHUNK_UP_TO", 8)
    monkeypatch.setattr("modeling_trm.mamba2_trm.CHUNK", 8)
    model = make("mamba2", mamba_n_groups=2)
    exact = copy.deepcopy(model).double()
    found = one_step(choose_engine(model, "packed"), model, problem)
    assert max(errors(found, one_step(exact, exact, problem))) < TOLERANCES["packed"]


def test_packed_mamba2_refuses_a_backend_that_is_not_for_a_cpu(make, problem) -> None:
    model = make("mamba2", hidden_size=64, ssd_backend="cuda", mamba_d_state=16, mamba_head_dim=16)
    with pytest.raises(RuntimeError, match="ssd_backend='cuda' cannot be used"):
        model.solve(*problem, engine="packed")


@pytest.mark.parametrize("engine", ["packed", "bfloat16", "int8"])
def test_a_replaced_forward_is_not_passed_over(engine: str, make, problem) -> None:
    """As accelerate's: bound to the model, so that a view would run the model itself, in another precision."""
    model = make("trm-attn")
    forward = model.forward
    model.forward = lambda *args, **kwargs: forward(*args, **kwargs)
    with pytest.raises(ValueError, match=r"model\.forward was replaced"):
        choose_engine(model, engine)
    assert choose_engine(model, "auto") is model


def test_eager_is_the_model_itself(make) -> None:
    model = make("trm-attn")
    assert choose_engine(model, "eager") is model
    assert choose_engine(model.double(), "auto") is model  # no other engine takes float64


def test_auto_keeps_the_precision(make, problem) -> None:
    model = make("tr-mamba2mlpt")
    for enabled, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = choose_engine(model, "auto")(*problem, state=model.initial_state(PUZZLES))
        assert out.logits.dtype == dtype


def test_every_change_of_the_weights_is_seen(engine: str, make, problem) -> None:
    """In place, behind the version counters, by an optimiser, by load_state_dict."""
    model, other = make("tr-mamba2attn"), make("tr-mamba2attn")
    problem = problem[0], torch.zeros_like(problem[1])

    def changed() -> None:
        """solve() equals that of a new model with these weights, and differs from the last time."""
        now = model.solve(*problem, max_steps=2, engine=engine).halt_probability
        fresh = copy.deepcopy(model).solve(*problem, max_steps=2, engine=engine).halt_probability
        assert torch.equal(now, fresh)
        assert not torch.equal(now, seen[-1])
        seen.append(now)

    seen = [torch.zeros(PUZZLES)]
    changed()
    weight = model.model.stack[0].in_proj.weight
    weight.data.mul_(-1)
    changed()
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    weight.grad = torch.ones_like(weight)
    optimiser.step()
    changed()
    model.load_state_dict(other.state_dict())
    changed()


def test_solving_changes_nothing_of_the_model(engine: str, make, problem) -> None:
    model = make("tr-mamba2attn").train()
    names, before = [name for name, _ in model.named_modules()], copy.deepcopy(model.state_dict())
    model.solve(*problem, max_steps=2, engine=engine)
    assert [name for name, _ in model.named_modules()] == names
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    model(problem[0], problem[1], labels=problem[0]).loss.backward()
    assert all(p.grad is not None for p in model.model.stack.parameters())


# Two latents, one, symbol fields, answers that are read: that each operator takes any batch, others hold.
@pytest.mark.parametrize("preset", ["tr-mamba2attn", "tr-deltamlpt", "urm", "symbols-mamba2", "compact"])
def test_halting_with_compaction_answers_as_each_puzzle_alone(engine: str, preset: str, make, problem) -> None:
    model = make(preset)
    free = model.solve(*problem, max_steps=3, halt=False, engine=engine, return_trace=True)
    with torch.no_grad():  # the halting bias to the widest gap between puzzles at the first step: some stop, some not
        first = free.trace[0].halt_logits.sort().values
        at = int((first[1:] - first[:-1]).argmax())
        model.q_head.bias -= (first[at] + first[at + 1]) / 2
    whole = model.solve(*problem, max_steps=3, halt=True, engine=engine)
    assert whole.steps.min() == 1
    assert whole.steps.max() > 1
    tolerance = 0.2 if engine in ROUNDING else 1e-3
    for row in range(PUZZLES):
        alone = model.solve(problem[0][[row]], problem[1][[row]], max_steps=int(whole.steps[row]), engine=engine)
        torch.testing.assert_close(
            alone.halt_probability, whole.halt_probability[[row]], rtol=0, atol=tolerance, check_dtype=False
        )
    if engine not in ROUNDING:
        eager = model.solve(*problem, max_steps=3, halt=True, engine="eager")
        assert torch.equal(eager.steps, whole.steps)
        assert torch.equal(eager.answers, whole.answers)


def test_an_operator_of_a_users_own_keeps_its_code(engine: str, make, problem, monkeypatch) -> None:
    class Mean(Operator):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.proj = torch.nn.Linear(config.hidden_size, config.hidden_size)
            self.scale = torch.nn.Parameter(torch.eye(config.hidden_size) * 2)

        def forward(self, x_BLD: Tensor) -> Tensor:
            mean_BD = self.proj(x_BLD).mean(1) @ self.scale + self.proj(self.scale[0])
            return mean_BD[:, None].expand_as(x_BLD)

    monkeypatch.setitem(OPERATORS, "mean", Mean)
    model = make("trm-attn", block_operators=["mean", "mlp"])
    torch.nn.init.normal_(model.model.stack[0].proj.bias)
    exact = copy.deepcopy(model).double()
    found = errors(one_step(choose_engine(model, engine), model, problem), one_step(exact, exact, problem))
    assert max(found) < TOLERANCES[engine]


@pytest.mark.parametrize("name", OPERATORS)
def test_a_subclass_does_not_inherit_the_packed_form(engine: str, name: str, make, problem, monkeypatch) -> None:
    class Minus(OPERATORS[name]):  # type: ignore[misc]
        def forward(self, x_BLD: Tensor, *prepared: Tensor) -> Tensor:
            return -2 * super().forward(x_BLD, *prepared)

    monkeypatch.setitem(OPERATORS, "minus", Minus)
    model = make("trm-attn", **alone("minus"))
    exact = copy.deepcopy(model).double()
    found = errors(one_step(choose_engine(model, engine), model, problem), one_step(exact, exact, problem))
    assert max(found) < TOLERANCES[engine]


def test_a_hook_on_the_model_sees_whole_steps(engine: str, make, problem) -> None:
    model, sizes = make("trm-attn"), []
    model.register_forward_hook(lambda module, inputs, out: sizes.append(len(out.logits)))
    model.solve(*problem, max_steps=3, engine=engine)
    assert sizes == [PUZZLES] * 3


@pytest.mark.parametrize("prefix", [0, 2])
def test_batches_of_one_and_none(engine: str, prefix: int, make) -> None:
    for size in (0, 1):
        for preset in ONE_OF_A_KIND:
            model = make(preset, puzzle_prefix_len=prefix, num_puzzles=1)
            solved = model.solve(torch.zeros(size, 16, dtype=torch.long), max_steps=2, engine=engine)
            assert solved.answers.shape == (size, 16)


def test_the_shipped_checkpoint_answers_the_same(engine: str, monkeypatch) -> None:
    """A trained model, on puzzles that it solves: there rounding decides nothing but single cells."""
    monkeypatch.undo()
    model = TRMForGridReasoning.from_pretrained(IMAGE).eval()
    puzzles = choose_subset(load_puzzles(GridProcessor.from_pretrained(IMAGE).task, "test"), 8)
    ids = torch.from_numpy(puzzles.inputs).long()
    expected = model.solve(ids, max_steps=4, engine="eager").answers
    actual = model.solve(ids, max_steps=4, engine=engine).answers
    assert (expected == actual).float().mean() > (0.95 if engine in ROUNDING else 0.999)


@pytest.mark.parametrize("engine", ["packed", "bfloat16", "int8"])
def test_the_packed_engines_have_it_kept(engine: str, make, monkeypatch) -> None:
    model, kept = make("trm-attn"), []
    if ENGINES[engine].missing(model) is not None:
        pytest.skip(ENGINES[engine].missing(model))
    monkeypatch.setattr("modeling_trm.engines_trm.keep_freed_memory", lambda: kept.append(engine))
    choose_engine(model, engine)
    assert kept == [engine]


def test_an_unknown_engine_is_named(make, problem) -> None:
    with pytest.raises(ValueError, match="engine='fast' is unknown; allowed: auto, eager, packed, bfloat16, int8"):
        make("trm-attn").solve(*problem, engine="fast")


def test_what_cannot_run_says_why(make, problem, monkeypatch) -> None:
    model = make("trm-attn")
    with pytest.raises(ValueError, match=r"engine='packed' cannot run here: the model computes in torch\.float64"):
        copy.deepcopy(model).double().solve(*problem, engine="packed")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with pytest.raises(ValueError, match="engine='bfloat16' cannot run here: this processor has no bfloat16"):
        model.solve(*problem, engine="bfloat16")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(ValueError, match="has no oneDNN"):
        model.solve(*problem, engine="packed")
    assert choose_engine(model, "auto") is model
