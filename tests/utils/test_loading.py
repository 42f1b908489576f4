"""A checkpoint loads whole, bit for bit, or is refused in one line that names it."""

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.utils import loading
from modeling_trm.utils.loading import LOADING_ERRORS, CheckpointError, choose_device, load_model, load_processor
from scripts import eval_puzzles, solve


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


def edit_weights(folder: Path, **weights: torch.Tensor | None) -> None:
    """Put tensors into model.safetensors, by name with "__" for "."; None removes one."""
    state = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        state.pop(name.replace("__", "."), None)
        if value is not None:
            state[name.replace("__", ".")] = value
    save_file(state, folder / "model.safetensors", {"format": "pt"})


class Bomb:
    """Unpickled, it makes a folder where it is."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("boom",))


def leave_a_pickle(folder: Path, name: str = "pytorch_model.bin") -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))


DAMAGES: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors, 0 bytes, is damaged"),
    (truncate, "model.safetensors, 1,000 bytes, is damaged"),
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
    (lambda folder: (folder / "config.json").write_bytes(b""), "config.json is not a valid JSON object"),
    (lambda folder: (folder / "config.json").write_text("[]"), "config.json is not a valid JSON object"),
    (lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs"), "no safetensors file"),
    (lambda folder: (folder / "puzzle_table.safetensors").write_bytes(b""), "puzzle_table.safetensors: Error"),
    (lambda folder: edit_weights(folder, lm_head__weight=None), r"1 weights missing \(lm_head.weight\)"),
    (lambda folder: edit_weights(folder, extra=torch.ones(2)), r"1 weights unknown to this config \(extra\)"),
    (lambda folder: edit_weights(folder, q_head__bias=torch.ones(3)), r"q_head.bias \[3\] instead of \[2\]"),
    (
        lambda folder: edit_weights(folder, q_head__bias=torch.tensor([1.0, float("nan")])),
        r"NaN or infinite values in 1 weights \(q_head.bias\)",
    ),
    (
        lambda folder: edit_weights(folder, model__H_init=torch.full((32,), float("inf"))),
        r"NaN or infinite values in 1 weights \(model.H_init\)",
    ),
    (leave_a_pickle, "It has pytorch_model.bin: pickles can hold code and are not opened"),
    (lambda folder: leave_a_pickle(folder, "model.safetensors"), "model.safetensors, .* is damaged or no safetensors"),
    (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            (folder / "model.safetensors.index.json").write_text("{}"),
        ),
        "does not load: .*index.json: has no weight_map",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_checkpoints(
    folder: Path, damage: Callable[[Path], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    damage(folder)
    with pytest.raises(LOADING_ERRORS):
        TRMForGridReasoning.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "boom").exists()  # no pickle was opened


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_checkpoints_through_the_scripts(
    folder: Path, damage: Callable[[Path], Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    output = str(tmp_path / "out")
    for call in (
        lambda: solve.main(["--model", str(folder), "1...............", "--output", output]),
        lambda: eval_puzzles.main(["--model", str(folder), "--task", "sudoku", "--output", output]),
    ):
        with pytest.raises(SystemExit) as caught:
            call()
        assert caught.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
        assert re.search(message, captured.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "{", '{"task": "chess"}', "[1]"])
def test_damaged_processors(folder: Path, text: str) -> None:
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="the processor does not load") as caught:
        load_processor(str(folder))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_folder_and_processor(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model("runs/model/of/nobody")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="the processor does not load"):
        load_processor(str(folder))


def test_a_misspelt_folder_beside_others_is_not_asked_of_the_hub(folder: Path, monkeypatch) -> None:
    def ask(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(GridProcessor, "from_pretrained", ask)
    monkeypatch.chdir(folder.parent.parent)
    place = folder.parent.name
    expected = f"checkpoint '{place}/modle': no such folder in {place}, which is one here; did you mean {place}/model?"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        load_processor(f"{place}/modle")
    monkeypatch.setattr(loading, "try_to_load_from_cache", lambda *names: "a file")  # a model of the Hub, seen before
    with pytest.raises(AssertionError, match="the Hub was asked"):
        load_processor(f"{place}/modle")
    for name in ("./modle", "../modle"):
        with pytest.raises(CheckpointError, match="no such folder"):
            load_processor(name)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto") == torch.device("cpu")  # where there is a GPU, its own tests alone find it
    for name in ("quantum", "cuda:99"):
        with pytest.raises(ValueError, match=f"device '{name}' cannot be used here"):
            choose_device(name)


def test_an_id_that_is_not_in_the_cache_is_not_asked_for_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "is_offline_mode", lambda: True)
    for load in (load_model, load_processor):
        with pytest.raises(CheckpointError, match=r"no such folder .and not in the cache of the Hub, which is not ask"):
            load("nobody/nothing")


def test_an_adapter_is_told_from_a_model(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    adapter_config = {"peft_type": "LORA", "base_model_name_or_path": str(folder), "r": 2, "target_modules": ["o_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(adapter_config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"adapter is an adapter of peft, not a model; .*merge_and_unload\(\)"):
        TRMForGridReasoning.from_pretrained(adapter)
    for load in (load_model, load_processor):
        with pytest.raises(CheckpointError, match=r"checkpoint '.*adapter': .* is an adapter of peft, not a model"):
            load(str(adapter))
