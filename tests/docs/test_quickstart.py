"""`make quickstart` does its whole job (here in a few steps)."""

import shlex
import subprocess
from pathlib import Path

import pytest

from scripts import solve, train
from tests.docs.blocks import ROOT


def quickstart_commands(tmp_path: Path) -> list[list[str]]:
    """The commands behind `make quickstart`, as make prints them, without the set-up of the environment."""
    environment = tmp_path / "venv"
    environment.mkdir()
    (environment / ".complete").touch()
    make = ["make", "--dry-run", "--no-print-directory", "quickstart", f"VENV={environment}"]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = printed.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if "/trm " in line]


@pytest.mark.slow
def test_quickstart_trains_evaluates_publishes_and_solves(tmp_path, monkeypatch, capsys):
    hard, training, solving = quickstart_commands(tmp_path)
    assert [command[1] for command in (hard, training, solving)] == ["solve", "train", "solve"]
    monkeypatch.chdir(ROOT)
    assert solve.main(hard[2:]) == 0
    assert capsys.readouterr().out.count("a valid solution") == 3  # the hard ones, by the shipped model
    output = tmp_path / "run"
    few = "--train_steps 4 --eval_every 4 --log_every 2 --validation_puzzles 8 --test_puzzles 9 --eval_max_steps 2"
    assert train.main([*training[2:], *few.split(), "--compile", "no", "--output_dir", str(output)]) == 0
    for name in ("README.md", "config.json", "model.safetensors", "preprocessor_config.json", "modeling_trm.py"):
        assert (output / "model" / name).stat().st_size > 0
    assert len(list((output / "model" / "plots").glob("*.png"))) == 3
    assert any((output / "trackers").rglob("events.out.tfevents.*"))  # the default tracker has written
    answers = [part.replace("runs/quickstart/model", str(output / "model")) for part in solving[2:]]
    assert solve.main(answers) == 0
    printed = capsys.readouterr().out
    assert printed.count("\nanswer after ") == 3 == printed.count("\nsteps 1 to ")  # of each puzzle, what changed
