"""The options of the search: the same as `solve`'s, passed on as they are, and refused where they cannot be meant."""

import argparse
from dataclasses import fields
from types import ModuleType

import pytest
import torch

from modeling_trm import ReasoningConfig
from modeling_trm.commands import evaluate, solve, sweep
from modeling_trm.commands import search_options as options


def parse(*arguments: str) -> tuple[argparse.Namespace, ReasoningConfig]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    options.add_halt_option(parser, default=None)
    options.add_search_options(parser)
    parsed = parser.parse_args(arguments)
    return parsed, options.check_reasoning(parser, parsed)


def test_every_option_is_a_field_and_none_is_given_by_default() -> None:
    arguments, config = parse()
    names = set(vars(arguments)) - {"seed"}
    assert names == {field.name for field in fields(ReasoningConfig)} - {"max_steps", "views", "engine", "certificate"}
    assert options.reasoning_options(arguments) == {} and config == ReasoningConfig()


def test_options_are_passed_on() -> None:
    given = "--num-trajectories 3 --noise-std 0.5 --noise-on z_L --random-start --selection valid --halt 0.95"
    _, config = parse(*given.split(), *"--guidance 1.5 --damping 0.25 --max-batch 7 --seed 9".split())
    expected = {"num_trajectories": 3, "noise_std": 0.5, "noise_on": "z_L", "random_start": True, "selection": "valid"}
    expected |= {"guidance": 1.5, "damping": 0.25, "max_batch": 7}
    assert config == ReasoningConfig(halt=0.95, **expected) and config.search == expected
    beside = options.run_time(config, 9, "sudoku", (9, 9))
    generator, verifier = beside["generator"], beside["verifier"]
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=torch.Generator().manual_seed(9)))
    assert verifier(torch.ones(1, 81).long(), torch.ones(1, 81).long()).tolist() == [False]
    with pytest.raises(ValueError, match="task='grid' has no known rules"):
        options.run_time(config, 9, "grid", (2, 3))
    assert options.run_time(ReasoningConfig(noise_std=1.0), 9, "grid", (2, 3))["verifier"] is None  # off by default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num-trajectories 2", "--num-trajectories 2: all trajectories would be the same one; give noise_std"),
        ("--num-trajectories 0", "--num-trajectories 0 is not allowed; allowed: whole numbers from 1"),
        ("--noise-std -1", "--noise-std -1.0 is not allowed; allowed: finite numbers from 0"),
        ("--noise-std nan", "--noise-std nan is not allowed"),
        ("--noise-std inf", "--noise-std inf is not allowed"),
        ("--noise-on z_L", "--noise-on z_L is for --noise-std above 0"),
        ("--selection vote", "--selection is for several trajectories"),
        ("--max-batch 4", "--max-batch is for several trajectories"),
        (
            "--num-trajectories 2 --random-start --max-batch 0",
            "--max-batch 0 is not allowed; allowed: whole numbers from 1",
        ),
        ("--guidance inf", "--guidance inf is not allowed; allowed: finite numbers"),
        ("--damping 1", "--damping 1.0 is not allowed; allowed: numbers from 0 up to, not including, 1"),
        ("--halt 1", "argument --halt: 1 is not between 0 and 1"),
        ("--halt yes", "argument --halt: 'yes' is no number between 0 and 1"),
        ("--halt 0.5 --no-halt", "not allowed with argument --halt"),
        ("--selection best", "invalid choice: 'best'"),
    ],
)
def test_what_cannot_be_meant_is_one_line(arguments: str, message: str, refused) -> None:
    assert message in refused(parse, *arguments.split()).splitlines()[-1]


@pytest.mark.parametrize("command", [solve, evaluate, sweep], ids=lambda command: command.__name__)
def test_the_commands_that_search_have_the_options(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse_arguments(["--help"])
    shown = capsys.readouterr().out
    assert "--noise-std X" in shown and "--random-start" in shown
