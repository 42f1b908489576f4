"""`accelerate launch` as the pages and the helps tell it, without a word of its own; on all cores in any way."""

import os
import re
import shlex
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
@pytest.mark.parametrize("told", [True, False], ids=["told", "bare"])
def test_one_process_has_all_cores(told: bool, write_recipe, tmp_path: Path, monkeypatch, capfd) -> None:
    """Bare, the launcher says what it chose before any script begins, so that no script can be silent for it.

    Told, our script trains; bare, it is one that only sees to its threads, as what is launched is the same.
    """
    warned: list[str] = []
    monkeypatch.setattr(launch.logger, "warning", warned.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    recipe = write_recipe("run", train_steps=1, eval_every=1, validation_puzzles=2, test_puzzles=2, cpu=True)
    bare = tmp_path / "bare.py"
    bare.write_text("from modeling_trm.training.threads import use_all_cores\nprint(*use_all_cores())\n", "utf-8")
    config = ["--config_file", str(ROOT / "scripts/accelerate.yaml")] if told else []
    script = [str(ROOT / "scripts/train.py"), str(recipe)] if told else [str(bare)]
    launch.launch_command(launch.launch_command_parser().parse_args([*config, *script]))  # raises where it fails
    shown = capfd.readouterr()
    assert [text.endswith("or run `accelerate config`.") for text in warned] == [True] * (not told)
    assert "arn" not in re.sub(r"[^\n]*\r", "", shown.err)
    cores = len(os.sched_getaffinity(0))
    own = b"OMP_NUM_THREADS=" in Path("/proc/self/environ").read_bytes()  # of whoever runs these tests
    assert (f"{cores} threads, one a core" in shown.out) == (cores > 1 and not own)
    assert Path(recipe.parent, "run", "model", "README.md").is_file() == told
