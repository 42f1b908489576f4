"""Which column of a table is what, and its values as text, whatever the names and types that people have given them."""

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .grid_text_trm import SUDOKU_DIGITS, option

try:
    import pyarrow as pa
    import pyarrow.compute as pc
except ImportError:  # a checkpoint's code runs without it; tables are not read then
    pa = pc = None

# Role -> the names that say it, in lower case and in the singular.
COLUMN_NAMES = {
    "question": ("question", "input", "puzzle", "quiz", "board", "unsolved", "problem", "sudoku", "maze"),
    "answer": ("answer", "label", "output", "target", "solution", "solved"),
    "source": ("source",),
    "rating": ("rating", "difficulty"),
}
NEEDED = ("question", "answer")
MOST_NAMES = 12  # columns that a message lists


class DataError(ValueError):
    """Data that cannot be used: the message names the file and what is wrong."""


def choose_columns(
    names: Sequence[str], columns: Mapping[str, str] | None, where: str, needed: Sequence[str] = NEEDED
) -> dict[str, str]:
    """{role: name of its column}. Raises DataError for one that is needed and missing, or could be several.

    Args:
        columns: {role: name} where the names do not say it.
    """
    unknown = sorted(set(columns or ()) - set(COLUMN_NAMES))
    if unknown:
        raise DataError(f"columns names {', '.join(unknown)}; allowed: {', '.join(COLUMN_NAMES)}")
    wanted = {role: str(name) for role, name in (columns or {}).items()}
    chosen = {}
    for role, known in COLUMN_NAMES.items():
        if role in wanted:
            found = [name for name in names if wanted[role] in (name, name.strip())]
            if not found:
                close = difflib.get_close_matches(wanted[role], names, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise DataError(f"{where}: has no column {wanted[role]!r} for the {role}; it has {_list(names)}{hint}")
        else:
            found = [name for name in names if singular(name) in known]
            own = [name for name in found if name.strip() == role]
            # A data set that has the column's own name, or input and label, means that one.
            found = own or [name for name in found if name in ("input", "label")] or found
        if not found and role in needed:
            raise DataError(
                f"{where}: has no column that is known as the {role} ({', '.join(known)}); it has {_list(names)}; "
                f"name it with {option('columns', {role: 'NAME'})}"
            )
        if len(found) > 1 and role in needed:
            twice = "twice" if len(set(found)) == 1 else "in the columns " + _list(found)
            hint = "rename one" if len(set(found)) == 1 else f"say which with {option('columns', {role: 'NAME'})}"
            raise DataError(f"{where}: has a {role} {twice}: {hint}")
        if len(found) == 1:
            chosen[role] = found[0]
    shared = [role for role, name in chosen.items() if list(chosen.values()).count(name) > 1]
    if shared:
        raise DataError(f"{where}: the column {chosen[shared[0]]!r} cannot be the {' and the '.join(shared)}")
    return chosen


def singular(name: str) -> str:
    """A column's name as COLUMN_NAMES has it."""
    return re.sub("(?:zes|s)$", "", name.strip().lower())


def describe_columns(names: Sequence[str], chosen: Mapping[str, str], where: str) -> str | None:
    """One line saying what was taken for what; None where the names say it themselves."""
    taken = [(role, name.strip()) for role, name in chosen.items() if role != name.strip()]
    if not taken:
        return None
    aside = [name for name in names if name not in chosen.values()]
    left = f"; left aside: {_list(aside)}" if aside else ""
    return f"{where}: read " + ", ".join(f"{name!r} as the {role}" for role, name in taken) + left


def leave_words(table: pa.Table, chosen: Mapping[str, str], columns: Mapping[str, str] | None) -> dict[str, str]:
    """The chosen columns without a difficulty in words ("hard"), unless it is called or was said to be the rating."""
    name = chosen.get("rating")
    if name is None or name.strip() == "rating" or "rating" in (columns or {}):
        return dict(chosen)
    are_words = any(
        is_text(table[name].type) for is_text in (pa.types.is_string, pa.types.is_large_string)
    ) and not any(text is not None and text[:1].isdecimal() for text in table[name].to_pylist())
    return {role: column for role, column in chosen.items() if not (role == "rating" and are_words)}


def normalise(
    task: str,
    table: pa.Table,
    chosen: Mapping[str, str],
    where: str,
    default_source: str,
    numbers: np.ndarray | None = None,
) -> pa.Table:
    """The columns source, question, answer (where there is one), rating and row, typed, of a table of the chosen ones.

    Args:
        numbers: of the rows in their file, from 1, where some of it are left out.

    Raises:
        DataError: naming the file, the column, what it holds and what is allowed.
    """

    columns = {
        role: as_text(task, table[chosen[role]], f"{where}: column {chosen[role]}") for role in NEEDED if role in chosen
    }
    columns["source"], columns["rating"] = (
        pa.chunked_array([pa.repeat(default, table.num_rows)]) for default in (default_source, 0)
    )
    if "source" in chosen:
        source = _with_class_names(table, chosen["source"])
        columns["source"] = _as_source(source, f"{where}: column {chosen['source']}")
    if "rating" in chosen:
        columns["rating"] = _as_rating(table[chosen["rating"]], f"{where}: column {chosen['rating']}")
    columns["row"] = pa.array(np.arange(1, table.num_rows + 1) if numbers is None else numbers, pa.int64())
    return pa.table({name: columns[name] for name in ("source", *NEEDED, "rating", "row") if name in columns})


def as_text(task: str, column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Grids as strings; lists of cells, nested or not, become their characters or numbers between blanks."""

    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):  # the arrays of `datasets`
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            return column.cast(pa.large_string())
        except pa.ArrowInvalid as error:
            raise DataError(f"{where} holds bytes that are no UTF-8 text; allowed: text, or lists of cells") from error
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if any(is_text(values) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)):
        return column.cast(pa.large_string())
    if not any(is_list(kind) for is_list in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        raise DataError(
            f"{where} holds {kind}; allowed: text, or lists of cells (a number would lose its leading zeros)"
        )
    chunks = [_digits_as_text(chunk) if task == "sudoku" else None for chunk in column.chunks]
    chunks = [
        pa.array([grid_as_text(task, grid) for grid in of_lists.to_pylist()], pa.large_string())
        if text is None
        else text
        for of_lists, text in zip(column.chunks, chunks, strict=True)
    ]
    return pa.chunked_array(chunks, pa.large_string())


def grid_as_text(task: str, grid: Any) -> str | None:
    """A grid of a file as text that the reader of grids takes."""
    if grid is None or isinstance(grid, str):
        return grid
    if task != "sudoku" and grid and all(isinstance(row, list) for row in grid):
        return "\n".join(grid_as_text(task, row) or "" for row in grid)
    cells = list(_cells(grid))
    if cells and all(isinstance(cell, str) and len(cell) > 2 for cell in cells):
        return "\n".join(cells)  # rows
    if task != "sudoku":
        return "".join(map(_cell_text, cells))
    return " ".join(_cell_text(cell).strip() or "." for cell in cells)


def _cell_text(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _cells(grid: Any) -> Iterator[Any]:
    if isinstance(grid, list):
        for part in grid:
            yield from _cells(part)
    else:
        yield grid


def _digits_as_text(grids: pa.Array) -> pa.Array | None:
    """All grids of whole numbers 0 to 9 at once, 0 a blank; None where something else is among them."""

    bounds, values = np.arange(len(grids) + 1), grids
    while (
        pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type)
    ):
        if values.null_count:
            return None
        if pa.types.is_fixed_size_list(values.type):
            values = values.cast(pa.list_(values.type.value_type))
        bounds, values = values.offsets.to_numpy()[bounds].astype(np.int64), values.values
    if (
        values.null_count
        or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type))
        or not len(grids)
    ):
        return None
    numbers = values.to_numpy(zero_copy_only=False)[bounds[0] : bounds[-1]]
    side = min(math.isqrt(int(np.diff(bounds).max())), 9)  # above 9 x 9 a 0 may be a digit
    if np.diff(bounds).max() > 81 or not ((numbers >= 0) & (numbers <= side) & (numbers == np.floor(numbers))).all():
        return None
    characters = np.frombuffer(("." + SUDOKU_DIGITS).encode("ascii"), dtype=np.uint8)[numbers.astype(np.int64)]
    buffers = [None, pa.py_buffer(bounds - bounds[0]), pa.py_buffer(characters)]
    return pa.Array.from_buffers(pa.large_string(), len(grids), buffers)


def _with_class_names(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column; the numbers of a ClassLabel of `datasets`, whose names the schema has, by these names."""
    try:
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        names = features[name]["names"] if features[name]["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, ValueError):  # of another program, or of one that says nothing of classes
        return table[name]
    if not names or not pa.types.is_integer(table[name].type):
        return table[name]
    classes = dict(enumerate(names))  # null and -1 are none
    return pa.chunked_array([pa.array(map(classes.get, table[name].to_pylist()), pa.string())])


def _as_source(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:

    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        raise DataError(f"{where} holds {column.type}; allowed: text")
    return column.cast(pa.string()).fill_null("")


def _as_rating(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """int32 where all are whole numbers, float64 otherwise; 0 for none."""

    if pa.types.is_nested(column.type) or pa.types.is_temporal(column.type) or pa.types.is_boolean(column.type):
        raise DataError(f"{where} holds {column.type}; allowed: numbers")
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    try:
        if is_text:
            column = _with_points(pc.if_else(pc.equal(column, ""), None, column), where)
        numbers = column.cast(pa.float64()).fill_null(0)
    except pa.ArrowException as error:
        wrong = next((row for row, text in enumerate(column.to_pylist()) if not _is_number(text)), None)
        place = "" if wrong is None else f", row {wrong + 1}: {column[wrong].as_py()!r} is no number"
        raise DataError(f"{where} must hold numbers{place}; rename the column if it is something else") from error
    numbers = pc.if_else(pc.is_finite(numbers), numbers, 0.0)
    try:
        return numbers.cast(pa.int32())
    except pa.ArrowInvalid:  # 1.5, or beyond int32
        return numbers


def _with_points(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Numbers with decimal commas, as Excel writes them, with points."""
    with_comma = pc.fill_null(pc.match_substring_regex(column, r"^-?\d+,\d+$"), False)
    found = column.filter(with_comma)
    if len(found) and pc.all(pc.match_substring_regex(found, r"^-?\d{1,3},\d{3}$")).as_py():
        raise DataError(
            f"{where} holds {found[0].as_py()!r}, whose comma may stand before decimals or between thousands; write "
            f"points, or no comma"
        )
    return pc.if_else(with_comma, pc.replace_substring(column, ",", "."), column)


def _is_number(text: Any) -> bool:
    try:
        float(text if text is not None else 0)
    except (TypeError, ValueError):
        return False
    return True


def _list(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} columns)" if len(names) > MOST_NAMES else ""
    return (", ".join(repr(name) for name in names[:MOST_NAMES]) or "none") + more
