"""pipeline("grid-reasoning"): every way to give a puzzle, what is refused, batches, registration.

Oracles: model.solve, and a stand-in for it that answers with its input. Votes: test_pipeline_votes.py.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoConfig, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from modeling_trm import PRESETS, GridProcessor, GridReasoningPipeline, ReasoningConfig, TRMConfig
from modeling_trm.verifiers_trm import verifier_for
from tests.modeling.conftest import ARC, GRID, MAZE, SUDOKU

PUZZLES = ["1.3.....2...4...", "................", "1234341221434321", "4...3......1...2", "..2....1.3......"]
MAZE_TEXT = "#S# # # #   #G##"
COLOURS = [[1, 0, 0], [2, 3, 4]]
Make = Callable[..., Any]


@pytest.mark.parametrize("preset", PRESETS)
def test_results_are_those_of_solve(make_pipeline: Make, preset: str) -> None:
    pipe = make_pipeline(SUDOKU, preset)
    for halt in (True, False):
        results = pipe(PUZZLES, halt=halt, return_trace=True, batch_size=2, max_steps=3)
        solved = pipe.model.solve(SUDOKU(PUZZLES)["input_ids"], halt=halt, return_trace=True, max_steps=3)
        for number, result in enumerate(results):
            assert result["answer"] == SUDOKU.decode(solved.answers[number])
            # Without a clue all symbols of a model with fields are alike.
            assert result["answer"] is not None or (pipe.model.config.symbol_fields and set(PUZZLES[number]) == {"."})
            assert result["halt_probability"] == pytest.approx(float(solved.halt_probability[number]), abs=1e-7)
            assert result["steps"] == int(solved.steps[number]) == len(result["trace"])
            for step, frame in enumerate(result["trace"]):
                rows, answers, *_ = solved.trace[step]
                expected = SUDOKU.decode(answers[rows.tolist().index(number)])
                assert (frame["step"], frame["answer"]) == (step + 1, expected)
            assert result["trace"][-1]["answer"] == result["answer"]
            assert result["trace"][-1]["halt_probability"] == result["halt_probability"]
    assert set(pipe(PUZZLES[0])) == {"answer", "halt_probability", "steps"}


@pytest.mark.parametrize("selection", ["halt", "vote", "residual", "valid"])
def test_several_trajectories_are_those_of_solve(make_pipeline: Make, selection: str) -> None:
    pipe = make_pipeline(SUDOKU, "trm-attn")
    search = {"num_trajectories": 3, "noise_std": 1.0, "selection": selection, "guidance": 1.5, "damping": 0.1}
    solved = pipe.model.solve(
        SUDOKU(PUZZLES)["input_ids"],
        max_steps=3,
        generator=torch.Generator().manual_seed(7),
        verifier=verifier_for("sudoku", (4, 4)) if selection == "valid" else None,
        **search,
    )
    for batch_size in (2, 64):
        results = pipe(PUZZLES, max_steps=3, halt=False, seed=7, batch_size=batch_size, **search)
        assert [result["answer"] for result in results] == [SUDOKU.decode(answer) for answer in solved.answers]
    with_votes = pipe(PUZZLES, max_steps=3, halt=False, seed=7, views=2, **search)
    assert all(sum(vote["votes"] for vote in result["votes"]) <= 2 for result in with_votes)
    with pytest.raises(ValueError, match="num_trajectories=0 is not allowed"):
        pipe(PUZZLES, num_trajectories=0)
    with pytest.raises(ValueError, match="random_start=1 is not allowed"):
        pipe(PUZZLES, random_start=1)


ROWS = [PUZZLES[0][start : start + 4] for start in range(0, 16, 4)]
DIGITS = [[0 if cell == "." else int(cell) for cell in row] for row in ROWS]
FORMS = {
    "string": PUZZLES[0],
    "zeros": PUZZLES[0].replace(".", "0"),
    "lines": "\n".join(ROWS),
    "rendered": SUDOKU.render(PUZZLES[0]),
    "rows": ROWS,
    "rendered rows": SUDOKU.render(PUZZLES[0]).splitlines(),
    "digits": DIGITS,
    "tuples": tuple(tuple(row) for row in DIGITS),
    "characters": [list(row) for row in ROWS],
    "cells": [cell for row in DIGITS for cell in row],
    "list of characters": list(PUZZLES[0]),
    "numpy": np.array(DIGITS, dtype=np.uint8),
    "flat numpy": np.array(DIGITS).reshape(-1),
    "torch": torch.tensor(DIGITS),
    "numpy characters": np.array([list(row) for row in ROWS]),
    "floats": np.array(DIGITS, dtype=np.float32),
    "pandas": pd.DataFrame(DIGITS, dtype=float).to_numpy(),
    "half": torch.tensor(DIGITS).half(),
    "list of arrays": [np.array(row) for row in DIGITS],
    "dict": {"grid": DIGITS},
    "row of a data set": {"source": "s", "question": PUZZLES[0], "answer": "1" * 16, "rating": 3},
    "row of a file": {"id": 1, "quizzes": PUZZLES[0], "solutions": "1" * 16},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_sudoku(echo_pipeline: Make, form: str) -> None:
    pipe, _ = echo_pipeline(SUDOKU)
    one = {"answer": PUZZLES[0], "halt_probability": 0.25, "steps": 7}
    assert pipe(FORMS[form]) == one
    assert pipe([FORMS[form]]) == [one]
    assert [result["answer"] for result in pipe([FORMS[form], PUZZLES[3], FORMS[form]])] == [
        PUZZLES[0], PUZZLES[3], PUZZLES[0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("processor", "forms", "answer"),
    [
        (MAZE, [MAZE_TEXT, [MAZE_TEXT[i : i + 4] for i in range(0, 16, 4)], list(MAZE_TEXT)], MAZE_TEXT),
        (GRID, ["ab01" * 4, ["ab01"] * 4, [["a", "b", 0, 1]] * 4, [["a", "b", 0.0, 1.0]] * 4], "ab01" * 4),
        (
            ARC,
            [
                COLOURS,
                np.array(COLOURS, dtype=float),
                torch.tensor(COLOURS).float(),
                np.array(COLOURS),
                torch.tensor(COLOURS),
                "100/234",
                {"grid": COLOURS},
            ],
            COLOURS,
        ),
    ],
    ids=["maze", "grid", "arc"],
)
def test_forms_of_the_other_tasks(echo_pipeline: Make, processor: GridProcessor, forms: list[Any], answer: Any) -> None:
    pipe, _ = echo_pipeline(processor)
    for form in forms:
        assert pipe(form)["answer"] == answer
        assert [result["answer"] for result in pipe([form, form])] == [answer, answer]
    assert [result["answer"] for result in pipe(forms)] == [answer] * len(forms)


def test_arrays_of_several_puzzles_and_large_sudokus(echo_pipeline: Make) -> None:
    pipe, _ = echo_pipeline(SUDOKU)
    several = np.stack([np.array(DIGITS), np.zeros((4, 4), dtype=int)])
    for batch in (several, torch.from_numpy(several), several.reshape(2, 16), list(several)):
        assert [result["answer"] for result in pipe(batch)] == [PUZZLES[0], "." * 16]
    assert pipe([]) == []
    large = GridProcessor("sudoku", grid_shape=(16, 16))
    pipe, _ = echo_pipeline(large)
    assert pipe([list(range(1, 17))] + [[0] * 16] * 15)["answer"] == "123456789ABCDEFG" + "." * 240
    hexadecimal = "0123456789ABCDEF" + "." * 240
    with pytest.raises(ValueError, match=r"'0' may be a blank or a digit here: say characters='\.123456789ABCDEFG' "):
        pipe(hexadecimal)
    for puzzles in (hexadecimal, [hexadecimal], iter([hexadecimal])):
        found = pipe(puzzles, characters=".0123456789ABCDEF")
        (result,) = [found] if isinstance(found, dict) else found
        assert result["answer"] == hexadecimal  # as it was asked
    with pytest.raises(ValueError, match="characters='01' is not allowed; allowed: 17 different characters"):
        pipe(hexadecimal, characters="01")


@pytest.mark.parametrize(
    ("processor", "puzzles", "message"),
    [
        (SUDOKU, [PUZZLES[0], "1.3.....2...4.."], "puzzle 2: the grid has 15 cells, expected 16 (4 x 4)"),
        (SUDOKU, [PUZZLES[0], "1.3.....2...4..7"], "puzzle 2: row 4, column 4: '7' is not allowed; allowed: '.1234'"),
        (SUDOKU, [DIGITS, [[0, 0, 5, 0]] * 4], "puzzle 2: row 1, column 3: 5 is not allowed; allowed: 0..4 or '.1234'"),
        (SUDOKU, [[0, 0.5, 0, 0]] * 4, "row 1, column 2: 0.5 is not allowed; allowed: 0..4 or '.1234'"),
        (SUDOKU, [0] * 15 + [float("nan")], "row 4, column 4: nan is not allowed; allowed: 0..4 or '.1234'"),
        (SUDOKU, [0] * 15 + [float("inf")], "row 4, column 4: inf is not allowed; allowed: 0..4 or '.1234'"),
        (SUDOKU, np.eye(4) > 2, "row 1, column 1: False is not allowed; allowed: 0..4 or '.1234'"),
        (SUDOKU, torch.zeros(2, 16, dtype=torch.bool), "puzzle 1: row 1, column 1: False is not allowed"),
        (GRID, [["a", "b", 0, True]] * 4, "row 1, column 4: True is not allowed; allowed: 'ab012'"),
        (GRID, [["a", "b", 0, 1.5]] * 4, "row 1, column 4: 1.5 is not allowed; allowed: 'ab012'"),
        (ARC, [COLOURS, [[1, True]]], "puzzle 2: row 1, column 2: colour True is not allowed; allowed: 0..9"),
        (ARC, np.ones((2, 2), dtype=bool), "row 1, column 1: colour True is not allowed; allowed: 0..9"),
        (ARC, [[1, 2.5]], "row 1, column 2: colour 2.5 is not allowed; allowed: 0..9"),
        (ARC, [[1, float("nan")]], "row 1, column 2: colour nan is not allowed; allowed: 0..9"),
        (SUDOKU, ROWS[:3], "the grid has 3 rows, expected 4"),
        (SUDOKU, [*ROWS[:3], ROWS[3] + "."], "row 4 has 5 cells, expected 4"),
        (SUDOKU, [[*DIGITS[0], 1], *DIGITS[1:]], "row 1 has 5 cells, expected 4"),
        (SUDOKU, [0] * 15, "the grid has 15 cells, expected 16 (4 x 4)"),
        (SUDOKU, None, "a sudoku grid is a string, rows or an array of cells; got None"),
        (
            SUDOKU,
            {"start": PUZZLES[0]},
            "a puzzle as a dict has the keys 'grid' and, for ARC, 'puzzle_task', or a row's",
        ),
        (SUDOKU, {"puzzle": PUZZLES[0], "quiz": ""}, "a puzzle as a dict: has a question in the columns 'puzzle', 'qu"),
        (
            SUDOKU,
            {"grid": PUZZLES[0], "question": "1"},
            "a puzzle as a dict has the keys 'grid' and, for ARC, 'puzzle_",
        ),
        (ARC, {"grid": COLOURS, "puzzle-task": "a"}, "did you mean 'puzzle_task'?"),
        (SUDOKU, {"grid": PUZZLES[0], "puzzle_task": "a"}, "puzzle_task='a' is not allowed; allowed: the name of an"),
        (MAZE, ["x" * 16], "puzzle 1: row 1, column 1: 'x' is not allowed; allowed: '# SGo'"),
        (GRID, [["a", "b", 0, 12]] * 4, "row 1, column 4: 12 is not allowed; allowed: 'ab012'"),
        (ARC, [COLOURS, [[1, 10]]], "puzzle 2: row 1, column 2: colour 10 is not allowed; allowed: 0..9"),
        (ARC, [COLOURS, [[1] * 5]], "puzzle 2: the grid is 1 x 5, at most 4 x 4"),
        (ARC, [1, 2], "an arc grid is a list of rows of colours 0..9 or text like '012/340'; got [1, 2]"),
        (ARC, "12/3", "'12/3' is no arc grid"),
        (ARC, [COLOURS, {"grid": COLOURS, "puzzle_task": "evaluation/b"}], "puzzle 2: task 'evaluation/b' has no row"),
    ],
)
def test_what_is_no_puzzle_is_named_before_anything_runs(
    echo_pipeline: Make, processor: GridProcessor, puzzles: Any, message: str
) -> None:
    pipe, echo = echo_pipeline(processor)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        pipe(puzzles, batch_size=1)
    assert "\n" not in str(error.value)
    assert not echo.input_ids


@pytest.mark.parametrize(
    ("processor", "puzzle", "message"),
    [
        (SUDOKU, "11" + "." * 14, "row 1, column 2: '1' is given twice in row 1, also at row 1, column 1"),
        (SUDOKU, ".2..00...2......", "row 3, column 2: '2' is given twice in column 2, also at row 1, column 2"),
        (SUDOKU, "..3....3........", "row 2, column 4: '3' is given twice in box 2, also at row 1, column 3"),
        (SUDOKU, [[0] * 4] * 3 + [[4, 0, 0, 4]], "row 4, column 4: '4' is given twice in row 4"),
        (SUDOKU, "4..4" + "." * 12, "row 1, column 4: '4' is given twice in row 1, also at row 1, column 1"),
        (MAZE, MAZE_TEXT.replace("S", " "), "the maze has 0 cells 'S', expected 1"),
        (MAZE, MAZE_TEXT.replace("S", "G"), "the maze has 0 cells 'S', expected 1"),
        (MAZE, MAZE_TEXT.replace(" ", "G"), "cells 'G', expected 1"),
        (MAZE, MAZE_TEXT.replace("  ", " o"), "the maze has 1 cells 'o', expected 0"),
    ],
)
def test_puzzles_without_a_solution_are_refused(
    echo_pipeline: Make, processor: GridProcessor, puzzle: Any, message: str
) -> None:
    pipe, echo = echo_pipeline(processor)
    good = PUZZLES[0] if processor is SUDOKU else MAZE_TEXT
    for inputs, number in ((puzzle, ""), ([good, puzzle], "puzzle 2: "), (iter([good, puzzle]), "puzzle 2: ")):
        echo.input_ids = []
        with pytest.raises(ValueError, match=f"^{number}(row|the maze)") as error:
            list(pipe(inputs))
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert not echo.input_ids


def test_all_digits_of_a_full_sudoku_and_any_text_grid_are_fine(echo_pipeline: Make) -> None:
    pipe, _ = echo_pipeline(SUDOKU)
    assert pipe(PUZZLES[2])["answer"] == PUZZLES[2]
    pipe, _ = echo_pipeline(GRID)
    assert pipe("1" * 16)["answer"] == "1" * 16


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"max_step": 3}, TypeError, "there is no option 'max_step'; did you mean 'max_steps'?"),
        (
            {"temperature": 1},
            TypeError,
            "allowed: max_steps, halt, views, num_trajectories, noise_std",
        ),
        ({"max_steps": 0}, ValueError, "max_steps=0 is not allowed; allowed: whole numbers from 1"),
        ({"num_votes": 3}, TypeError, "there is no option 'num_votes': it is called 'views'"),
        ({"unknown": "??"}, ValueError, "unknown='??' is not allowed; allowed: None, or one character"),
        ({"views": True}, ValueError, "views=True is not allowed; allowed: whole numbers from 1"),
        ({"batch_size": 0}, ValueError, "batch_size=0 is not allowed; allowed: whole numbers from 1"),
        ({"seed": -1}, ValueError, "seed=-1 is not allowed; allowed: whole numbers from 0"),
        ({"halt": 1}, ValueError, "halt=1 is not allowed; allowed: True, False"),
    ],
)
def test_parameters_are_checked(make_pipeline: Make, parameters: dict[str, Any], kind: Any, message: str) -> None:
    pipe = make_pipeline(SUDOKU)
    with pytest.raises(kind) as error:
        pipe(PUZZLES[0], **parameters)
    assert message in str(error.value)
    if "batch_size" not in parameters:
        with pytest.raises(kind):
            pipeline("grid-reasoning", model=pipe.model, feature_extractor=SUDOKU, device="cpu", **parameters)


def test_parameters_of_the_construction_hold_until_a_call_says_otherwise(make_pipeline: Make) -> None:
    model = make_pipeline(SUDOKU).model
    pipe: Any = pipeline(
        "grid-reasoning", model=model, feature_extractor=SUDOKU, device="cpu", max_steps=2, halt=False, views=3
    )
    assert pipe(PUZZLES[0])["steps"] == 2
    assert len(pipe(PUZZLES[0])["votes"]) >= 1
    assert pipe(PUZZLES[0], max_steps=None)["steps"] == 4
    assert "votes" not in pipe(PUZZLES[0], views=1)
    own = ReasoningConfig(max_steps=1, views=2)
    assert "votes" in pipe(PUZZLES[0], reasoning_config=own) and pipe(PUZZLES[0], max_steps=1)["steps"] == 1


def test_a_model_for_other_puzzles_is_refused(make_pipeline: Make) -> None:
    for processor, message in ((ARC, "vocab_size=6"), (GridProcessor("maze"), "seq_len=16")):
        with pytest.raises(ValueError, match=f"its config has {message}, but '{processor.task}' puzzles need"):
            pipeline("grid-reasoning", model=make_pipeline(SUDOKU).model, feature_extractor=processor, device="cpu")


# --- batches --------------------------------------------------------------------------------------------------------


def test_views_of_all_puzzles_fill_the_batches(echo_pipeline: Make) -> None:
    pipe, echo = echo_pipeline(SUDOKU)
    pipe(PUZZLES, views=3, batch_size=4)
    assert [len(batch) for batch in echo.input_ids] == [4, 4, 4, 3]
    echo.input_ids = []
    pipe(PUZZLES * 30)
    assert [len(batch) for batch in echo.input_ids] == [64, 64, 22]


def test_an_iterator_is_read_as_it_is_solved(echo_pipeline: Make) -> None:
    pipe, echo = echo_pipeline(SUDOKU)
    read = []

    def puzzles() -> Any:
        for number, puzzle in enumerate([*PUZZLES, "broken"]):
            read.append(number)
            yield puzzle

    results = pipe(puzzles(), batch_size=2)
    assert not read
    assert next(results)["answer"] == PUZZLES[0]
    assert len(read) < len(PUZZLES)
    with pytest.raises(ValueError, match="puzzle 6: the grid has 6 cells"):
        list(results)
    assert [len(batch) for batch in echo.input_ids] == [2, 2]
    rows = KeyDataset([{"question": puzzle} for puzzle in PUZZLES], "question")
    assert [result["answer"] for result in pipe(rows)] == PUZZLES


# --- registration ---------------------------------------------------------------------------------------------------


def saved(pipe: Any, folder: Path) -> Path:
    pipe.model.save_pretrained(folder)
    pipe.feature_extractor.save_pretrained(folder)
    return folder


def test_the_package_needs_no_trust_and_writes_no_entry(make_pipeline: Make, tmp_path: Path) -> None:
    pipe = make_pipeline(SUDOKU)
    expected = pipe(PUZZLES)
    folder = saved(pipe, tmp_path / "model")
    for _ in range(2):
        assert pipeline("grid-reasoning", model=str(folder), device="cpu")(PUZZLES) == expected
    loaded: Any = pipeline("grid-reasoning", model=str(folder), trust_remote_code=True, device="cpu")
    assert isinstance(loaded, GridReasoningPipeline)
    loaded.save_pretrained(tmp_path / "again")
    for path in (folder, tmp_path / "again"):
        assert "custom_pipelines" not in json.loads((path / "config.json").read_text())
        assert {"pipeline_trm.py", "puzzle_input_trm.py", "voting_trm.py", "augmentation_trm.py", "randomness_trm.py",
                "processing_trm.py"} <= {file.name for file in path.iterdir()}  # fmt: skip
    assert {file.name for file in folder.iterdir()} == {file.name for file in (tmp_path / "again").iterdir()}
    assert pipeline("grid-reasoning", model=str(tmp_path / "again"), device="cpu")(PUZZLES) == expected


def test_an_entry_in_the_config_changes_nothing(make_pipeline: Make, tmp_path: Path) -> None:
    pipe = make_pipeline(SUDOKU)
    folder = saved(pipe, tmp_path)
    before = AutoConfig.from_pretrained(folder)
    content = json.loads((folder / "config.json").read_text())
    entry = {"impl": "pipeline_trm.GridReasoningPipeline", "pt": ["AutoModel"]}
    content["custom_pipelines"] = {"grid-reasoning": entry}
    (folder / "config.json").write_text(json.dumps(content))
    after = TRMConfig.from_pretrained(folder)
    assert after.to_diff_dict() == before.to_diff_dict()
    assert after.custom_pipelines == {}
    assert pipeline("grid-reasoning", model=str(folder), device="cpu")(PUZZLES) == pipe(PUZZLES)


def test_tables_and_names_of_files_are_told_from_puzzles(make_pipeline: Make, tmp_path: Path, monkeypatch) -> None:
    pipe = make_pipeline(SUDOKU)
    frame = pd.DataFrame({"question": PUZZLES})
    with pytest.raises(ValueError, match=r"a DataFrame is no list of puzzles; give the column .*table\['question'\]"):
        pipe(frame)
    assert len(pipe(frame["question"].tolist(), max_steps=1)) == len(PUZZLES)
    monkeypatch.chdir(tmp_path)
    Path("puz").write_text(PUZZLES[0])
    for name in ("puz", "puz.txt", "data/puzzles.csv"):
        for given in (name, [PUZZLES[0], name]):
            with pytest.raises(ValueError, match=rf"'{re.escape(name)}' is .*file.*pathlib\.Path\("):
                pipe(given)
