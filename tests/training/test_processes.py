"""Two processes give the loss of one with the same global batch, and one goes on where two have stopped."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file

from modeling_trm.training.checkpointing import LEARNT, PROGRESS, load_checkpoint
from modeling_trm.utils.manifest import MANIFEST, write_manifest
from scripts import train

TOLERANCE = 5e-6  # relative, over 16 steps in float32: the gradient is summed in another order (seen: 5e-7)


@pytest.mark.slow
def test_two_processes_train_as_one(write_recipe, tmp_path, caplog):
    settings = {"optimiser": "adam_atan2", "checkpoint_every": 6}
    assert train.main([str(write_recipe("one", **settings))]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(Path(train.__file__)), str(write_recipe("two", **settings))],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert_same_losses(tmp_path / "one", tmp_path / "two")
    checkpoints = tmp_path / "two" / "checkpoints"
    assert len(list((checkpoints / "step-00000016").glob("slots-*.safetensors"))) == 2

    shutil.rmtree(checkpoints / "step-00000016")
    assert train.main([str(tmp_path / "two.yaml")]) == 0
    assert "step-00000012 was written by 2 processes, this run has 1" in caplog.text
    assert_same_losses(tmp_path / "one", tmp_path / "two")
    ended = [load_file(tmp_path / run / "checkpoints/step-00000016/slots-0.safetensors") for run in ("one", "two")]
    for name in ("inputs", "labels", "puzzle_ids", "steps", "released"):
        assert torch.equal(ended[0][name], ended[1][name]), name


def test_the_card_says_that_the_number_of_processes_changed(write_recipe, tmp_path: Path) -> None:
    """A checkpoint is made to be of two processes: its slots in two files, its progress with their number."""
    recipe = str(write_recipe("one", checkpoint_every=6))
    assert train.main([recipe]) == 0
    assert "the same puzzles in the same order" not in (tmp_path / "one/model/README.md").read_text(encoding="utf-8")
    checkpoints = tmp_path / "one" / "checkpoints"
    shutil.rmtree(checkpoints / "step-00000016")
    older = checkpoints / "step-00000012"
    slots = load_file(older / "slots-0.safetensors")
    for process in range(2):
        part = {name: value.chunk(2)[process].clone() for name, value in slots.items()}
        save_file(part, older / f"slots-{process}.safetensors")
    progress = json.loads((older / PROGRESS).read_text(encoding="utf-8"))
    assert progress["processes"] == [[0, 1]]
    (older / PROGRESS).write_text(json.dumps(progress | {"processes": [[0, 2]]}), encoding="utf-8")
    (older / MANIFEST).unlink()
    write_manifest(older)
    assert train.main([recipe]) == 0
    card = (tmp_path / "one/model/README.md").read_text(encoding="utf-8")
    assert "2, 1 after step 12: the same puzzles in the same order, within rounding" in card


def assert_same_losses(first: Path, second: Path) -> None:
    one, two = ([json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (first, second))
    assert [r["step"] for r in two] == [r["step"] for r in one]
    for a, b in zip(one, two):
        if "loss" in a:
            assert b["loss"] == pytest.approx(a["loss"], rel=TOLERANCE)
            assert b["puzzles"] == a["puzzles"]


@pytest.mark.parametrize(("written", "processes"), [(12, 2), (1, 4), (3, 2)])
def test_slots_are_shared_out_in_their_order(written: int, processes: int, tmp_path: Path) -> None:
    """Process p of n has the slots from p / n of the batch on, whoever wrote them."""
    PartialState(cpu=True)  # accelerate's logger asks for it
    slots = {"steps": torch.arange(12), "state.z_H": torch.randn(12, 3, 2)}
    for part in LEARNT:
        save_file({"weight": torch.ones(1)}, tmp_path / f"{part}.safetensors")
    for process in range(written):
        own = {name: value.chunk(written)[process].clone() for name, value in slots.items()}
        save_file(own, tmp_path / f"slots-{process}.safetensors")
    share = 12 // processes
    for process in range(processes):
        here = SimpleNamespace(num_processes=processes, process_index=process)
        loaded = load_checkpoint(here, tmp_path)["slots"]
        for name, value in slots.items():
            assert torch.equal(loaded[name], value[process * share : (process + 1) * share]), name
