"""--engine of the scripts: the names are those of engines_trm, a wrong one is refused before anything is loaded."""

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
