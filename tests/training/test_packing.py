"""A checkpoint that travels: its size, what it keeps exact or rounded, its damage named, and a run that goes on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator, PartialState

from modeling_trm import TRMConfig, TRMForGridReasoning
from modeling_trm.training import trainer
from modeling_trm.training.arguments import OptimisationArguments
from modeling_trm.training.checkpointing import load_learnt, save_checkpoint
from modeling_trm.training.ema import ExponentialMovingAverage
from modeling_trm.training.optimiser_state import optimiser_state
from modeling_trm.training.optimisers import build_optimisers, core_parameters
from modeling_trm.training.packing import load_packed, pack_checkpoint
from scripts import pack_checkpoint as script
from scripts import train
from tests.conftest import TINY_RECIPE

FILE_BYTES, BYTES = 16_000_000, 60_000_000  # of a file and of all


@pytest.fixture(scope="module")
def run_of_ten_steps(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    fields = TINY_RECIPE | {"log_every": 1, "output_dir": str(folder / "run")}
    (folder / "run.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Stopping, "asked", lambda self, step: step == 10)
        assert train.main([str(folder / "run.yaml")]) == 0
    return folder / "run"


@pytest.fixture
def stopped(run_of_ten_steps, write_recipe, tmp_path) -> Path:
    """A recipe whose run stopped after step 10 of 16."""
    shutil.copytree(run_of_ten_steps, tmp_path / "run")
    return write_recipe("run", log_every=1)


def test_a_full_size_run_travels_in_60_MB_and_files_under_16(tmp_path):
    torch.manual_seed(0)
    model = TRMForGridReasoning(TRMConfig.from_preset("tr-mamba2mlpt", vocab_size=11, seq_len=81, puzzle_prefix_len=1))
    assert model.num_parameters_core() > 5_800_000
    optimisers = build_optimisers(
        model, OptimisationArguments()
    )  # AdamATan2: two moments of everything, the most there is
    for parameter in core_parameters(model).values():
        parameter.grad = torch.randn_like(parameter)
    optimisers[0].step()
    ema = ExponentialMovingAverage(core_parameters(model), 0.9)
    learnt = {"ema": ema.state_dict(), "optimisers": optimiser_state(model, optimisers)}
    state = {"model": model.state_dict(), **learnt, "slots": {"steps": torch.zeros(3)}}
    progress = {"train_steps": 9000, "best": None}
    save_checkpoint(Accelerator(cpu=True), tmp_path / "run" / "checkpoints", 7200, state, progress)

    packed = pack_checkpoint(tmp_path / "run", tmp_path / "packed")
    sizes = [path.stat().st_size for path in (tmp_path / "packed").iterdir()]
    assert sum(sizes) == packed["bytes"] < BYTES and max(sizes) < FILE_BYTES
    loaded = load_packed(tmp_path / "packed")
    assert loaded.keys() == {"model", "ema", "optimisers"}
    for part, named in loaded.items():
        assert named.keys() == state[part].keys()
        for name, value in named.items():
            exact = state[part][name]
            assert value.dtype == exact.dtype
            # bf16 has 8 significant bits: half a unit of the last one at most
            torch.testing.assert_close(value, exact, rtol=2**-8 if exact.ndim > 1 else 0, atol=0)


def test_a_run_goes_on_from_it_elsewhere(stopped, write_recipe, tmp_path, capsys):
    packed, elsewhere = tmp_path / "packed", str(write_recipe("elsewhere", log_every=1))
    assert script.main([str(tmp_path / "run"), "--output", str(packed)]) == 0
    assert "step 10, 4 files" in capsys.readouterr().out  # one piece, README, progress and manifest
    assert "slots" in (packed / "README.md").read_text() and "bfloat16" in (packed / "README.md").read_text()
    assert train.main([elsewhere, "--resume_from", str(packed)]) == 0
    assert "after step 10; slots are new" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "elsewhere" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(11, 17))
    metrics = json.loads((tmp_path / "elsewhere" / "metrics.json").read_text())
    assert metrics["train"]["resumed"].startswith("after step 10 from a travelling checkpoint")

    # Its own checkpoint, being later, goes before the one it was given; a run that is further takes the given one.
    assert train.main([elsewhere, "--resume_from", str(packed)]) == 0
    assert "elsewhere/checkpoints/step-00000016, after step 16" in capsys.readouterr().out
    assert train.main([str(stopped)]) == 0
    assert "run/checkpoints/step-00000010, after step 10" in capsys.readouterr().out


def test_what_it_goes_on_with_is_the_runs_state(stopped, tmp_path):
    exact = load_learnt(tmp_path / "run" / "checkpoints" / "step-00000010")
    pack_checkpoint(tmp_path / "run", tmp_path / "packed")
    loaded = load_packed(tmp_path / "packed")
    assert {name.rpartition("/")[2] for name in loaded["optimisers"]} == {
        "momentum_buffer", "step", "exp_avg", "exp_avg_sq",
    }  # fmt: skip
    for part, named in loaded.items():
        for name, value in named.items():
            torch.testing.assert_close(value, exact[part][name], rtol=2**-8, atol=0)


@pytest.mark.parametrize("harm", ["missing", "shortened", "flipped"])
def test_a_missing_or_damaged_piece_is_named_before_anything_starts(harm, stopped, write_recipe, tmp_path, refused):
    pack_checkpoint(tmp_path / "run", tmp_path / "packed")
    piece = tmp_path / "packed" / "state-1-of-1.bin"
    content = bytearray(piece.read_bytes())
    content[len(content) // 2] ^= 4
    if harm == "missing":
        piece.unlink()
    else:
        piece.write_bytes(content if harm == "flipped" else content[:-1])
    error = refused(train.main, [str(write_recipe("elsewhere")), "--resume_from", str(tmp_path / "packed")])
    expected = {"missing": "is missing", "shortened": "bytes instead of", "flipped": "is damaged: its SHA-256"}[harm]
    assert "state-1-of-1.bin" in error and expected in error
    assert not (tmp_path / "elsewhere").exists()


def test_what_cannot_be_packed_is_said(stopped, write_recipe, tmp_path, monkeypatch, caplog):
    with pytest.raises(ValueError, match="no whole checkpoint to pack"):
        pack_checkpoint(tmp_path / "elsewhere", tmp_path / "packed")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="mine: is not replaced, as nothing tells that it was built like this"):
        pack_checkpoint(tmp_path / "run", tmp_path / "mine")
    shutil.copytree(tmp_path / "run", tmp_path / "harmed")
    for weights in (tmp_path / "harmed" / "checkpoints").glob("*/model.safetensors"):
        weights.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(PartialState, "_shared_state", {})  # as in a process that has trained nothing
        with pytest.raises(ValueError, match=r"no whole checkpoint to go on from \(model\.safetensors is missing"):
            pack_checkpoint(tmp_path / "harmed", tmp_path / "packed")
    assert "step-00000010 is passed over: model.safetensors is missing" in caplog.text
    assert train.main([str(stopped)]) == 0
    with pytest.raises(ValueError, match="step-00000016 is the end of its run"):
        pack_checkpoint(tmp_path / "run", tmp_path / "packed")


def test_another_recipe_does_not_go_on_from_it(stopped, write_recipe, tmp_path, refused):
    pack_checkpoint(tmp_path / "run", tmp_path / "packed")
    other = write_recipe("other", learning_rate=0.5)
    shown = refused(train.main, [str(other), "--resume_from", str(tmp_path / "packed")])
    assert "learning_rate=0.001, the recipe now says 0.5" in shown and "--start_step" not in shown
    shown = refused(train.main, [str(stopped), "--train_steps", "99"])
    assert "the recipe now says 99" in shown and "--start_from FOLDER" in shown and "--start_step 10, which" in shown
