"""The options of the search: the same as `solve`'s, passed on as they are, and refused where they cannot be meant."""

import argparse
import inspect
from types import ModuleType

import pytest
import torch

from modeling_trm import TRMForGridReasoning
from modeling_trm.commands import evaluate, solve, sweep
from modeling_trm.commands import search_options as options
from modeling_trm.commands.search_options import check_search, describe_search
from modeling_trm.trajectories_trm import LATENTS, SELECTIONS


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    options.add_search_options(parser)
    parsed = parser.parse_args(arguments)
    check_search(parser, parsed)
    return parsed


def test_names_defaults_and_choices_are_those_of_solve() -> None:
    parameters = inspect.signature(TRMForGridReasoning.solve).parameters
    assert {name: parameters[name].default for name in options.PLAIN} == options.PLAIN
    assert parameters.keys() >= options.PLAIN.keys() | {"verifier", "generator"}
    assert (options.SELECTIONS, options.LATENTS) == (SELECTIONS, LATENTS)


def test_plain_solving_has_no_options() -> None:
    assert describe_search(parse("--seed", "3")) == {}
    assert options.search_options(parse(), "grid", (2, 3)) == {}


def test_options_are_passed_on() -> None:
    arguments = parse(*"--num-trajectories 3 --noise-std 0.5 --noise-on z_L --random-start --selection valid".split(),
                      *"--guidance 1.5 --damping 0.25 --max-batch 7 --seed 9".split())  # fmt: skip
    chosen = options.search_options(arguments, "sudoku", (9, 9))
    generator, verifier = chosen.pop("generator"), chosen.pop("verifier")
    expected = {"num_trajectories": 3, "noise_std": 0.5, "noise_on": "z_L", "random_start": True, "selection": "valid"}
    expected |= {"guidance": 1.5, "damping": 0.25, "max_batch": 7}
    assert chosen == expected
    assert describe_search(arguments) == expected | {"seed": 9}
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=torch.Generator().manual_seed(9)))
    assert verifier(torch.ones(1, 81).long(), torch.ones(1, 81).long()).tolist() == [False]
    with pytest.raises(ValueError, match="task='grid' has no known rules"):
        options.search_options(arguments, "grid", (2, 3))
    assert "verifier" not in options.search_options(parse("--noise-std", "1"), "grid", (2, 3))  # off by default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num-trajectories 2", "all trajectories would be the same one: give --noise-std above 0, --random-start"),
        ("--num-trajectories 0", "--num-trajectories must be at least 1, got 0"),
        ("--noise-std -1", "--noise-std must be 0 or more, got -1.0"),
        ("--noise-std nan", "--noise-std must be 0 or more, got nan"),
        ("--noise-std inf", "--noise-std must be 0 or more, got inf"),
        ("--noise-on z_L", "--noise-on z_L is for --noise-std above 0"),
        ("--selection vote", "--selection is for several trajectories"),
        ("--max-batch 4", "--max-batch is for several trajectories"),
        ("--num-trajectories 2 --random-start --max-batch 0", "--max-batch must be at least 1, got 0"),
        ("--guidance inf", "--guidance must be a finite number, got inf"),
        ("--damping 1", "--damping must be from 0 up to, not including, 1, got 1.0"),
        ("--selection best", "invalid choice: 'best'"),
    ],
)
def test_what_cannot_be_meant_is_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", [solve, evaluate, sweep], ids=lambda command: command.__name__)
def test_the_commands_that_search_have_the_options(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse_arguments(["--help"])
    shown = capsys.readouterr().out
    assert "--noise-std X" in shown and "--random-start" in shown
