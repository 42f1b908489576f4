"""The model in the hands of other libraries: copied, pickled, compiled, placed, adapted; it computes the same."""

import copy
import pickle
from pathlib import Path

import pytest
import torch

from modeling_trm import TRMForGridReasoning
from tests.conftest import ONE_OF_A_KIND


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_a_copy_and_a_pickle_compute_the_same(preset: str, tiny_model, tiny_batch) -> None:
    model = tiny_model(preset)
    model.set_puzzle_index(model.puzzle_index)
    batch = tiny_batch(model.config)
    expected = model(**batch)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 (its own)
        out = other(**batch)
        assert torch.equal(out.logits, expected.logits) and torch.equal(out.state.z_H, expected.state.z_H)
        assert other.puzzle_index.fingerprint == model.puzzle_index.fingerprint
        assert other.lm_head.weight.data_ptr() != model.lm_head.weight.data_ptr()
    again = pickle.loads(pickle.dumps(expected))  # noqa: S301 (likewise)
    assert torch.equal(again.state.z_H, expected.state.z_H) and type(again.state) is type(expected.state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_whole_model_is_compiled(dtype: torch.dtype, tiny_model, tiny_batch) -> None:
    """torch.compile(model) as one graph, whose names begin with _orig_mod: two steps, the loss and its gradients."""
    model = tiny_model("trm-mlp-t", H_cycles=1 if dtype == torch.float32 else 2, L_cycles=1)
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
    batch, ours, theirs = tiny_batch(model.config), None, None
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            expected, out = model(**batch, state=ours), compiled(**batch, state=theirs)
        ours, theirs = expected.state, out.state
        torch.testing.assert_close(out.logits, expected.logits)
        torch.testing.assert_close(out.loss, expected.loss)
    expected.loss.backward()
    out.loss.backward()
    found = dict(compiled.named_parameters())
    # Casts are summed in another order; of bfloat16, a share of the largest number.
    share = 1e-4 if dtype == torch.float32 else 0.05
    for name, parameter in model.named_parameters():
        expected, gradient = parameter.grad, found[f"_orig_mod.{name}"].grad
        torch.testing.assert_close(gradient, expected, rtol=0, atol=share * float(expected.abs().max()) + 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_device_map_places_core_and_table(dtype: torch.dtype, tiny_model, tiny_batch, tmp_path: Path) -> None:
    """Built on the meta device, then filled where the map says."""
    model = tiny_model("tr-mamba2attn")
    model.save_pretrained(tmp_path)
    plain, placed = (
        TRMForGridReasoning.from_pretrained(tmp_path, dtype=dtype, **how) for how in ({}, {"device_map": "cpu"})
    )
    batch = tiny_batch(model.config)
    assert {(value.device.type, value.dtype) for value in placed.state_dict().values()} == {("cpu", dtype)}
    assert torch.equal(placed(**batch).logits, plain(**batch).logits)
    if dtype == torch.float32:
        assert torch.equal(plain(**batch).logits, model(**batch).logits)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing:FutureWarning")  # which peft asks, by its old name
@pytest.mark.parametrize("preset", ["trm-mlp-t", "tr-mamba2attn"])
def test_low_rank_adapters_on_the_linear_layers(preset: str, tiny_model, tiny_batch, tmp_path: Path) -> None:
    """peft: nothing changes until it is trained, the adapters alone are trained, merged they are the adapted model."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = tiny_model(preset).double()
    batch = tiny_batch(model.config)
    before, base = model(**batch).logits.detach(), copy.deepcopy(model)
    settings = peft.LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.0)
    adapted = peft.get_peft_model(model, settings)
    assert torch.equal(adapted(**batch).logits, before)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.05)
    start = adapted(**batch).loss.item()
    for _ in range(4):
        loss = adapted(**batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert adapted(**batch).loss.item() < start
    after = adapted(**batch).logits.detach()
    adapted.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, after)
    torch.testing.assert_close(loaded.merge_and_unload()(**batch).logits, after)
