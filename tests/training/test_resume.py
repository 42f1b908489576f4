"""A run that is killed with SIGKILL, at whatever moment, and started again equals the run that was left alone."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scripts import train

TRAIN = str(Path(train.__file__))


def start(recipe: Path) -> subprocess.Popen:
    """The run in a process of its own; what it prints goes beside the recipe."""
    with recipe.with_suffix(".txt").open("ab") as printed:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, TRAIN, str(recipe)], env=environment, stdout=printed, stderr=printed)


def kill_when(recipe: Path, condition: Callable[[], bool]) -> None:
    """Start the run and SIGKILL it as soon as the condition holds; fails if the run ends first."""
    process, deadline = start(recipe), time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the run ended before it could be killed:\n{recipe.with_suffix('.txt').read_text()}")
    process.send_signal(signal.SIGKILL)
    process.wait()


def steps_logged(output: Path) -> list[dict]:
    lines = (output / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "loss" in record]


@pytest.mark.slow
def test_resume_after_sigkill_is_bit_exact(write_recipe, tmp_path):
    assert train.main([str(write_recipe("whole"))]) == 0

    recipe, output = write_recipe("killed"), tmp_path / "killed"
    checkpoints = output / "checkpoints"
    # Once while a checkpoint is being written, once between two.
    kill_when(recipe, lambda: any(checkpoints.glob(".step-*.part")))
    kill_when(recipe, lambda: (checkpoints / "step-00000006").exists() and steps_logged(output)[-1]["step"] > 6)
    assert start(recipe).wait() == 0, recipe.with_suffix(".txt").read_text()

    for kind in ("last", "ema", "best"):
        whole, killed = (
            load_file(tmp_path / run / "weights" / kind / "model.safetensors") for run in ("whole", "killed")
        )
        assert whole.keys() == killed.keys()
        for name, value in whole.items():
            assert torch.equal(killed[name], value), (kind, name)
    a, b = steps_logged(tmp_path / "whole"), steps_logged(output)
    for name in ("step", "puzzles", "loss", "token_loss", "halt_loss", "cell_accuracy", "mean_steps"):
        assert [r[name] for r in b] == [r[name] for r in a]


def test_a_damaged_checkpoint_is_passed_over(write_recipe, tmp_path, caplog):
    recipe, output = write_recipe("run"), tmp_path / "run"
    assert train.main([str(recipe)]) == 0
    newest = output / "checkpoints" / "step-00000016"
    content = (newest / "model.safetensors").read_bytes()
    (newest / "model.safetensors").write_bytes(content[: len(content) // 2])
    before = steps_logged(output)
    assert train.main([str(recipe)]) == 0  # from step 15
    assert "model.safetensors has" in caplog.text
    assert [r["loss"] for r in steps_logged(output)] == [r["loss"] for r in before]


def test_another_recipe_does_not_resume(write_recipe, capsys):
    recipe = str(write_recipe("run", train_steps=3))
    assert train.main([recipe]) == 0
    with pytest.raises(SystemExit) as stop:
        train.main([recipe, "--learning_rate", "0.1"])
    assert stop.value.code == 2
    assert "learning_rate=0.001" in (error := capsys.readouterr().err) and "0.1" in error
    # What does not touch the learning may change.
    assert train.main([recipe, "--log_every", "2"]) == 0


def test_stop_after_minutes_leaves_a_checkpoint_and_goes_on(write_recipe, tmp_path, capsys):
    recipe, output = str(write_recipe("run")), tmp_path / "run"
    assert train.main([recipe, "--stop_after_minutes", "0.01"]) == 0
    assert "the same command goes on" in capsys.readouterr().out
    stopped = steps_logged(output)[-1]["step"]
    assert 0 < stopped < 16 and not (output / "model").exists()
    assert train.main([recipe]) == 0
    assert (output / "model" / "README.md").exists()


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(write_recipe, tmp_path, capsys):
    # No evaluation before the end: the first large file after the stop is a checkpoint, however fast the machine.
    recipe, output = str(write_recipe("run", train_steps=40, eval_every=40)), tmp_path / "run"
    assert train.main([recipe, "--stop_after_minutes", "0.01"]) == 0
    checkpoints = output / "checkpoints"
    before = sorted(path.name for path in checkpoints.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # the next large file fails, as on a full disk
    try:
        with pytest.raises(SystemExit) as stop:
            train.main([recipe])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "could not be written" in error and "checkpoints" in error
    assert sorted(path.name for path in checkpoints.iterdir()) == before
    assert train.main([recipe]) == 0  # nothing is lost
