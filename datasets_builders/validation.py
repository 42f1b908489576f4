"""Checks of puzzles: size, alphabet, answer against question, Sudoku rules, mazes' shortest paths.

All rows are checked at once in numpy; only the rows found bad get a message, written in plain Python.

Shapes: N puzzles, L positions, S side of a Sudoku, U = 3 * S its units (rows, columns, boxes).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from datasets_builders.mazes import GOAL, OPEN, PATH, START, are_shortest_paths, distances_to_goal
from modeling_trm.grid_text_trm import SUDOKU_DIGITS, UNKNOWN, GridReader, sudoku_side
from modeling_trm.processing_trm import PAD_TOKEN_ID, GridProcessor
from modeling_trm.puzzle_columns_trm import DataError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_LISTED = 5  # bad rows named in one message


class PuzzleError(DataError):
    """A puzzle that is wrong: its message is the reason."""


@dataclass(frozen=True)
class BadRow:
    """A row that was refused: its file, its number (from 1, a header line not counted) and why."""

    file: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.reason}"


def list_bad_rows(bad_rows: Sequence[BadRow]) -> str:
    """The first few bad rows, one a line."""
    lines = [str(row) for row in bad_rows[:MAX_LISTED]]
    more = len(bad_rows) - len(lines)
    return "\n".join(lines + ([f"... and {more} more"] if more else []))


def tokenise(
    processor: GridProcessor, texts: "Sequence[str | None] | pa.LargeStringArray", reader: GridReader | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """uint8 [N, L] token ids, and the reason of each text that is no grid (its tokens are padding).

    Args:
        reader: of grids that are not written in the processor's characters; default the processor's own.
    """
    import pyarrow as pa

    reader = processor.reader if reader is None else reader
    column = texts if isinstance(texts, pa.LargeStringArray) else pa.array(texts, pa.large_string())
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    codes = np.frombuffer(data if data is not None else b"", np.uint8)
    ids_NL = np.full((len(column), processor.seq_len), UNKNOWN, dtype=np.uint8)
    # The fast path must not look at single characters: millions of rows go through here.
    regular = np.flatnonzero(np.diff(bounds) == processor.seq_len)
    if len(regular) == len(column):
        ids_NL = reader.token_table()[codes[bounds[0] : bounds[-1]].reshape(ids_NL.shape)]
    else:
        ids_NL[regular] = reader.token_table()[codes[bounds[regular, None] + np.arange(processor.seq_len)]]
    reasons: dict[int, str] = {}
    for number in np.flatnonzero((ids_NL == UNKNOWN).any(axis=1)).tolist():
        ids_NL[number], reason = _read_one(processor, reader, column[number].as_py())
        if reason is not None:
            reasons[number] = reason
    return ids_NL, reasons


def _read_one(processor: GridProcessor, reader: GridReader, text: str | None) -> tuple[np.ndarray, str | None]:
    nothing = np.full(processor.seq_len, PAD_TOKEN_ID, dtype=np.uint8)
    if text is None:
        return nothing, "is missing"
    try:
        return processor.encode(reader.read(text)).numpy().astype(np.uint8), None
    except ValueError as error:
        return nothing, str(error).removeprefix("the grid ")


def check_tokens(processor: GridProcessor, inputs_NL: np.ndarray, labels_NL: np.ndarray) -> dict[int, str]:
    """The reason of every puzzle whose answer cannot be right, except for the length of mazes' paths."""
    if processor.task == "sudoku":
        return _first_reasons(
            _differs_from_clues(processor, inputs_NL, labels_NL), _breaks_sudoku_rules(processor, labels_NL)
        )
    if processor.task == "maze":
        return _first_reasons(_odd_mazes(inputs_NL), _differs_from_maze(processor, inputs_NL, labels_NL))
    return {}


def _first_reasons(*checks: dict[int, str]) -> dict[int, str]:
    merged: dict[int, str] = {}
    for reasons in reversed(checks):
        merged.update(reasons)
    return merged


def _where(processor: GridProcessor, position: int) -> str:
    row, column = divmod(position, processor.grid_shape[1])
    return f"row {row + 1}, column {column + 1}"


def _first_positions(wrong_NL: np.ndarray) -> list[tuple[int, int]]:
    rows = np.flatnonzero(wrong_NL.any(axis=1))
    return [(int(row), int(np.argmax(wrong_NL[row]))) for row in rows]


def _differs_from_clues(processor: GridProcessor, inputs_NL: np.ndarray, labels_NL: np.ndarray) -> dict[int, str]:
    blank = processor.blank_token_id
    reasons = {
        row: f"the answer is blank at {_where(processor, at)}" for row, at in _first_positions(labels_NL == blank)
    }
    for row, at in _first_positions((inputs_NL != blank) & (inputs_NL != labels_NL)):
        given, answered = (processor.characters[ids[row, at] - 1] for ids in (inputs_NL, labels_NL))
        reason = f"the answer has {answered!r} where the question has {given!r}, at {_where(processor, at)}"
        reasons.setdefault(row, reason)
    return reasons


def sudoku_units(side: int) -> list[tuple[str, np.ndarray]]:
    """The 3 * S units of a Sudoku: (name, positions [S])."""
    cells = np.arange(side * side).reshape(side, side)
    box = math.isqrt(side)
    boxes = cells.reshape(box, box, box, box).swapaxes(1, 2).reshape(side, side)
    kinds = (("row", cells), ("column", cells.T), ("box", boxes))
    return [(f"{kind} {i + 1}", unit) for kind, units in kinds for i, unit in enumerate(units)]


def _breaks_sudoku_rules(processor: GridProcessor, labels_NL: np.ndarray) -> dict[int, str]:
    reasons: dict[int, str] = {}
    side = processor.grid_shape[0]
    bits_NL = np.left_shift(np.int32(1), labels_NL.astype(np.int32))
    complete = np.bitwise_or.reduce(np.left_shift(np.int32(1), np.arange(2, side + 2, dtype=np.int32)))
    for name, positions in sudoku_units(side):
        for row in np.flatnonzero(np.bitwise_or.reduce(bits_NL[:, positions], axis=1) != complete).tolist():
            reasons.setdefault(row, f"the answer breaks the rules: {name} does not have every digit once")
    return reasons


def _odd_mazes(inputs_NL: np.ndarray) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for token, name, allowed in ((START, "S", 1), (GOAL, "G", 1), (PATH, "o", 0)):
        counts_N = (inputs_NL == token).sum(axis=1)
        for row in np.flatnonzero(counts_N != allowed).tolist():
            reasons.setdefault(row, f"the question has {counts_N[row]} cells {name!r}, expected {allowed}")
    return reasons


def _differs_from_maze(processor: GridProcessor, inputs_NL: np.ndarray, labels_NL: np.ndarray) -> dict[int, str]:
    marked = (inputs_NL == OPEN) & (labels_NL == PATH)
    return {
        row: f"the answer is not the maze of the question at {_where(processor, at)}"
        for row, at in _first_positions(~marked & (inputs_NL != labels_NL))
    }


def check_paths(processor: GridProcessor, inputs_NL: np.ndarray, labels_NL: np.ndarray) -> dict[int, str]:
    """The reason of every maze whose answer is no shortest path from S to G."""
    height, width = processor.grid_shape
    mazes = inputs_NL.reshape(-1, height, width)
    wrong = np.flatnonzero(~are_shortest_paths(mazes, labels_NL.reshape(-1, height, width)))
    reasons = {}
    for row in wrong.tolist():
        distance = int(distances_to_goal(mazes[row : row + 1])[mazes[row : row + 1] == START].max())
        marked = int((labels_NL[row] == PATH).sum())
        if distance < 0:
            reasons[row] = "no path leads from S to G"
        else:
            reasons[row] = f"the {marked} path cells of the answer are no shortest path (those have {distance - 1})"
    return reasons


def _check_one(processor: GridProcessor, question: str, answer: str) -> None:
    inputs_1L, wrong_question = tokenise(processor, [question])
    labels_1L, wrong_answer = tokenise(processor, [answer])
    for name, reasons in (("question", wrong_question), ("answer", wrong_answer)):
        if reasons:
            raise PuzzleError(f"the {name}: {reasons[0]}")
    reasons = check_tokens(processor, inputs_1L, labels_1L)
    if not reasons and processor.task == "maze":
        reasons = check_paths(processor, inputs_1L, labels_1L)
    if reasons:
        raise PuzzleError(reasons[0])


def _sudoku_processor(question: str) -> GridProcessor:
    side = sudoku_side(question) or 9  # where it is no Sudoku, the message says what is usual
    return GridProcessor("sudoku", grid_shape=(side, side))


def check_sudoku(question: str, answer: str) -> None:
    """Raises PuzzleError with the reason unless the answer keeps the clues and obeys the rules (4x4, 9x9, ...)."""
    _check_one(_sudoku_processor(question), question, answer)


def maze_shape(question: str) -> tuple[int, int] | None:
    """The shape of a maze that comes as lines, of which an editor may have cut trailing spaces, or of a square one."""
    lines = question.strip("\r\n").splitlines()
    if len(lines) > 1:
        return len(lines), max(map(len, lines))
    side = math.isqrt(len(question))
    return (side, side) if side > 0 and side * side == len(question) else None


def _maze_processor(question: str, grid_shape: Sequence[int] | None) -> GridProcessor:
    """The shape of a maze: as given, or its lines, or a square where it comes as one line."""
    shape = maze_shape(question) if grid_shape is None else grid_shape
    if shape is None:
        raise DataError(f"a maze of {len(question)} cells in one line is no square; give grid_shape=(height, width)")
    return GridProcessor("maze", grid_shape=shape)


def check_maze(question: str, answer: str, grid_shape: Sequence[int] | None = None) -> None:
    """Raises PuzzleError with the reason unless the answer is a shortest path through the maze of the question.

    An oblong maze needs its lines, or grid_shape=(height, width).
    """
    _check_one(_maze_processor(question, grid_shape), question, answer)


def maze_path_is_valid_and_shortest(question: str, answer: str, grid_shape: Sequence[int] | None = None) -> bool:
    """Whether the answer is *a* shortest path: there are very many, and "exact" accepts only one of them."""
    try:
        check_maze(question, answer, grid_shape)
    except PuzzleError:
        return False
    return True


@cache
def _units(side: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(positions.tolist()) for _, positions in sudoku_units(side))


def sudoku_is_valid(question: str, answer: str) -> bool:
    """Whether the answer keeps the clues and obeys the rules, whatever the label says; both in the processor's text."""
    side = math.isqrt(len(answer))
    digits = set(SUDOKU_DIGITS[:side])
    keeps_clues = all(clue in (".", given) for clue, given in zip(question, answer, strict=True))
    return keeps_clues and all({answer[at] for at in unit} == digits for unit in _units(side))


def validity_check(task: str, grid_shape: Sequence[int]) -> Callable[[str, str], bool] | None:
    """(question, answer) -> whether the answer is right by the rules of the task; None where no rules are known."""
    if task == "sudoku":
        return sudoku_is_valid
    return partial(maze_path_is_valid_and_shortest, grid_shape=grid_shape) if task == "maze" else None
