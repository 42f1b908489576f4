"""Rows of tables: those that are empty are none, and a message has the number that a row has in its file."""

from pathlib import Path

import pytest

from datasets_builders.features import load_puzzles
from datasets_builders.validation import DataError
from modeling_trm.processing_trm import GridProcessor
from modeling_trm.puzzle_files_trm import read_file

QUESTION, ANSWER = "1.3..41.2..3.32.", "1234341221434321"


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("header", [True, False])
def test_empty_rows_are_none(tmp_path: Path, delimiter: str, header: bool) -> None:
    """Excel writes them below a table. One that has a number beside no puzzle is one that may be wrong."""
    names, row, empty = "id,question,answer", f"7,{QUESTION},{ANSWER}", ',"",'
    lines = [*[names] * header, row, empty, row, empty, empty]
    path = write(tmp_path / "a.csv", "\r\n".join(lines).replace(",", delimiter))
    assert len(load_puzzles("sudoku", "test", data_files=path)) == 2
    found = read_file(path, GridProcessor("sudoku", grid_shape=(4, 4)))
    assert [one.name for one in found] == [f"{path}, row {row}" for row in (1, 3)]
    path = write(path, "\r\n".join([*lines[:-1], "8,,", empty]).replace(",", delimiter))
    with pytest.raises(DataError, match=r"^1 of 3 rows are bad.*:\n.*a\.csv, row 5: the question: has 0 cells"):
        load_puzzles("sudoku", "test", data_files=path)
    first = write(tmp_path / "b.csv", f"question,answer\n{QUESTION},{ANSWER}\n,\n")
    with pytest.raises(DataError, match=r"a\.csv, row 5: the question: has 0 cells"):
        load_puzzles("sudoku", "test", data_files=[first, path])
    assert [
        (row.file, row.row) for row in load_puzzles("sudoku", "test", data_files=path, on_bad_row="skip").bad_rows
    ] == [(str(path), 5)]
    with pytest.raises(DataError, match="the data set is empty: it has no rows"):
        load_puzzles("sudoku", "test", data_files=write(tmp_path / "c.csv", "question,answer\n,\n"))
