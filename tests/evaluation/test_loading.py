"""A checkpoint loads whole, bit for bit, or is refused in one line that names it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_trm import GridProcessor
from modeling_trm.evaluation.loading import CheckpointError, choose_device, load_model, load_processor


@pytest.fixture
def folder(tiny_model, tmp_path: Path) -> Path:
    tiny_model("tr-mamba2attn").save_pretrained(tmp_path / "model")
    GridProcessor("sudoku", grid_shape=(4, 4)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")


def test_loads_what_was_saved(tiny_model, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved = tiny_model("tr-mamba2attn")
    saved.save_pretrained(folder)
    capfd.readouterr()
    loaded = load_model(str(folder))
    assert not loaded.training
    state = loaded.state_dict()
    assert state.keys() == saved.state_dict().keys()
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    processor = load_processor(str(folder))
    assert (processor.task, processor.grid_shape) == ("sudoku", [4, 4])
    assert capfd.readouterr() == ("", "")


def truncate(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "header too small"),
        (truncate, "the model does not load"),
        (lambda folder: edit_config(folder, hiden_size=64), "did you mean 'hidden_size'"),
        (lambda folder: edit_config(folder, num_attention_heads=5), "num_attention_heads=5"),
        (lambda folder: edit_config(folder, block_operators=["atention"]), "'atention' is not an operator"),
        (
            lambda folder: edit_config(folder, block_operators=["attention", "mlp"]),
            r"does not fit block_operators=\['attention', 'mlp'\].* weights missing .* unknown to this config",
        ),
        (
            lambda folder: edit_config(folder, hidden_size=64),
            r"weights of another size .*\[6, 32\] instead of \[6, 64\]",
        ),
    ],
)
def test_damaged_checkpoints(folder: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_processor(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model("runs/model/of/nobody")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="the processor does not load"):
        load_processor(str(folder))


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("quantum", "cuda:99"):
        with pytest.raises(ValueError, match=f"device '{name}' cannot be used here"):
            choose_device(name)
