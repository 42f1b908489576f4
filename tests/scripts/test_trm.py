"""`trm`: what there is; help and wrong arguments wait for no library; options mean the same everywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets_builders.arc_set import ON_LEAK, PROTOCOLS, ArcOptions
from modeling_trm.commands import build_data, trm
from modeling_trm.commands.trm import COMMANDS, command_module

ROOT = Path(trm.__file__).parents[2]
SCRIPTS = [
    path for path in sorted((ROOT / "scripts").glob("*.py")) if path.stem not in ("make_samples", "results_table")
]
# Every command's help, and what is imported by then.
HELP = """
import sys
from modeling_trm.commands import trm
sys.stdout = open("/dev/null", "w")
trm.main([])
for name in trm.COMMANDS:
    try:
        if name != "solve-onnx":  # it computes with numpy, and is one file
            trm.main([name, "--help"])
    except SystemExit as stop:
        assert stop.code == 0, name
heavy = {"torch", "transformers", "datasets", "numpy", "accelerate", "huggingface_hub", "yaml", "rich"}
heavy &= sys.modules.keys()
assert not heavy, heavy
"""
# A command that prints to a reader who has gone, where what the system says is a user's error.
PRINTS = """
import sys, types
from rich.console import Console
from modeling_trm.commands import trm
from modeling_trm.utils.cli import user_errors
def main(rest):
    with user_errors(OSError):
        {}
trm.command_module = lambda name: types.SimpleNamespace(main=main)
sys.exit(trm.main(["solve"]))
"""
MODEL_COMMANDS = ("solve", "evaluate", "vote", "sweep", "certify", "diagnose", "adapt", "export")
# All others meet models whose operators may be a user's own.
WITHOUT_OPERATORS = ("recipes", "build-data", "convert", "solve-onnx", "pack-checkpoint", "loop-experiment")
PUZZLE_COMMANDS = ("evaluate", "vote", "compare", "sweep", "certify", "diagnose")


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        command_module(command).main(["--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def option_in(shown: str, name: str) -> str:
    """The lines of an option in a help text, on one line."""
    lines = shown.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"  {name} "))
    end = next((n for n in range(start + 1, len(lines)) if not lines[n].startswith("    ")), len(lines))
    return " ".join(" ".join(lines[start:end]).split())


def test_help_and_wrong_arguments_wait_for_no_library() -> None:
    subprocess.run([sys.executable, "-c", HELP], check=True, cwd=ROOT)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(command, capsys)
    assert shown.startswith(f"usage: trm {command}") and (
        command in ("compare-recipes", "loop-experiment") or "example" in shown
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_meets_a_model_reads_operators_of_ones_own(command: str, capsys) -> None:
    assert ("--import" in help_of(command, capsys)) == (command not in WITHOUT_OPERATORS)


def test_without_arguments_every_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert trm.main([]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        (line,) = [line for line in shown.splitlines() if line.startswith(f"  {command} ")]
        assert len(line) > 30


def test_a_misspelt_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert trm.main(["evalute"]) == 2
    assert capsys.readouterr().err == "error: trm has no command 'evalute'; did you mean 'evaluate'?\n"


@pytest.mark.skipif(os.name != "posix", reason="of shells")
@pytest.mark.parametrize(
    "program",
    [
        ["-m", "modeling_trm.commands"],  # little, told when it is flushed
        ["-c", PRINTS.format("print('x', flush=True)")],
        ["-c", PRINTS.format("Console().print('x')")],
    ],
)
def test_a_reader_that_has_had_enough_is_no_error(program: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as pipe:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(
            [sys.executable, *program], stdout=pipe, stderr=subprocess.PIPE, cwd=ROOT, env=environment
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [["solve"], ["evaluate", "--model", "m"], ["benchmark", "--rounds", "x"]])
def test_a_wrong_argument_is_at_most_three_lines(arguments: list[str], refused) -> None:
    lines = refused(trm.main, arguments).splitlines()
    assert len(lines) <= 3 and ": error: " in lines[-1]


@pytest.mark.parametrize(
    ("commands", "option"),
    [
        (MODEL_COMMANDS, "--model"),
        (PUZZLE_COMMANDS, "--data"),
        (PUZZLE_COMMANDS, "--split"),
        (PUZZLE_COMMANDS, "--on-bad-row"),
        (("solve", *PUZZLE_COMMANDS), "--seed"),
        (("evaluate", "vote", "compare", "sweep", "certify"), "--batch-size"),
        (("evaluate", "vote", "compare", "sweep", "certify"), "--precision"),
        (("solve", "benchmark", "loop-experiment", *PUZZLE_COMMANDS), "--device"),
        (("solve", "evaluate", "vote", "sweep", "certify"), "--engine"),
        (("solve", "evaluate", "vote", "compare", "certify", "diagnose"), "--max-steps"),
    ],
)
def test_an_option_means_the_same_everywhere(commands, option, capsys) -> None:
    assert len({option_in(help_of(command, capsys), option) for command in commands}) == 1


def test_what_is_written_down_to_spare_imports_is_what_it_stands_for() -> None:
    defaults = ArcOptions()
    assert {name: getattr(defaults, name) for name in build_data.ARC_DEFAULTS} == build_data.ARC_DEFAULTS
    assert (build_data.PROTOCOLS, build_data.ON_LEAK) == (PROTOCOLS, ON_LEAK)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_thin_and_run_from_anywhere(script: Path, tmp_path: Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) < 40
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    shown = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert shown.stdout.startswith("usage: ")


@pytest.mark.parametrize(
    ("data", "expected"),
    [(None, {}), ("hub", {"dataset": "hub"}), ("org/name@v1.0", {"dataset": "org/name@v1.0"})],
)
def test_data_by_name(data, expected) -> None:
    from datasets_builders.sources import named_source

    assert named_source(data) == expected


def test_data_in_a_file_or_a_folder(tmp_path: Path) -> None:
    from datasets_builders.sources import named_source

    file = tmp_path / "hub"
    file.touch()
    assert named_source(str(tmp_path)) == {"data_dir": str(tmp_path)}
    assert named_source(str(file)) == {"data_files": str(file)}
    with pytest.raises(ValueError, match=r"--data 'no.csv': no such file or folder"):
        named_source("no.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no tasks: give --data FILE with challenges, or --subset NAME"),
        (["--subset", "training", "--solutions", "s.json"], "--solutions goes with a file of challenges"),
        (["--subset", "training", "--data", __file__], "--subset is of a folder of official JSON"),
    ],
)
def test_tasks_to_adapt_to_are_a_file_or_a_subset(arguments, message, refused) -> None:
    assert message in refused(command_module("adapt").parse_arguments, ["--model", "m", "--output", "o", *arguments])


def test_old_names_of_options_still_work() -> None:
    common = ["--model", "m", "--output", "o"]
    vote = command_module("vote").parse_arguments([*common, "--max-augmentations", "3"])
    compare = command_module("compare").parse_arguments(["--models", "a", "b", "--output", "o", "--votes", "3"])
    sweep = command_module("sweep").parse_arguments([*common, "--trajectories", "1", "4", "--views"])
    assert (vote.views, compare.views, sweep.views) == (3, 3, [1, 4])
    assert command_module("sweep").parse_arguments([*common, "--views", "1", "4"]).views == [1, 4]
    adapt, _ = command_module("adapt").parse_arguments([*common, "--challenges", "c.json"])
    assert adapt.data == "c.json"
    built = build_data.parse_arguments(["sudoku", "--output", "o", "--dataset", "hub"])
    assert (built.dataset, built.data) == ("hub", None)
