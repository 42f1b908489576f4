"""--engine and --halt of the scripts: the names are those of engines_trm; what is wrong is refused at once."""

from types import ModuleType

import pytest

from modeling_trm.engines_trm import ENGINES
from scripts import eval_puzzles, search_options, solve, sweep_inference

ARGUMENTS = {
    eval_puzzles: ["--model", "none", "--task", "sudoku", "--output", "none"],
    solve: ["--model", "none", "puzzle"],
    sweep_inference: ["--model", "none", "--task", "sudoku", "--output", "none"],
}


def test_the_names_are_those_of_the_engines() -> None:
    assert ("auto", *ENGINES) == search_options.ENGINES


@pytest.mark.parametrize("script", ARGUMENTS, ids=lambda script: script.__name__)
def test_an_unknown_engine_is_refused(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        script.main([*ARGUMENTS[script], "--engine", "fast"])
    assert stop.value.code == 2
    assert "argument --engine: invalid choice: 'fast'" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "halt"), [([], False), (["--halt"], True), (["--halt", "0.9"], 0.9)])
def test_halting_is_a_switch_or_a_probability(given: list[str], halt: bool | float) -> None:
    assert eval_puzzles.parse_arguments([*ARGUMENTS[eval_puzzles], *given]).halt == halt


def test_a_halt_probability_of_1_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        eval_puzzles.parse_arguments([*ARGUMENTS[eval_puzzles], "--halt", "1"])
    assert "argument --halt: 1 is not between 0 and 1" in capsys.readouterr().err
