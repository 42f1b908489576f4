"""Back into the reference's layout: bit-exact after a conversion, refused by name where it has no such model."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.conversion.checkpoint_file import ConversionError
from modeling_trm.conversion.from_reference import convert_reference
from modeling_trm.conversion.to_reference import export_reference
from modeling_trm.puzzle_index_trm import PuzzleIndex
from tests.conversion.conftest import ATTENTION, PREFIX, SIZES, VARIANTS
from tests.oracles import reference


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


@pytest.mark.parametrize("initial", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_is_bit_exact_in_values_types_and_settings(
    variant: str, initial: torch.dtype, save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    """The reference keeps its initial latents in the type that it computes in, all else in float32."""
    arch = VARIANTS[variant]
    state = reference.random_state_dict({**SIZES, **arch}, 3 if arch["puzzle_emb_ndim"] else 1)
    state |= {name: state[name].to(initial) for name in ("H_init", "L_init")}
    path = save_reference(arch, state=state)
    convert_reference(path, tmp_path / "ours")
    written = export_reference(str(tmp_path / "ours"), tmp_path / "back" / "step_100")
    assert_same(torch.load(written[0]), torch.load(path))
    back = yaml.safe_load((tmp_path / "back" / "all_config.yaml").read_text(encoding="utf-8"))["arch"]
    expected = {**arch, "puzzle_emb_len": reference.prefix_length(arch)}
    if arch["mlp_t"]:
        expected["num_heads"] = back["num_heads"]  # of no effect there
    assert {**back, "expansion": None} == {**expected, "expansion": None}
    assert reference.inner_width(back["expansion"], 32) == reference.inner_width(arch["expansion"], 32)
    # And once more from there: the same folder again.
    convert_reference(written[0], tmp_path / "again")
    ours, again = (TRMForGridReasoning.from_pretrained(tmp_path / name) for name in ("ours", "again"))
    assert_same(again.state_dict(), ours.state_dict())
    fields, fields_again = ours.config.to_dict(), again.config.to_dict()
    assert {**fields_again, "_name_or_path": ""} == {**fields, "_name_or_path": ""}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_comes_back(dtype: torch.dtype, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION, dtype=dtype)
    convert_reference(path, tmp_path / "ours")
    assert_same(torch.load(export_reference(str(tmp_path / "ours"), tmp_path / "back")[0]), torch.load(path))


def test_identifiers_come_back(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    names = ["<blank>", "<blank>", "a", "a|||t7|||0987654321", "b|||t3|||0123456789", "b"]
    (tmp_path / "identifiers.json").write_text(json.dumps(names), encoding="utf-8")
    path = save_reference(ATTENTION, rows=len(names))
    convert_reference(path, tmp_path / "ours", identifiers=tmp_path / "identifiers.json", subset="training")
    written = export_reference(str(tmp_path / "ours"), tmp_path / "back" / "step_100")
    assert [file.name for file in written] == ["step_100", "all_config.yaml", "identifiers.json"]
    assert json.loads(written[2].read_text(encoding="utf-8")) == names
    assert_same(torch.load(written[0]), torch.load(path))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mamba2": ("tr-mamba2attn", {}, "block_operators=['mamba2', 'mamba2', 'attention', 'mlp']"),
    "pure mamba2": ("mamba2", {}, "block_operators="),
    "one latent": ("trm-attn", {"num_latents": 1}, "num_latents=1: the reference cannot express this; allowed: 2"),
    "gate": ("trm-attn", {"mlp_gate": "normalized"}, "mlp_gate='normalized'"),
    "gate's bias": ("trm-attn", {"mlp_gate_bias": 1.0}, "mlp_gate_bias=1.0"),
    "multiple": ("trm-attn", {"mlp_multiple_of": 8}, "mlp_multiple_of=8: the reference cannot express this"),
    "norm's axis": ("trm-mlp-t", {"mlp_t_norm": "channels"}, "mlp_t_norm='channels'"),
    "only blanks": ("trm-attn", {"blank_token_id": 1}, "blank_token_id=1"),
    "a row at each cell": ("trm-attn", {"puzzle_conditioning": "cells"}, "puzzle_conditioning='cells': the reference"),
    "fields": ("symbols-attn", {}, "symbol_fields=True: the reference cannot express this"),
    "rows and columns": ("trm-attn", {"position_embedding": "rope2d"}, "position_embedding='rope2d': the reference"),
    "waves": ("trm-attn", {"position_embedding": "sincos2d"}, "position_embedding='sincos2d': the reference"),
    "feedback": ("compact", {}, "answer_feedback=True: the reference cannot express this"),
    "steps": ("trm-attn", {"num_step_embeddings": 2}, "num_step_embeddings=2: the reference cannot express this"),
    "two mixers": ("trm-attn", {"block_operators": ["attention", "mlp", "mlp_t", "mlp"]}, "block_operators="),
    "an odd stack": ("trm-attn", {"block_operators": ["attention", "mlp", "attention"]}, "block_operators="),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_reference_cannot_express_is_named(case: str, tiny_model: Any, tmp_path: Path) -> None:
    preset, fields, message = REFUSED[case]
    tiny_model(preset, **{"mlp_multiple_of": 256, **fields}).save_pretrained(tmp_path / "ours")
    with pytest.raises(ConversionError, match=re.escape(message)):
        export_reference(str(tmp_path / "ours"), tmp_path / "back" / "step")
    assert not (tmp_path / "back").exists()


def test_a_model_of_our_own_goes_there_and_back(tiny_model: Any, tmp_path: Path) -> None:
    """Trained here: no record of a conversion. Names lose their subset, float32 latents say forward_dtype float32."""
    index = PuzzleIndex(
        ("training/x", "evaluation/y"), np.array([-1, 0, 1]), np.tile(PuzzleIndex.blank().augmentation_of_row, (3, 1))
    )
    model = tiny_model("trm-attn", mlp_multiple_of=256, num_puzzles=3)
    model.set_puzzle_index(index)
    model.save_pretrained(tmp_path / "ours")
    GridProcessor("sudoku", grid_shape=(4, 4)).save_pretrained(tmp_path / "ours")
    written = export_reference(str(tmp_path / "ours"), tmp_path / "back" / "step")
    assert json.loads(written[2].read_text(encoding="utf-8")) == ["<blank>", "x", "y"]
    state = torch.load(written[0])
    assert all(name.startswith(PREFIX) for name in state)
    assert yaml.safe_load(written[1].read_text(encoding="utf-8"))["arch"]["forward_dtype"] == "float32"
    convert_reference(written[0], tmp_path / "again", task="sudoku", grid_shape=(4, 4))
    again = TRMForGridReasoning.from_pretrained(tmp_path / "again")
    assert_same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("name", ["step", "all_config.yaml", "identifiers.json"])
def test_no_file_is_replaced(name: str, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    convert_reference(save_reference(ATTENTION), tmp_path / "ours")
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(ConversionError, match=f"{name} exists already"):
        export_reference(str(tmp_path / "ours"), tmp_path / "step")
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"run", "ours", name})


def test_a_failure_leaves_none_of_the_files(
    save_reference: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_reference(save_reference(ATTENTION), tmp_path / "ours")
    monkeypatch.setattr(
        "modeling_trm.conversion.to_reference.write_text", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        export_reference(str(tmp_path / "ours"), tmp_path / "step")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "run"]
