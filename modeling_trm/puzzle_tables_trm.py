"""Files of puzzles as people have them: told by their content and not by their name, with or without a header.

csv and the like (delimiters , ; | tab), text, JSON, JSON lines, parquet, Arrow; UTF-8 with or without a byte order
mark, UTF-16; any of them packed by gzip.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from .grid_text_trm import MAZE_CHARACTERS, REMARK, SUDOKU_DIGITS, SUDOKU_SIDES, GridReader, option, shown
from .puzzle_columns_trm import (
    COLUMN_NAMES,
    NEEDED,
    DataError,
    choose_columns,
    describe_columns,
    grid_as_text,
    leave_words,
    normalise,
    singular,
)
from .text_file_trm import GZIP, LONGEST_MARK, MARKS, decode, parse_json, unpack

try:
    import pyarrow as pa
    from pyarrow import compute as pc
    from pyarrow import csv as pa_csv
    from pyarrow import parquet
except ImportError:  # a checkpoint's code runs without it; tables are not read then
    pa = pa_csv = pc = parquet = None

SUFFIXES = (".parquet", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".arrow")
ANSWERS_THAT_TELL = 100  # how the digits of large Sudokus are written
HEAD = 2**16  # bytes in which the first row must end
DELIMITERS = (",", ";", "\t", "|", " ")
Chosen = dict[str, str]  # role -> name of its column


class NotJSONError(DataError):
    """A text that begins as JSON and goes on otherwise."""


@dataclass(frozen=True)
class _Asked:
    """What is asked of a file, and what it is called; see `read_table`."""

    task: str
    where: str
    columns: Mapping[str, str] | None
    needed: Sequence[str]
    characters: str | None

    def choose(self, names: Sequence[str]) -> Chosen:
        return choose_columns(names, self.columns, self.where, self.needed)


@dataclass(frozen=True)
class _Table:
    """The columns chosen, which is what, the names of all columns; the numbers of the rows (default: 1, 2, ...)."""

    rows: pa.Table
    chosen: Chosen
    names: Sequence[str]
    numbers: np.ndarray | None = None


def read_table(
    task: str,
    file: Path,
    columns: Mapping[str, str] | None = None,
    characters: str | None = None,
) -> tuple[pa.Table, str | None]:
    """(source, question, answer, rating and number of every row; a line saying which columns were taken, where that is
    news).

    Args:
        columns: {role: name of its column} where the names do not say it.
        characters: of mazes and grids, if they are not those of the processor.

    Raises:
        DataError: naming the file, the row or column, what was found and what is allowed.
    """
    content = _content(file)
    if content.size < HEAD and not content.to_pybytes().strip():
        raise DataError(f"{file}: is empty")
    table = _table(content, _Asked(task, str(file), columns, NEEDED, characters))
    if table is None:
        raise DataError(
            f"{file}: has neither a header nor a question and an answer in each row; puzzles without answers can be "
            "solved (trm solve), not trained or scored on"
        )
    chosen = leave_words(table.rows, table.chosen, columns)
    default_source = Path(file.name.removesuffix(".gz")).stem  # ends up in the fingerprint
    rows = normalise(task, table.rows, chosen, str(file), default_source, table.numbers)
    return rows, describe_columns(table.names, chosen, file.name)


def read_puzzles(
    file: Path, reader: GridReader, columns: Mapping[str, str] | None = None, data: bytes | None = None
) -> tuple[list[tuple[str, str]], GridReader, str | None]:
    """(place, text) of every puzzle of a file: the questions of a table, or the grids of a text; what reads them; and
    a line saying which column was taken, where that is news.

    The reader is the one given, unless the answers beside the questions tell what large Sudokus are written with.

    Args:
        data: what the file holds, where `file` is but the name of it: of stdin.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    content, characters = _content(file, data), reader.written or reader.characters
    table = _table(content, _Asked(reader.task, str(file), columns, ("question",), characters))
    if table is None:
        return read_grids(_text(content, str(file)), reader, str(file)), reader, None
    chosen = {role: name for role, name in table.chosen.items() if role in NEEDED}
    rows = normalise(reader.task, table.rows, chosen, str(file), "", table.numbers)
    told = reader.told_by(rows["answer"][:ANSWERS_THAT_TELL].to_pylist()) if "answer" in chosen else reader
    texts = zip(rows["row"].to_pylist(), rows["question"].fill_null("").to_pylist(), strict=True)
    return [(f"{file}, row {row}", text) for row, text in texts], told, describe_columns(table.names, chosen, file.name)


def read_grids(text: str, reader: GridReader, where: str) -> list[tuple[str, str]]:
    """(place, text) of every grid of a text."""
    return [
        (f"{where}, line {first}" if first == last else f"{where}, lines {first} to {last}", grid)
        for first, last, grid in reader.split(text)
    ]


def _content(file: Path, data: bytes | None = None) -> pa.Buffer:
    """The bytes of a file, or those at hand, unpacked."""

    try:
        if (file.stat().st_size if data is None else len(data)) == 0:
            raise DataError(f"{file}: is empty")
        with pa.memory_map(str(file)) if data is None else pa.BufferReader(data) as stream:
            content = stream.read_buffer()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    head = content[:LONGEST_MARK].to_pybytes()
    try:
        unpacked = unpack(content.to_pybytes() if head.startswith(GZIP) else head)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error
    return pa.py_buffer(unpacked) if head.startswith(GZIP) else content  # which is mapped, not read


def _table(content: pa.Buffer, asked: _Asked) -> _Table | None:
    """The table that a file is; None for a text without columns."""
    head = content[:8].to_pybytes()
    try:
        if head.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
            return _read_columns(head, pa.BufferReader(content), asked)
    except (pa.ArrowException, OSError) as error:
        kind = "parquet" if head.startswith(b"PAR1") else "arrow"
        raise DataError(f"{asked.where}: cannot be read as {kind}: {str(error).splitlines()[0]}") from error
    text = _text(content, asked.where, HEAD)
    if text.lstrip().startswith(("{", "[")) and not REMARK.fullmatch(text.lstrip().partition("\n")[0]):
        try:
            return _read_json(_text(content, asked.where), asked)
        except NotJSONError:
            if not text.lstrip().startswith("[") or not _holds_grids(asked.task, text, asked.characters):
                raise
            return None  # as NumPy prints an array
    return _read_csv(content, text, asked)


def _read_columns(head: bytes, stream: pa.BufferReader, asked: _Asked) -> _Table:
    if head.startswith(b"PAR1"):
        file = parquet.ParquetFile(stream)
        names = file.schema_arrow.names
        chosen = asked.choose(names)
        return _Table(file.read(columns=list(chosen.values())), chosen, names)
    opened = pa.ipc.open_file(stream) if head.startswith(b"ARROW1") else pa.ipc.open_stream(stream)
    names = opened.schema.names
    chosen = asked.choose(names)
    return _Table(opened.read_all().select(list(chosen.values())), chosen, names)


# --- text -----------------------------------------------------------------------------------------------------------


def _text(content: pa.Buffer, where: str, size: int | None = None) -> str:
    """The text of a file, or about its first `size` bytes."""
    try:
        return decode(content[:size].to_pybytes(), is_whole=size is None or size >= content.size)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _read_csv(content: pa.Buffer, head: str, asked: _Asked) -> _Table | None:
    preface = _preface(asked.task, head)
    head = "".join(head.splitlines(keepends=True)[preface:])
    layout = _layout(head, asked)
    if layout is None:
        return None
    delimiter, names, chosen, has_header = layout
    if content[:2].to_pybytes() in MARKS:  # UTF-16
        content = pa.py_buffer(_text(content, asked.where).encode())
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(content),
            # With threads its errors lack the row number.
            read_options=pa_csv.ReadOptions(
                use_threads=False, skip_rows=preface, column_names=None if has_header else names
            ),
            # Left to itself it ends a row inside a quoted grid, and takes a grid of digits for a number.
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()) | dict.fromkeys(chosen.values(), pa.string())
            ),
        )
    except pa.ArrowException as error:
        raise DataError(f"{asked.where}: cannot be read as csv: {str(error).splitlines()[0]}") from error
    for name in chosen.values():
        if has_header and name.startswith(" "):  # "question, answer": so have the values
            column = pc.replace_substring_regex(table[name], '^ "?|"$', "")
            table = table.set_column(table.column_names.index(name), name, column)
    # Excel writes the rows below a table as delimiters alone. A row with a cell in any column is one that may be wrong.
    is_empty = reduce(pc.and_, (pc.equal(pc.binary_length(column), 0) for column in table.columns))
    numbers = np.flatnonzero(~is_empty.to_numpy()) + 1
    rows = table.select(list(chosen.values()))
    return _Table(rows if len(numbers) == len(rows) else rows.filter(pc.invert(is_empty)), chosen, names, numbers)


def _preface(task: str, head: str) -> int:
    """Lines in front of a table: what Excel writes there, and remarks, not of mazes, which have # for a wall."""
    is_preface = re.compile(r"sep=.\s*|#.*\s*" if task == "sudoku" else r"sep=.\s*")
    return sum(1 for _ in takewhile(is_preface.fullmatch, head.splitlines(keepends=True)))


def _layout(head: str, asked: _Asked) -> tuple[str, list[str], Chosen, bool] | None:
    """(delimiter, names, which is what, whether there is a header); None for a text without columns."""
    task, characters = asked.task, asked.characters
    is_cell = set(" ") & set(characters or MAZE_CHARACTERS) if task != "sudoku" else set()
    records = {delimiter: _records(head, delimiter) for delimiter in DELIMITERS if delimiter not in is_cell}
    # What divides header and row alike, where anything does: "Sudoku puzzle,Sudoku solution" are no three names.
    headers = {mark: found for mark, found in records.items() if len(found[0]) == len(found[1]) > 1} or records
    problems = {}
    for delimiter, (names, _) in headers.items():
        try:
            return delimiter, names, asked.choose(names), True
        except DataError as error:
            problems[delimiter] = error
    for delimiter, (fields, _) in records.items():
        names = [f"column {number}" for number in range(1, len(fields) + 1)]
        grids = [name for name, field in zip(names, fields) if _is_grid(task, field, characters)]
        if len(grids) > 1 and asked.columns:
            return delimiter, names, asked.choose(names), False
        if len(grids) > 2:
            told = option("columns", dict(zip(NEEDED, grids)))
            raise DataError(f"{asked.where}: has no header, and grids in {', '.join(grids)}: say which with {told}")
        if len(grids) == 2:
            return delimiter, names, dict(zip(NEEDED, grids)), False
    widest = max(headers, key=lambda delimiter: (delimiter != " ", len(headers[delimiter][0])))
    names, row = headers[widest]
    has_header = len(names) == len(row) > 1 and any(_is_grid(task, field, characters) for field in row)
    is_text = "answer" not in asked.needed or _holds_grids(task, head, characters)
    if asked.columns is None and not has_header and is_text:
        return None
    raise problems[widest]


def _records(text: str, delimiter: str) -> tuple[list[str], list[str]]:
    """The fields of the first two lines that are not empty."""
    try:
        found = (record for record in csv.reader(io.StringIO(text, newline=None), delimiter=delimiter) if record)
        return next(found, [""]), next(found, [""])
    except csv.Error:  # a field that is longer than csv allows: no header, and no grid
        return [""], [""]


def _holds_grids(task: str, text: str, characters: str | None) -> bool:
    """Whether a text begins with a grid, in a line or in rows."""
    if task != "sudoku":
        return _is_grid(task, text, characters) or _is_grid(task, text.partition("\n")[0], characters)
    readers = (GridReader("sudoku", (side, side), "." + SUDOKU_DIGITS[:side]) for side in SUDOKU_SIDES)
    return any(reader.fits(grid) for reader in readers for _, _, grid in islice(reader.split(text), 1))


def _is_grid(task: str, field: str, characters: str | None) -> bool:
    if task != "sudoku":
        return len(field) >= 4 and set(field) <= set(characters or MAZE_CHARACTERS) | set("\r\n")
    readers = (GridReader("sudoku", (side, side), "." + SUDOKU_DIGITS[:side]) for side in SUDOKU_SIDES)
    return any(reader.fits(field) for reader in readers)


# --- JSON -----------------------------------------------------------------------------------------------------------


def _read_json(text: str, asked: _Asked) -> _Table:
    """Rows as a list of objects, as an object a line, or as an object of columns."""

    known = {*COLUMN_NAMES["question"], *(asked.columns or {}).values()}
    is_one_grid = partial(_is_one_grid, asked.task, characters=asked.characters)
    rows = _json_rows(text, asked.where, known, is_one_grid, are_grids_alone="answer" not in asked.needed)
    names = list(dict.fromkeys(name for row in rows for name in row))
    chosen = asked.choose(names)
    values = {}
    for role, name in chosen.items():
        column = [row.get(name) for row in rows]
        values[name] = [grid_as_text(asked.task, grid) for grid in column] if role in NEEDED else column
    try:
        return _Table(pa.table({name: pa.array(column) for name, column in values.items()}), chosen, names)
    except (pa.ArrowException, OverflowError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{asked.where}: a column holds values of several kinds: {said}") from error


def _is_one_grid(task: str, cells: list[Any], characters: str | None) -> bool:
    """Whether a list is a grid, in its rows or cells, and not a column of grids."""
    whole, *parts = (grid_as_text(task, part) for part in (cells, *cells))
    ends = set((characters or MAZE_CHARACTERS)[2:4]) if task == "maze" else set()  # of which a row of a maze lacks one
    return _is_grid(task, whole or "", characters) and not all(
        _is_grid(task, part or "", characters) and ends <= set(part or "") for part in parts
    )


def _json_rows(
    text: str, where: str, known: Collection[str], is_one_grid: Callable[[list[Any]], bool], are_grids_alone: bool
) -> list[dict[str, Any]]:
    """The objects of a text; grids alone, where they are allowed, as questions.

    Args: known: names of a column of questions. is_one_grid: whether a list is a grid, and not a column.
    """
    try:
        content = _load_json(text, where)
    except json.JSONDecodeError as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
        if len(lines) < 2 or not error.msg.startswith("Extra data"):
            raise NotJSONError(f"{where}, line {error.lineno}: is no JSON, or cut short: {error.msg}") from error
        content = [_load_line(line, f"{where}, line {number}") for number, line in lines]
    content = _without_wrapping(content, where, known)
    if content in ([], {}):
        raise DataError(f"{where}: is empty")
    are_lists = isinstance(content, dict) and content and all(isinstance(value, list) for value in content.values())
    if are_lists and not any(map(is_one_grid, content.values())):
        lengths = {name: len(column) for name, column in content.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{where}: its columns differ in length: {lengths}")
        return [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=True)]
    rows = content if isinstance(content, list) else [content]
    if are_grids_alone and rows and all(isinstance(row, str | list) for row in rows):
        return [{"question": grid} for grid in ([rows] if is_one_grid(rows) else rows)]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{where}, row {number}: is {shown(row)}; allowed: an object with question and answer")
    return rows


def _without_wrapping(content: Any, where: str, known: Collection[str]) -> Any:
    """Rows under one name, {"puzzles": [...]}, and what pandas writes: columns or rows by the numbers of the rows."""
    if not isinstance(content, dict) or not content:
        return content
    values = list(content.values())
    if isinstance(content.get("columns"), list) and isinstance(content.get("data"), list):
        return [dict(zip(content["columns"], row)) for row in content["data"]]
    tables = {name: rows for name, rows in content.items() if _are_objects(rows)}
    if len(tables) > 1:
        raise DataError(f"{where}: holds several tables, {', '.join(map(repr, tables))}: give each a file of its own")
    if tables:
        return next(iter(tables.values()))
    if all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        by_column = any(singular(name) in known or name in known for name in content)
        return {name: list(column.values()) for name, column in content.items()} if by_column else values
    return content


def _are_objects(rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) for row in rows)


def _load_line(line: str, where: str) -> Any:
    try:
        return _load_json(line, where)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: is no JSON, or cut short: {error.msg}") from error


def _load_json(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # nested too deeply, a key given twice, a number of thousands of digits
        raise DataError(f"{where}: cannot be read as JSON: {error}") from error
