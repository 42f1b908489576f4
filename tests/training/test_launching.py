"""`accelerate launch` as the pages and the helps tell it, without a word of its own; on all cores in any way."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands import launch

from modeling_trm.commands import trm
from tests.docs.blocks import PAGES, ROOT

LAUNCH = re.compile(r"^\s*(accelerate launch [^\n`]*)$", re.MULTILINE)
TEXTS = [
    *(page.read_text(encoding="utf-8") for page in PAGES),
    *(str(trm.command_module(name).__doc__) for name in trm.COMMANDS),
]
COMMANDS = sorted({command for text in TEXTS for command in LAUNCH.findall(text)})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_launcher_has_nothing_to_warn_of(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was not told it says on five lines, before our code begins."""
    warned: list[str] = []
    monkeypatch.setattr(launch.logger, "warning", warned.append)
    monkeypatch.chdir(ROOT)
    arguments = launch.launch_command_parser().parse_args(shlex.split(command)[2:])
    launch._validate_launch_command(arguments)
    assert warned == []
    assert (ROOT / arguments.training_script).is_file()


def test_torchrun_is_told_its_threads() -> None:
    """Else it says at length, for each command, that it takes one a process."""
    lines = [line for text in TEXTS for line in text.splitlines() if "torchrun --" in line]
    assert lines and all("OMP_NUM_THREADS=1 " in line.partition("torchrun")[0] for line in lines)


def test_there_are_such_commands() -> None:
    assert any("--multi_gpu" in command for command in COMMANDS)
    assert any("--multi_gpu" not in command for command in COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("config", [["--config_file", str(ROOT / "scripts/accelerate.yaml")], []], ids=["told", "bare"])
def test_one_process_has_all_cores(config: list[str], write_recipe) -> None:
    """Bare, the launcher says what it chose before any script begins, so that no script can be silent for it."""
    recipe = write_recipe("run", train_steps=1, eval_every=1, validation_puzzles=2, test_puzzles=2, cpu=True)
    command = [sys.executable, "-m", "accelerate.commands.launch", *config, str(ROOT / "scripts/train.py"), str(recipe)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    said = re.sub(r"[^\n]*\r", "", done.stderr)
    launcher, _, ours = said.rpartition("or run `accelerate config`.")
    assert bool(launcher) == (not config) and "arn" not in ours
    cores = len(os.sched_getaffinity(0))
    assert (f"{cores} threads, one a core" in done.stdout) == (cores > 1)
    assert Path(recipe.parent, "run", "model", "README.md").is_file()
