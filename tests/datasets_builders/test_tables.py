"""Files of puzzles as people have them: every line of the table in docs/your-puzzles.md, encodings, types, damage."""

import contextlib
import gzip
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_builders.features import PuzzleSet, load_puzzles
from datasets_builders.validation import DataError
from modeling_trm.grid_text_trm import SUDOKU_DIGITS
from modeling_trm.processing_trm import GridProcessor
from modeling_trm.puzzle_files_trm import read_file
from modeling_trm.puzzle_input_trm import Puzzle
from modeling_trm.puzzle_tables_trm import read_puzzles

QUESTION, ANSWER = "1.3..41.2..3.32.", "1234341221434321"
SMALL = GridProcessor("sudoku", grid_shape=(4, 4))
CSV = f"question,answer\n{QUESTION},{ANSWER}\n"
NUMBERS = [0 if cell == "." else int(cell) for cell in QUESTION]
DOCUMENT = Path(__file__).parents[2] / "docs" / "your-puzzles.md"
LINE = re.compile(r"\| (\S+) \| `(.*)` \| (read|solved|refused: `(?P<error>.*)`)(, `(?P<note>.*)`)? \|")


def load(path: Path, task: str = "sudoku", **options: Any) -> PuzzleSet:
    return load_puzzles(task, "test", data_files={"test": path}, **options)


def assert_is_the_puzzle(puzzles: PuzzleSet) -> None:
    for ids_NL, grid in ((puzzles.inputs, QUESTION), (puzzles.labels, ANSWER)):
        assert {puzzles.processor.decode(ids_L) for ids_L in ids_NL} == {grid}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def documented(solved: bool = False) -> list[re.Match[str]]:
    """The lines of the tables: of files to be solved, or of those that have answers."""
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if re.match(r"\| \w+\.\w+ \|", line)]
    matches = [LINE.fullmatch(row) for row in rows]
    assert all(matches), [row for row, match in zip(rows, matches, strict=True) if match is None]
    to_solve = (".list", ".sdk")
    return [match for match in matches if match is not None and match[1].endswith(to_solve) == solved]


def written(row: re.Match[str], folder: Path) -> Path:
    return write(folder / row[1], row[2].replace(r"\n", "\n").replace(r"\t", "\t").replace(r"\|", "|"))


@pytest.mark.parametrize("row", documented(), ids=lambda row: row[1])
def test_the_table_of_the_documentation(row: re.Match[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(row, tmp_path)
    if row["error"] is None:
        assert_is_the_puzzle(load(path))
        assert (row["note"] or "") in caplog.text
        for puzzle in read_file(path, SMALL):  # what solve and the pipeline read
            assert isinstance(puzzle, Puzzle) and SMALL.decode(puzzle.input_ids) == QUESTION
    else:
        with pytest.raises(DataError, match=re.escape(row["error"])):
            load(path)


@pytest.mark.parametrize("row", documented(solved=True), ids=lambda row: row[1])
def test_the_table_of_puzzles_to_be_solved(row: re.Match[str], tmp_path: Path) -> None:
    path = written(row, tmp_path)
    if row["error"] is not None:
        with pytest.raises(DataError, match=re.escape(row["error"])):
            read_file(path, SMALL)
        return
    found = read_file(path, SMALL)
    assert all(isinstance(one, Puzzle) and SMALL.decode(one.input_ids) == QUESTION for one in found)
    assert len(found) == (2 if row[1] == "texts.list" else 1)


def test_what_the_names_say_themselves_is_not_said_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(write(tmp_path / "a.csv", CSV))
    assert caplog.text == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gzip"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a"])
def test_encodings_are_told_by_content(tmp_path: Path, encoding: str, end: str, name: str) -> None:
    text = f"# Rätsel\n{CSV}".partition("\n")[2].replace("\n", end)
    if encoding == "gzip":  # of two members, as `cat` makes of two packed files
        content = gzip.compress(text.encode()) + gzip.compress(f"{QUESTION},{ANSWER}{end}".encode())
    else:
        content = text.encode(encoding)
    path = write(tmp_path / name, content)
    if encoding == "utf-16-le":  # no byte order mark: bytes that no text has
        with pytest.raises(DataError, match="is no text, parquet or Arrow file: it has a zero byte at position 1"):
            load(path)
        return
    puzzles = load(path)
    assert_is_the_puzzle(puzzles)
    assert len(puzzles) == (2 if encoding == "gzip" else 1)
    assert puzzles.sources.tolist() == ["a"] * len(puzzles)


CELLS = {
    "text": [QUESTION],
    "text as bytes": pa.array([QUESTION.encode()]),
    "large text": pa.array([QUESTION], pa.large_string()),
    "dictionary": pa.array([QUESTION]).dictionary_encode(),
    "numbers": [NUMBERS],
    "bytes": pa.array([NUMBERS], pa.list_(pa.uint8())),
    "floats": [[float(cell) for cell in NUMBERS]],
    "rows": [np.reshape(NUMBERS, (4, 4)).tolist()],
    "fixed": pa.array([NUMBERS], pa.list_(pa.int64(), 16)),
    "large lists": pa.array([NUMBERS], pa.large_list(pa.int64())),
    "fixed rows": pa.array([np.reshape(NUMBERS, (4, 4)).tolist()], pa.list_(pa.list_(pa.int8(), 4), 4)),
    "characters": [list(QUESTION)],
    "text numbers": [[str(cell) for cell in NUMBERS]],
    "lines": [[QUESTION[start : start + 4] for start in range(0, 16, 4)]],
}


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream", "dataset"])
def test_types_of_cells(tmp_path: Path, kind: str, cells: str) -> None:
    table = pa.table({"question": CELLS[cells], "answer": [[int(cell) for cell in ANSWER]], "id": [1]})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "dataset":
        mine = datasets.Dataset(table)
        assert_is_the_puzzle(load_puzzles("sudoku", "train", dataset=mine))
        return
    else:
        new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table)
    assert_is_the_puzzle(load(path))


def test_arrays_of_datasets_and_slices_of_lists() -> None:
    features = datasets.Features({name: datasets.Array2D((4, 4), "int32") for name in ("question", "answer")})
    grids = [np.reshape(cells, (4, 4)).tolist() for cells in (NUMBERS, [int(cell) for cell in ANSWER])]
    mine = datasets.Dataset.from_dict(dict(zip(features, ([grid] for grid in grids), strict=True)), features=features)
    assert_is_the_puzzle(load_puzzles("sudoku", "train", dataset=mine))
    several = datasets.Dataset.from_dict({"question": [[0] * 16, NUMBERS], "answer": [[1], [int(c) for c in ANSWER]]})
    assert_is_the_puzzle(load_puzzles("sudoku", "train", dataset=several.select([1])))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": [float("nan"), *NUMBERS[1:]]}, "row 1: the question: row 1, column 1: 'nan' is not allowed"),
        ({"question": [0.5, *NUMBERS[1:]]}, "row 1: the question: row 1, column 1: '0.5' is not allowed"),
        ({"question": [-1, *NUMBERS[1:]]}, "row 1, column 1: '-1' is not allowed"),
        ({"question": [2**40, *NUMBERS[1:]]}, f"row 1, column 1: '{2**40}' is not allowed"),
        ({"question": [None, *NUMBERS[1:]]}, "row 1, column 1: 'None' is not allowed"),
        ({"question": [7, *NUMBERS[1:]]}, "row 1, column 1: '7' is not allowed; allowed: '.1234'"),
        ({"question": NUMBERS[1:]}, "the question: has 15 cells, expected"),
        ({"question": None}, "row 1: the question: is missing"),
        ({"question": 1234}, "column question holds int64; allowed: text, or lists of cells"),
        ({"question": {"a": 1}}, "column question holds struct"),
        ({"question": b"\xff"}, "column question holds bytes that are no UTF-8 text; allowed: text"),
        ({"source": b"\xff"}, "column source holds binary; allowed: text"),
        ({"source": ["a"]}, "column source holds list"),
        ({"rating": [1]}, "column rating holds list"),
        ({"rating": date(2024, 1, 1)}, r"column rating holds date32\[day\]; allowed: numbers"),
        ({"rating": True}, "column rating holds bool; allowed: numbers"),
        ({"rating": b"\xff"}, "column rating must hold numbers, row 1: b'.*' is no number"),
    ],
)
def test_odd_types_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.parquet"
    row = {"question": QUESTION, "answer": ANSWER, **columns}
    pq.write_table(pa.table({name: [value] for name, value in row.items()}), path)
    with pytest.raises(DataError, match=f"a.parquet.*{message}") as error:
        load(path, grid_shape=(4, 4))
    assert len(str(error.value).splitlines()) <= 2


def test_ratings(tmp_path: Path) -> None:
    for ratings, expected in (
        ([1, 2], np.array([1, 2], dtype=np.int32)),
        ([1.0, None], np.array([1, 0], dtype=np.int32)),
        ([1.25, float("nan")], np.array([1.25, 0])),
        (["3", ""], np.array([3, 0], dtype=np.int32)),
        ([2**40, 1], np.array([2.0**40, 1])),
    ):
        pq.write_table(
            pa.table({"question": [QUESTION] * 2, "answer": [ANSWER] * 2, "rating": ratings}), tmp_path / "a"
        )
        puzzles = load(tmp_path / "a")
        assert puzzles.ratings.dtype == expected.dtype and puzzles.ratings.tolist() == expected.tolist()
        assert puzzles.to_table()["rating"].to_pylist() == expected.tolist()
    write(tmp_path / "one.csv", f"question,answer,rating\n{QUESTION},{ANSWER},1.5")
    write(tmp_path / "two.csv", f"question,answer,rating\n{QUESTION},{ANSWER},2")
    assert load(tmp_path / "*.csv").ratings.tolist() == [1.5, 2.0]


def test_columns_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.csv", f"the start,end,hard\n{QUESTION},{ANSWER},7\n")
    columns = {"question": "the start", "answer": "end", "rating": "hard"}
    puzzles = load(path, columns=columns)
    assert_is_the_puzzle(puzzles)
    assert puzzles.ratings.tolist() == [7]
    assert "a.csv: read 'the start' as the question, 'end' as the answer, 'hard' as the rating" in caplog.text
    with pytest.raises(DataError, match=r"has no column 'ende' for the answer; it has .*; did you mean 'end'"):
        load(path, columns=columns | {"answer": "ende"})
    with pytest.raises(DataError, match="columns names label; allowed: question, answer, source, rating"):
        load(path, columns={"label": "end"})
    mine = datasets.Dataset.from_dict({"a": [QUESTION], "b": [ANSWER]})
    assert_is_the_puzzle(load_puzzles("sudoku", "train", dataset=mine, columns={"question": "a", "answer": "b"}))


JUNK = np.random.RandomState(0).bytes(300)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("junk.csv", JUNK, "junk.csv.*: is no text, parquet or Arrow file|junk.csv: is not UTF-8"),
        (
            "latin.csv",
            "question,answer,näme\n".encode("latin-1"),
            "latin.csv: is not UTF-8 text in line 1 .*; save it as",
        ),
        ("late.csv", CSV.encode() + b"\xff,\xff\n", r"late\.csv: is not UTF-8 text in line 3"),
        ("later.csv", (CSV * 2000).encode() + b"\xff,\xff\n", r"later\.csv: cannot be read as csv: .*invalid UTF8"),
        ("a.parquet", b"PAR1 cut off", "a.parquet: cannot be read as parquet"),
        ("a.arrow", b"ARROW1\0\0 cut off", "a.arrow: cannot be read as arrow"),
        (
            "a.csv.gz",
            gzip.compress(CSV.encode(), mtime=0)[:-9],
            "a.csv.gz: is cut short or damaged: it cannot be unpacked",
        ),
        ("a.csv", b"\x1f\x8b junk", "a.csv: is cut short or damaged"),
        ("a.zip", b"PK\x03\x04 rest", "a.zip: is a zip archive; unpack it, or pack it by gzip"),
        ("a.csv.bz2", b"BZh91AY rest", "is packed by bzip2"),
        ("deep.json", "[" * 100_000, "deep.json: cannot be read as JSON: it is nested too deeply"),
        ("deep.jsonl", '{"question": ' * 50_000, "deep.jsonl: cannot be read as JSON: it is nested too deeply"),
        ("huge.json", f'[{{"question": {"9" * 5000}, "answer": 1}}]', "huge.json: cannot be read as JSON: Exceeds"),
        (
            "mixed.json",
            '[{"question": "1", "answer": "2", "rating": "x"}, {"question": "1", "rating": 5}]',
            "mixed.json",
        ),
        ("lengths.json", '{"question": ["1", "2"], "answer": ["1"]}', "differ in length: {'question': 2, 'answer': 1}"),
        ("list.json", '["1", "2"]', "list.json, row 1: is '1'; allowed: an object"),
        ("none.json", "[]", "none.json: has no column that is known as the question .*; it has none"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        load(write(tmp_path / name, content), grid_shape=(4, 4))
    assert "\n" not in str(error.value).removesuffix("\n") or "rows are bad" in str(error.value)


def test_every_prefix_of_a_file_is_read_or_refused(tmp_path: Path) -> None:
    """Cut anywhere, a file is never read as something else."""
    table = pa.table({"question": [QUESTION] * 3, "answer": [ANSWER] * 3})
    pq.write_table(table, tmp_path / "whole.parquet")
    whole = {
        "a.parquet": (tmp_path / "whole.parquet").read_bytes(),
        "a.csv": (CSV * 2).encode("utf-16"),
        "a.json": f'[{{"question": "{QUESTION}", "answer": "{ANSWER}"}}]'.encode(),
        "a.gz": gzip.compress(CSV.encode()),
    }
    for name, content in whole.items():
        for size in range(0, len(content) - 2, 1 + len(content) // 40):
            with contextlib.suppress(DataError):
                assert_is_the_puzzle(load(write(tmp_path / name, content[:size]), grid_shape=(4, 4)))


def test_names_with_brackets_and_files_of_a_mac(tmp_path: Path) -> None:
    write(tmp_path / "data[1].csv", CSV)
    assert_is_the_puzzle(load(tmp_path / "data[1].csv"))
    write(tmp_path / "my_test.csv.gz", gzip.compress(CSV.encode()))
    write(tmp_path / "._my_test.csv", b"\x00\x05\x16\x07")
    (tmp_path / "data").mkdir()
    write(tmp_path / "data/._other_test.csv", b"\x00\x05\x16\x07")
    assert_is_the_puzzle(load_puzzles("sudoku", "test", data_dir=tmp_path))
    for wrong in ({"test": 5}, {"test": []}, {"test": None}, {"test": [tmp_path, 5]}):
        with pytest.raises(DataError, match=r"data_files names .*; allowed: a file, or a list of files"):
            load_puzzles("sudoku", "test", data_files=wrong)


# --- sizes, mazes, solutions ----------------------------------------------------------------------------------------


def large(side: int, digits: str) -> tuple[str, str]:
    """A question and its answer."""
    box = int(side**0.5)
    answer = "".join(digits[(r * box + r // box + c) % side] for r in range(side) for c in range(side))
    return "".join("." if n % 7 == 3 else cell for n, cell in enumerate(answer)), answer


@pytest.mark.parametrize(
    ("side", "digits"),
    [(16, SUDOKU_DIGITS[:16]), (16, "0123456789ABCDEF"), (16, "0123456789abcdef"), (16, "ABCDEFGHIJKLMNOP"),
     (25, SUDOKU_DIGITS), (25, "0123456789ABCDEFGHIJKLMNO"), (25, "ABCDEFGHIJKLMNOPQRSTUVWXY")],
)  # fmt: skip
def test_the_answers_tell_how_large_sudokus_are_written(tmp_path: Path, side: int, digits: str) -> None:
    question, answer = large(side, digits)
    puzzles = load(write(tmp_path / "a.csv", f"question,answer\n{question},{answer}\n"))
    own_question, own_answer = large(side, SUDOKU_DIGITS[:side])
    assert puzzles.processor.grid_shape == [side, side]
    assert puzzles.processor.decode(puzzles.inputs[0]) == own_question
    assert puzzles.processor.decode(puzzles.labels[0]) == own_answer
    spaced = [" ".join(str(digits.index(c) + 1) if c in digits else "." for c in grid) for grid in (question, answer)]
    puzzles = load(write(tmp_path / "b.csv", "question,answer\n" + ",".join(spaced)))
    assert puzzles.processor.decode(puzzles.inputs[0]) == own_question


def test_hexadecimal_puzzles_without_answers_are_refused_or_told(tmp_path: Path) -> None:
    reader = GridProcessor("sudoku", grid_shape=(16, 16)).reader
    ((place, text),), _, _ = read_puzzles(write(tmp_path / "hex.txt", large(16, "0123456789ABCDEF")[0]), reader)
    assert place.endswith("hex.txt, line 1")
    with pytest.raises(
        ValueError, match=r"'0' may be a blank or a digit .* \(--characters \.0123456789ABCDEF\) if it is a digit"
    ):
        reader.read(text)
    table = write(tmp_path / "hex.csv", "question,answer\n" + ",".join(large(16, "0123456789ABCDEF")))
    ((_, text),), told, _ = read_puzzles(table, reader)  # the answer tells
    assert told.read_as_written(text) == (large(16, SUDOKU_DIGITS[:16])[0], ".0123456789ABCDEF")


def test_puzzles_of_files_to_be_solved(tmp_path: Path) -> None:
    for name, content, places in (
        ("a.csv", CSV, ["row 1"]),
        ("quizzes.csv", f"quizzes\n{QUESTION}\n{QUESTION}", ["row 1", "row 2"]),
        ("none.csv", f"{QUESTION},{ANSWER}\n", ["row 1"]),
        ("rows.jsonl", f'{{"puzzle": "{QUESTION}"}}', ["row 1"]),
        ("lines.txt", f"# two\n{QUESTION}\n{QUESTION.replace('.', '-')}\n", ["line 2", "line 3"]),
        ("a.sdk", "[Puzzle]\n" + "\n".join(QUESTION[i : i + 4] for i in range(0, 16, 4)), ["lines 2 to 5"]),
        ("bom.txt", f"\ufeff{QUESTION}", ["line 1"]),
        ("simple.ss", "*-------*\n|1.|3.|\n|.4|1.|\n|--+--|\n|2.|.3|\n|.3|2.|\n*-------*\n", ["lines 2 to 6"]),
        ("cells.csv", "1,,3,\n,4,1,\n2,,,3\n,3,2,\n", ["lines 1 to 4"]),
        ("line.csv", ",".join(QUESTION.replace(".", " ")), ["line 1"]),
    ):
        found, _, _ = read_puzzles(write(tmp_path / name, content), SMALL.reader)
        assert [place for place, _ in found] == [f"{tmp_path / name}, {place}" for place in places]
        assert {SMALL.reader.read(text) for _, text in found} == {QUESTION}
    with pytest.raises(DataError, match=r"no\.csv: cannot be read"):
        read_puzzles(tmp_path / "no.csv", SMALL.reader)


def test_columns_of_a_file_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"{QUESTION},{QUESTION.replace('.', '1', 1)},{ANSWER}\n")
    assert_is_the_puzzle(load(path, columns={"question": "column 1", "answer": "column 3"}))
    with pytest.raises(
        DataError, match=r"has no column 'column 4' for the answer; it has 'column 1', 'column 2', 'col"
    ):
        load(path, columns={"question": "column 1", "answer": "column 4"})


def test_a_message_does_not_list_hundreds_of_columns(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(162)]
    path = write(tmp_path / "a.csv", ",".join(names) + "\n" + ",".join("1" * 162) + "\n")
    with pytest.raises(DataError, match=r"it has 'c0', .*'c11', \.\.\. \(162 columns\); name it with"):
        load(path)


def test_mazes_of_people(tmp_path: Path) -> None:
    maze = ["#S   ", "# ## ", "# #  ", "# # #", "#   G"]
    solved = ["#S   ", "#o## ", "#o#  ", "#o# #", "#oooG"]
    trimmed = "\n".join(line.rstrip() for line in maze)
    other = str.maketrans("# SGo", "X.se*")
    for content, options in (
        (f'question,answer\n"{trimmed}","' + "\n".join(solved) + '"', {}),
        ("question,answer\n" + "".join(maze) + "," + "".join(solved), {}),
        (("".join(maze) + ";" + "".join(solved)), {}),
        (json.dumps({"maze": maze, "solution": solved}), {}),
        (json.dumps({"question": list(map(list, maze)), "answer": list(map(list, solved))}), {}),
        ("question,answer\n" + ("".join(maze) + "," + "".join(solved)).translate(other), {"characters": "X.se*"}),
    ):
        puzzles = load(write(tmp_path / "a.csv", content), "maze", validate="all", **options)
        assert puzzles.processor.grid_shape == [5, 5]
        assert puzzles.processor.decode(puzzles.inputs[0]) == "".join(maze)
        assert puzzles.processor.decode(puzzles.labels[0]) == "".join(solved)
    with pytest.raises(DataError, match=r"row 1, column 1: 'X' is not allowed; allowed: '# SGo'"):
        load(tmp_path / "a.csv", "maze")
    with pytest.raises(ValueError, match=r"characters='X\.se' is not allowed; allowed: 5 different characters"):
        load(tmp_path / "a.csv", "maze", characters="X.se")


@pytest.mark.parametrize("has_splits", [True, False])
def test_what_datasets_keeps_for_itself_is_refused_with_the_way_out(tmp_path: Path, has_splits: bool) -> None:
    rows = datasets.Dataset.from_dict({"question": [QUESTION], "answer": [ANSWER]})
    (datasets.DatasetDict(test=rows) if has_splits else rows).save_to_disk(tmp_path / "kept")
    for where in ("data_dir", "dataset"):
        with pytest.raises(DataError, match=r"kept: was written by save_to_disk .*\.to_parquet\('train\.parquet'\)"):
            load_puzzles("sudoku", "test", **{where: str(tmp_path / "kept")})
