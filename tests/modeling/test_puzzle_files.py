"""Puzzles are read from strings, files and stdin; what is no puzzle is told with its place; of ARC, tasks as JSON."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_trm import GridProcessor
from modeling_trm.puzzle_files_trm import NoPuzzle, read_arguments, read_text
from modeling_trm.puzzle_index_trm import IDENTITY, PuzzleIndex
from modeling_trm.puzzle_input_trm import Puzzle, read_puzzle

SUDOKU = GridProcessor("sudoku", grid_shape=(4, 4))
MAZE = GridProcessor("maze", grid_shape=(3, 5))
ARC = GridProcessor("arc", grid_shape=(4, 4))
PUZZLE = "1..4..1..1..4..1"
OTHER = "2..4..1..1..4..."
GRID, DEMONSTRATION = [[1, 0], [2, 3]], {"input": [[1, 2]], "output": [[2, 1]]}
TASK = {"train": [DEMONSTRATION], "test": [{"input": GRID}, {"input": [[4]], "output": [[5]]}]}


def texts(source: str, processor: GridProcessor = SUDOKU) -> list[tuple[str, object]]:
    """(name, the grid that was read or what is wrong)."""
    found = read_text(source, processor, "stdin")
    return [(one.name, processor.decode(one.input_ids) if isinstance(one, Puzzle) else one.error) for one in found]


def test_a_typed_puzzle() -> None:
    (puzzle,) = read_arguments([PUZZLE], SUDOKU, io.BytesIO())
    assert (puzzle.name, SUDOKU.decode(puzzle.input_ids)) == ("puzzle 1", PUZZLE)


@pytest.mark.parametrize("typed", ["1..4", "puzzles.txt", PUZZLE * 20])
def test_a_typed_puzzle_of_another_length_may_be_a_misspelt_file(typed: str) -> None:
    (puzzle,) = read_arguments([typed], SUDOKU, io.BytesIO())
    assert isinstance(puzzle, NoPuzzle)
    said = "there is no such file" if typed.endswith("txt") else "cells, expected 16 (4 x 4), and is no file either"
    assert said in puzzle.error
    assert len(puzzle.error) < 200 and puzzle.text == typed


def test_a_string_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from modeling_trm.grid_text_trm import GridReader

    cells: list[str] = []
    of_text = GridReader._cells_of_text
    monkeypatch.setattr(GridReader, "_cells_of_text", lambda self, text: (cells.append(text), of_text(self, text))[1])
    read_arguments([PUZZLE.replace(".", "-")], SUDOKU, io.BytesIO())
    read_puzzle(OTHER.replace(".", "-"), SUDOKU)
    assert cells == [PUZZLE.replace(".", "-"), OTHER.replace(".", "-")]


def test_one_puzzle_a_line() -> None:
    assert texts(f"{PUZZLE}\n\n  {OTHER}\r\n1234\n{PUZZLE.replace('4', '5')}\n{PUZZLE.replace('4', '1')}\n") == [
        ("stdin, line 1", PUZZLE),
        ("stdin, line 3", OTHER),
        ("stdin, line 4", "the grid has 4 cells, expected 16 (4 x 4)"),
        ("stdin, line 5", "row 1, column 4: '5' is not allowed; allowed: '.1234'"),
        ("stdin, line 6", "row 1, column 4: '1' is given twice in row 1, also at row 1, column 1"),
    ]


def test_rows_as_rendered() -> None:
    rendered = f"{SUDOKU.render(PUZZLE)}\n\n{SUDOKU.render(OTHER)}\n"
    assert texts(rendered) == [("stdin, lines 1 to 5", PUZZLE), ("stdin, lines 7 to 11", OTHER)]


def test_maze_rows_keep_their_spaces() -> None:
    first, second = "#####\n#S G#\n     ", "     \n S G \n#####"
    for source in (f"{first}\n\n{second}\n", f"{first}\n{second}"):
        assert [text for _, text in texts(source, MAZE)] == [first.replace("\n", ""), second.replace("\n", "")]


def test_spaces_of_a_maze_are_no_delimiters(tmp_path: Path) -> None:
    """On one line they would part it into fields that look like mazes."""
    path = tmp_path / "one.txt"
    path.write_text("#####S    #####\n" * 2)
    found = read_arguments([str(path)], MAZE, io.BytesIO())
    assert [one.error for one in found] == ["the maze has 0 cells 'G', expected 1"] * 2


def test_ragged_rows_name_the_line() -> None:
    assert texts("#####\n#S G\n#####\n", MAZE) == [("stdin, lines 1 to 3", "row 2 has 4 cells, expected 5")]


def test_files_and_empty_input(tmp_path: Path) -> None:
    path = tmp_path / "puzzles.txt"
    path.write_text(f"{PUZZLE}\n{OTHER}\n", encoding="utf-8")
    found = read_arguments([str(path), PUZZLE, "-"], SUDOKU, io.BytesIO(b"\n \n"))
    assert [SUDOKU.decode(puzzle.input_ids) for puzzle in found[:3]] == [PUZZLE, OTHER, PUZZLE]
    assert [puzzle.name for puzzle in found] == [f"{path}, line 1", f"{path}, line 2", "puzzle 2", "stdin"]
    assert found[3].error == "holds no puzzle"
    path.write_bytes(b"# R\xe4tsel")
    with pytest.raises(ValueError, match=r"puzzles\.txt: is not UTF-8 text in line 1"):
        read_arguments([str(path)], SUDOKU, io.BytesIO())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gzip"])
@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (f"{PUZZLE}\n{OTHER}\n", None),
        (f"puzzle,solution\n{PUZZLE},\n{OTHER},\n", None),
        (f"puzzle;solution\r\n{PUZZLE};\r\n{OTHER};\r\n", None),
        (f"start;end\n{PUZZLE};\n{OTHER};\n", {"question": "start"}),
        (json.dumps([{"puzzle": PUZZLE}, {"puzzle": OTHER}]), None),
        (json.dumps([PUZZLE, OTHER]), None),
    ],
)
def test_stdin_is_read_as_a_file_is(
    content: str, columns: dict[str, str] | None, encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "puzzles"
    path.write_bytes(gzip.compress(content.encode()) if encoding == "gzip" else content.encode(encoding))
    of_file = read_arguments([str(path)], SUDOKU, io.BytesIO(), columns=columns)
    of_stdin = read_arguments(["-"], SUDOKU, io.BytesIO(path.read_bytes()), columns=columns)
    assert [SUDOKU.decode(puzzle.input_ids) for puzzle in of_stdin] == [PUZZLE, OTHER]
    assert [f"{path}{puzzle.name.removeprefix('stdin')}" for puzzle in of_stdin] == [puzzle.name for puzzle in of_file]


def test_what_is_wrong_with_stdin_is_said_of_stdin() -> None:
    for data, message in (
        (b"", "^stdin: is empty"),
        (b"PK\x03\x04", "^stdin: is a zip archive"),
        (gzip.compress(PUZZLE.encode())[:-9], "^stdin: is cut short or damaged"),
        (b"start,end\n" + PUZZLE.encode() + b",", "^stdin: has no column that is known as the question"),
    ):
        with pytest.raises(ValueError, match=message):
            read_arguments(["-"], SUDOKU, io.BytesIO(data))
    packed = gzip.compress(json.dumps({"b1": TASK}).encode("utf-8-sig"))
    assert [puzzle.name for puzzle in read_arguments(["-"], ARC, io.BytesIO(packed))] == [
        "stdin: task b1, test 1",
        "stdin: task b1, test 2",
    ]


def test_arc_tasks_challenges_and_grids(tmp_path: Path) -> None:
    path = tmp_path / "a1.json"
    path.write_text(json.dumps(TASK))
    first, second = read_arguments([str(path)], ARC, io.BytesIO())
    assert (first.name, second.name) == (f"{path}: task a1, test 1", f"{path}: task a1, test 2")
    assert (ARC.decode(first.input_ids), ARC.decode(second.input_ids)) == (GRID, [[4]])
    assert first.arc_task.id == "a1" and len(first.arc_task.train) == 1
    broken = {"train": [DEMONSTRATION], "test": [{"input": [[1, 12]]}]}
    large = {"train": [DEMONSTRATION], "test": [{"input": [[1] * 5]}]}
    growing = {"train": [{"input": GRID, "output": [[1]] * 6}], "test": [{"input": GRID}]}
    why = "the checkpoint's canvas has 4 x 4; take a checkpoint with a larger one"
    assert texts(json.dumps({"b1": TASK, "b2": broken, "b3": large, "b4": growing}), ARC) == [
        ("stdin: task b1, test 1", GRID),
        ("stdin: task b1, test 2", [[4]]),
        ("stdin: task b2", "test 1, input, row 1: colour 12; allowed: whole numbers 0..9"),
        ("stdin: task b3", f"its grids need 1 x 5 cells, {why}"),
        ("stdin: task b4", f"its grids need 6 x 2 cells, {why}"),
    ]
    both = [("stdin: task b1, test 1", GRID), ("stdin: task b1, test 2", [[4]])]
    assert texts(json.dumps([TASK | {"id": "b1"}]), ARC) == both
    assert texts(json.dumps({part: {"b1": TASK[part]} for part in ("train", "test")}), ARC) == both
    assert texts(json.dumps([DEMONSTRATION]), ARC) == [
        ("stdin: task stdin", "is demonstrations alone, of which nothing is asked")
    ]
    assert texts(json.dumps(GRID), ARC) == [("stdin", GRID)]
    assert texts("10/23\n\n12/3\n", ARC)[0] == ("stdin, line 1", GRID)
    assert "is no arc grid" in str(texts("10/23\n\n12/3\n", ARC)[1][1])
    assert "is no JSON, or cut short" in str(texts('{"train": [', ARC)[0][1])
    (typed,) = read_arguments(["no.json"], ARC, io.BytesIO())
    assert typed.error == "there is no such file"
    (folder,) = read_arguments([str(tmp_path)], ARC, io.BytesIO())
    assert folder.error == "is a folder; give the files in it"
    (device,) = read_arguments(["/dev/null"], ARC, io.BytesIO())
    assert device.error == "is a pipe or a device; give - and let it be stdin"


def test_the_pipeline_takes_files_and_their_tasks_rows(echo_pipeline, tmp_path: Path) -> None:
    """A task that the table knows is run with its rows; another one with the blank row."""
    path = tmp_path / "a1.json"
    path.write_text(json.dumps(TASK))
    pipe, echo = echo_pipeline(ARC)
    index = PuzzleIndex(("evaluation/a1", "evaluation/other"), np.array([-1, 0, 0, 1]), np.tile(IDENTITY, (4, 1)))
    pipe.model._replace_table(torch.zeros(4, 32), index)
    assert [result["answer"] for result in pipe(path, views=2)] == [GRID, [[4]]]
    assert echo.puzzle_ids == [1, 2, 1, 2]
    echo.puzzle_ids = []
    pipe(path.rename(tmp_path / "a2.json"))
    assert echo.puzzle_ids == [0, 0]
    lines = tmp_path / "puzzles.txt"
    lines.write_text(f"{PUZZLE}\n1234\n")
    pipe, echo = echo_pipeline(SUDOKU)
    with pytest.raises(ValueError, match=r"puzzles.txt, line 2: the grid has 4 cells, expected 16"):
        pipe(lines)
    assert not echo.input_ids
