"""Converted weights against the public code itself, where a checkout is at hand: TRM_REFERENCE=/path/to/checkout.

It needs einops and pydantic, which nothing else here does. Its RMSNorm and its rotary tables are float32 whatever its
forward_dtype: for float64 they are exchanged for the same formulas in float64.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling_trm import TRMForGridReasoning
from modeling_trm.conversion.layout import our_name
from modeling_trm.conversion.to_reference import PREFIX, export_reference
from tests.conversion.conftest import SIZES, VARIANTS
from tests.conversion.test_parity import FULL_SIZE, STEPS, assert_close, batch, converted
from tests.oracles import reference

CHECKOUT = os.environ.get("TRM_REFERENCE")
pytestmark = pytest.mark.skipif(not CHECKOUT, reason="needs TRM_REFERENCE, a checkout of the public code")
# Of logits over four steps, in bfloat16 over one: autocast and the reference round at other places. Random weights of
# MLP-t amplify a rounding about sixfold a step (float32: 3e-6 after the first step, 4e-4 after the fourth).
TOLERANCES = {"float64": 1e-9, "float32": 2e-3, "bfloat16": 0.25}
ROUNDED_ROOT = 1e-6  # with learned positions: over there 1 / sqrt(2) is written with nine digits
HALTING_FLOAT32 = 3e-7  # over there the halting logit is float32, ours is the loss; gradients pass through them
WITHOUT_MODEL = ("name", "loss")


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """build(arch, state, rows, size): the reference's loss head around its model, with these weights."""
    monkeypatch.syspath_prepend(CHECKOUT)
    trm = importlib.import_module("models.recursive_reasoning.trm")
    losses = importlib.import_module("models.losses")

    def make(arch: dict[str, Any], state: dict[str, Tensor], rows: int, size: int, dtype: str) -> Any:
        fields = {name: value for name, value in arch.items() if name not in WITHOUT_MODEL}
        fields |= {"batch_size": size, "num_puzzle_identifiers": rows, "forward_dtype": dtype}
        head = losses.ACTLossHead(trm.TinyRecursiveReasoningModel_ACTV1(fields), "stablemax_cross_entropy")
        if dtype == "float64":
            head.double()
            monkeypatch.setattr(trm, "rms_norm", lambda x, variance_epsilon: reference.normed(x, variance_epsilon))
            if arch["pos_encodings"] == "rope":
                rotary, P = head.model.inner.rotary_emb, arch["hidden_size"] // arch["num_heads"]
                planes = arch["rope_theta"] ** (-torch.arange(0, P, 2, dtype=torch.float64) / P)
                turns = torch.outer(torch.arange(len(rotary.cos_cached), dtype=torch.float64), planes).repeat(1, 2)
                rotary.cos_cached, rotary.sin_cached = turns.cos(), turns.sin()
        head.load_state_dict({f"model.inner.{name}": tensor for name, tensor in state.items()}, assign=True)
        return head

    return make


def run(
    head: Any,
    model: TRMForGridReasoning,
    arch: dict[str, Any],
    rows: int,
    size: int,
    dtype: str,
    steps: int,
    tolerance: float,
) -> None:
    inputs, puzzles, labels = batch(arch, rows, size)
    data = {"inputs": inputs.int(), "labels": labels.int(), "puzzle_identifiers": puzzles.int()}
    carry, state = head.initial_carry(data), None
    wide = max(tolerance, HALTING_FLOAT32)
    names = [name for name, _ in head.named_parameters()]
    for step in range(1, steps + 1):
        carry, loss, _, outputs, _ = head(carry=carry, batch=data, return_keys=["logits", "q_halt_logits"])
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            out = model(inputs, puzzle_ids=puzzles if arch["puzzle_emb_ndim"] else None, labels=labels, state=state)
        state = out.state
        assert_close(out.logits, outputs["logits"].double(), tolerance, f"logits, step {step}")
        assert_close(out.halt_logits, outputs["q_halt_logits"].double(), wide, f"halting, step {step}", 1.0)
        assert_close(out.loss, loss.double() / size, wide, f"loss, step {step}")
        print(f"{dtype} step {step}: logits {largest(out.logits, outputs['logits']):.1e}")
        if step > 1:
            continue
        head.zero_grad()
        model.zero_grad()
        (loss / size).backward()
        out.loss.backward()
        own = dict(model.named_parameters())
        for name, parameter in zip(names, head.parameters()):
            gradient = own[our_name(name.removeprefix("model.inner."))].grad
            assert_close(gradient, parameter.grad.double(), 3 * wide, f"gradient of {name}")


def largest(actual: Tensor, expected: Tensor) -> Tensor:
    return (actual.double() - expected.double()).abs().max() / expected.double().abs().max()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_public_code(
    variant: str, dtype: str, build: Callable[..., Any], save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    arch, rows = {**SIZES, **VARIANTS[variant]}, 3 if VARIANTS[variant]["puzzle_emb_ndim"] else 1
    check(arch, rows, 2, dtype, build, save_reference(VARIANTS[variant], rows=rows), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("mixer", FULL_SIZE)
def test_equals_the_public_code_at_full_size(
    mixer: str, dtype: str, build: Callable[..., Any], save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    check({**SIZES, **FULL_SIZE[mixer]}, 1, 1, dtype, build, save_reference(FULL_SIZE[mixer]), tmp_path)


def check(
    arch: dict[str, Any], rows: int, size: int, dtype: str, build: Callable[..., Any], path: Path, tmp_path: Path
) -> None:
    """Evaluation mode: training stops sequences at random. There the table has no gradient over there."""
    wide = torch.float64 if dtype == "float64" else torch.float32
    model = converted(path, tmp_path, wide)
    state = {name: tensor.to(wide) for name, tensor in reference.random_state_dict(arch, rows).items()}
    head = build(arch, state, rows, size, dtype).eval()
    tolerance = max(TOLERANCES[dtype], ROUNDED_ROOT if arch["pos_encodings"] == "learned" else 0.0)
    run(head, model, arch, rows, size, dtype, 1 if dtype == "bfloat16" else STEPS, tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_public_code_loads_what_we_export(
    variant: str, build: Callable[..., Any], save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    """Under torch.compile its names begin with _orig_mod; load_state_dict there is strict."""
    arch, rows = {**SIZES, **VARIANTS[variant]}, 3 if VARIANTS[variant]["puzzle_emb_ndim"] else 1
    converted(save_reference(VARIANTS[variant], rows=rows), tmp_path, torch.float32)
    exported = export_reference(str(tmp_path / "converted"), tmp_path / "back" / "step_0")[0]
    state = {name.removeprefix(PREFIX): tensor for name, tensor in torch.load(exported).items()}
    build(arch, state, rows, 2, "float32")


def test_the_tables_gradient_reaches_the_rows_of_the_batch(
    build: Callable[..., Any], save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    """Training mode, first step: the reference copies the batch's rows and collects their gradient there."""
    arch = {**SIZES, **VARIANTS["narrow table"]}
    model = converted(save_reference(VARIANTS["narrow table"], rows=3), tmp_path, torch.float64)
    state = {name: tensor.double() for name, tensor in reference.random_state_dict(arch, 3).items()}
    head = build(arch, state, 3, 3, "float64").train()
    rows = head.model.inner.puzzle_emb
    rows.local_weights = rows.local_weights.detach().requires_grad_()  # double() made it the result of a computation
    inputs, puzzles, labels = batch(arch, 3, 3)
    data = {"inputs": inputs.int(), "labels": labels.int(), "puzzle_identifiers": puzzles.int()}
    _, loss, *_ = head(carry=head.initial_carry(data), batch=data, return_keys=[])
    (loss / 3).backward()
    model(inputs, puzzle_ids=puzzles, labels=labels).loss.backward()
    gradient = model.model.puzzle_emb.weight.grad.to_dense()
    expected = rows.local_weights.grad
    assert_close(gradient[:, : expected.shape[1]], expected, HALTING_FLOAT32, "gradient of the table")
