"""--engine and --halt of the commands: the names are those of engines_trm; what is wrong is refused at once."""

from types import ModuleType

import pytest

from modeling_trm.commands import evaluate, options, solve, sweep
from modeling_trm.engines_trm import ENGINES

ARGUMENTS = {
    evaluate: ["--model", "none", "--task", "sudoku", "--output", "none"],
    solve: ["--model", "none", "puzzle"],
    sweep: ["--model", "none", "--task", "sudoku", "--output", "none"],
}


def test_the_names_are_those_of_the_engines() -> None:
    assert ("auto", *ENGINES) == options.ENGINES


@pytest.mark.parametrize("script", ARGUMENTS, ids=lambda script: script.__name__)
def test_an_unknown_engine_is_refused(script: ModuleType, refused) -> None:
    assert "argument --engine: invalid choice: 'fast'" in refused(script.main, [*ARGUMENTS[script], "--engine", "fast"])


@pytest.mark.parametrize(("given", "halt"), [([], False), (["--halt"], True), (["--halt", "0.9"], 0.9)])
def test_halting_is_a_switch_or_a_probability(given: list[str], halt: bool | float) -> None:
    """Evaluations take every step where nothing is said, solving what the checkpoint says."""
    assert evaluate.parse_arguments([*ARGUMENTS[evaluate], *given]).halt == halt
    assert solve.parse_arguments([*ARGUMENTS[solve], *given]).halt == (halt if given else None)
    assert solve.parse_arguments([*ARGUMENTS[solve], "--no-halt"]).halt is False


def test_a_halt_probability_of_1_is_refused(refused) -> None:
    assert "argument --halt: 1 is not between 0 and 1" in refused(
        evaluate.parse_arguments, [*ARGUMENTS[evaluate], "--halt", "1"]
    )
