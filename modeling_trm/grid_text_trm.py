"""Grids as people write them, read into one text: the characters of the processor's alphabet, row by row.

A grid comes as text or as (nested) lists of cells, a cell as a character or a whole number. What is taken away is
layout: line ends, white space between cells, the lines of ruled grids, `.sdk` remarks. What is never done is to guess:
where the characters can be read in two ways that matter, both are named and `written` settles it.

| written                              | read as                                                                      |
|--------------------------------------|------------------------------------------------------------------------------|
| . 0 - _ * ? x, a space               | a blank of a Sudoku, unless its digits have that character                   |
| 1-9, 1-9A-G, 1-9A-P                  | the digits of 9 x 9, 16 x 16, 25 x 25                                        |
| 0-9A-F, 0-9A-O                       | the same, counted from 0: there a 0 is a digit and never a blank             |
| A-I, A-P, A-Y                        | the same, all letters                                                        |
| 1 2 16, 5.0                          | numbers: the n-th digit; from 0 where a 0 is a digit                         |
| :0000:x:GRID:::, "GRID # hard"       | the one word of a line that has as many cells as a Sudoku                    |

Shapes: L = height * width positions of a grid, row-major.
"""

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase, digits
from typing import Any

import numpy as np
import torch

SUDOKU_DIGITS = "123456789ABCDEFGHIJKLMNOP"  # one character a digit, up to 25 x 25
SUDOKU_SIDES = (4, 9, 16, 25)
MAZE_CHARACTERS = "# SGo"
DEEPEST = 8  # lists within lists: a batch of puzzles of rows of cells has three
BLANKS = ".0-_*?xX "
BESIDE = re.compile(r"""[\s:;,|#='"]+""")  # between a Sudoku and what lists have beside it on its line
UNKNOWN = 255  # marks a character outside the alphabet in token_table(); the ASCII alphabets are shorter
FRAME = str.maketrans("|+,[]", "     ")  # what ruled grids and printed lists have between their cells
DRAWN = dict.fromkeys(range(0x2500, 0x2580), "+") | str.maketrans("─━═│┃║", "---|||")  # lines that Unicode draws
RULE = re.compile(r"[-=+|\s]*|\*[-=+|]+\*")  # a line between the boxes, where it has a + or no |
NUMBER = re.compile(r"\d{1,4}(\.0*)?", re.ASCII)
AS_NUMBER = re.compile(r"\d{10,}|\d\.\d+E\d+", re.ASCII)  # what a table program leaves of a Sudoku that it took for one
SECTION = re.compile(r"\s*\[(\w+)\]\s*")  # of an .sdk file
PLAYED = ("state", "pencilmarks")  # sections that repeat the puzzle as far as somebody has come
REMARK = re.compile(r"\s*(#.*|\[\w+\]|(grid|puzzle|sudoku)\s*\d*:?)\s*", re.IGNORECASE)


class LayoutError(ValueError):
    """A grid of another number of rows or cells."""


@dataclass(frozen=True)
class GridReader:
    """Reads the grids of one task and shape.

    Args:
        characters: the alphabet that grids are read into; of a Sudoku the blank first.
        written: the characters that stand for those, in their order, where grids are written with others, as in
            ".0123456789ABCDEF" for a 16 x 16 Sudoku or "X.SE*" for a maze. None: as the table of the module says.

    Raises:
        ValueError: `written` has another length than the alphabet, or a character twice.
    """

    task: str
    grid_shape: tuple[int, int]
    characters: str
    written: str | None = None

    def __post_init__(self) -> None:
        if self.written is None:
            return
        if (
            not isinstance(self.written, str)
            or len(self.written) != len(self.characters)
            or len(set(self.written)) < len(self.written)
        ):
            raise ValueError(
                f"characters={self.written!r} is not allowed; allowed: {len(self.characters)} different characters "
                f"that stand for {self.characters!r}, in that order"
            )

    def read(self, grid: Any) -> str:
        """The grid in `characters`. Raises ValueError naming the row, the column, what was found and what is allowed.

        Args:
            grid: text, or rows or cells as (nested) lists, tuples, arrays.
        """
        return self.read_as_written(grid)[0]

    def read_as_written(self, grid: Any) -> tuple[str, str]:
        """The same, and the characters that stand for `characters` in the grid, in their order.

        Numbers of more than one digit stand for characters: 10 for A, or counted from 0 for the eleventh, A again.
        """
        if self.written is None and isinstance(grid, str) and self._is_plain(grid):
            return grid, self.characters
        cells = self._cells_of_text(grid) if isinstance(grid, str) else self._cells_of_lists(as_lists(grid))
        words = [_word(cell) for cell in cells]
        symbols, meaning = self._choose_meaning(words)
        for position, word in enumerate(words):
            if word not in meaning:
                raise ValueError(self.not_allowed(position, cells[position]))
        return "".join(map(meaning.__getitem__, words)), symbols

    def not_allowed(self, position: int, cell: Any) -> str:
        """The message for a cell outside the alphabet at a position of the grid."""
        row, column = divmod(position, self.grid_shape[1])
        numbers = f"0..{self.grid_shape[0]} or " if self.task == "sudoku" and not isinstance(cell, str) else ""
        allowed = numbers + repr(self.written or self.characters)
        others = (
            ""
            if self.task == "sudoku" or self.written
            else "; if it is written with others, say which: characters (--characters)"
        )
        return f"row {row + 1}, column {column + 1}: {cell!r} is not allowed; allowed: {allowed}{others}"

    def token_table(self) -> np.ndarray:
        """uint8 [256]: byte -> token id; UNKNOWN for what is not allowed or needs the whole grid to be understood."""
        table = np.full(256, UNKNOWN, dtype=np.uint8)
        for symbol, character in self._meaning(self.written or self.characters).items():
            if symbol.isascii():
                table[ord(symbol)] = self.characters.index(character) + 1
        if self.task == "sudoku":
            contested = "" if self.written or self.grid_shape[0] <= 9 else "0xX"
            for symbol in " " + contested:  # a space may be layout
                table[ord(symbol)] = UNKNOWN
        return table

    def told_by(self, answers: Iterable[str | None]) -> "GridReader":
        """This reader with `written` set to the characters that whole Sudokus show; itself where they do not tell."""
        if self.task != "sudoku" or self.written is not None:
            return self
        seen: set[str] = set()
        for answer in answers:
            try:
                seen.update(_word(cell).upper() for cell in self._cells_of_text(answer or ""))
            except ValueError:  # a bad row, which will be named as one
                continue
        fitting = [symbols for symbols in self._notations() if seen and seen <= set(self._named(symbols, seen))]
        return replace(self, written=fitting[0]) if len(fitting) == 1 else self

    def fits(self, text: str) -> bool:
        """Whether a text has the cells of such a grid and characters that it may be written with."""
        try:
            words = [_word(cell) for cell in self._cells_of_text(text)]
        except ValueError:
            return False
        ways = [self.written] if self.written or self.task != "sudoku" else self._notations()
        return any(set(words) <= set(self._meaning(symbols or self.characters, words)) for symbols in ways)

    def split(self, text: str) -> Iterator[tuple[int, int, str]]:
        """(first line, last line, text) of each grid in a text: one a line, or `height` lines; empty lines separate."""
        block: list[tuple[int, str]] = []
        is_played = False
        text = text.translate(DRAWN) if self.task == "sudoku" else text
        for number, line in enumerate([*text.splitlines(), ""], start=1):
            section = SECTION.fullmatch(line) if self.task == "sudoku" else None
            is_played = section[1].lower() in PLAYED if section else is_played
            if self.task == "sudoku" and (REMARK.fullmatch(line) or (is_played and line.strip())):
                continue
            # In a maze every space is a cell; of a Sudoku white space may be, where it fills a row.
            if line.strip() or (line and (self.task != "sudoku" or (block and len(line) == self.grid_shape[1]))):
                block.append((number, line))
            elif block:
                yield from self._split_block(block)
                block = []

    def _split_block(self, block: list[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
        height, width = self.grid_shape
        rows = [(number, line) for number, line in block if not self._is_rule(line)]
        if len(rows) % height:  # dashes that were taken for rules may be a row of blanks
            rows = block if len(block) % height == 0 else rows
        rows = rows or block
        whole = math.prod(self.grid_shape)
        is_one_a_line = height == 1 or any(self.length(line) == whole for _, line in rows)
        if is_one_a_line or max(self.length(line) for _, line in rows) > (width + whole) // 2 or len(rows) == 1:
            yield from ((number, number, line) for number, line in rows)
            return
        for start in range(0, len(rows), height):
            part = rows[start : start + height]
            yield part[0][0], part[-1][0], "\n".join(line for _, line in part)

    def length(self, line: str) -> int:
        """The number of cells of a line."""
        height, width = self.grid_shape
        if self._between(line, height * width):
            return height * width
        return len(line) if len(line) in (width, height * width) else len(self._row(line))

    def _is_rule(self, line: str) -> bool:
        is_frame = RULE.fullmatch(line) is not None and ("+" in line or "|" not in line.strip().strip("|"))
        return self.task == "sudoku" and is_frame and len(line.strip()) != self.grid_shape[1]

    def _is_plain(self, text: str) -> bool:
        return len(text) == math.prod(self.grid_shape) and not set(text) - set(self.characters)

    # --- cells ------------------------------------------------------------------------------------------------------

    def _cells_of_text(self, text: str) -> list[str]:
        if self.task == "sudoku":
            return self._sudoku_of_text(text)
        width = self.grid_shape[1]
        lines = text.replace("\r", "").strip("\n").split("\n")
        if len(lines) == 1:
            return self._counted(list(lines[0]))
        if self.task == "maze":
            wall, space, *_ = tuple(self.written or self.characters)
            # Editors cut trailing spaces; not from a maze with a wall on the right, where something else is missing.
            if space == " " and any(len(line) == width and line[-1] != wall for line in lines):
                lines = [line.ljust(width) for line in lines]
        return self._checked(lines)

    def _sudoku_of_text(self, text: str) -> list[str]:
        height, width = self.grid_shape
        whole = height * width
        lines = text.translate(DRAWN).replace("\r", "").strip("\n").split("\n")
        separated = [self._between(line, whole if len(lines) == 1 else width) for line in lines]
        if all(separated):
            return self._counted([cell for row in separated for cell in row])
        if all(len(line) in (width, whole) for line in lines) and sum(map(len, lines)) == whole:
            cells = list("".join(lines))
            if not set(cells) & set("|+\t") and not (" " in cells and set(cells[1::2]) == {" "}):
                return cells  # a space, if there is one, is a blank
        filled = [line for line in lines if line.strip() and not REMARK.fullmatch(line)]
        for kept in (filled, [line for line in filled if not self._is_rule(line)]):
            words = "\n".join(kept).translate(FRAME).split()
            cells = words if len(words) == whole else list("".join(words))
            if len(cells) == whole:
                return cells
        if len(lines) == height and max(map(len, lines)) <= width and any(" " in line.strip() for line in lines):
            return list("".join(line.ljust(width) for line in lines))  # spaces are blanks, and an editor cut some
        rows = [self._row(line) for line in kept]
        if len(rows) > 1:
            return self._checked(rows)
        alone = [word for word in BESIDE.split(text) if len(word) == whole]
        return self._counted(list(alone[0]) if len(alone) == 1 else cells)

    def _cells_of_lists(self, grid: Any) -> list[Any]:
        if self._is_flat(grid):
            return self._counted(grid)
        if (
            not isinstance(grid, list)
            or not grid
            or not all(isinstance(row, str) or self._is_flat(row) for row in grid)
        ):
            raise ValueError(f"a {self.task} grid is a string, rows or an array of cells; got {shown(grid)}")
        if all(isinstance(row, str) for row in grid):
            return self._cells_of_text("\n".join(grid))
        rows = [self._row(row) if isinstance(row, str) else row for row in grid]
        return self._checked(rows)

    def _is_flat(self, line: Any) -> bool:
        lengths = (0, 1, 2) if self.task == "sudoku" else (1,)  # a digit may be written "16", a blank ""
        return (
            isinstance(line, list)
            and bool(line)
            and all(
                len(cell) in lengths if isinstance(cell, str) else not isinstance(cell, list | dict) for cell in line
            )
        )

    def _between(self, line: str, count: int) -> list[str]:
        """The cells of a line that has one between each of its separators, an empty one a blank; none of any other."""
        separator = next((mark for mark in ",;\t" if line.count(mark) == count - 1), None)
        return [] if separator is None else [cell.strip(" []") or self.characters[0] for cell in line.split(separator)]

    def _row(self, row: str) -> list[str]:
        """The cells of one line: its characters, or of a Sudoku numbers between blanks."""
        if self.task != "sudoku":
            return list(row)
        if separated := self._between(row, self.grid_shape[1]):
            return separated
        words = row.translate(FRAME).split()
        are_numbers = len(words) == self.grid_shape[1] and all(
            len(word) == 1 or NUMBER.fullmatch(word) for word in words
        )
        return words if are_numbers else list("".join(words))

    def _checked(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        height, width = self.grid_shape
        if len(rows) != height:
            raise LayoutError(f"the grid has {len(rows)} rows, expected {height}")
        for number, row in enumerate(rows, start=1):
            if len(row) != width:
                raise LayoutError(f"row {number} has {len(row)} cells, expected {width}")
        return [cell for row in rows for cell in row]

    def _counted(self, cells: list[Any]) -> list[Any]:
        height, width = self.grid_shape
        if len(cells) != height * width:
            is_cut = self.task == "sudoku" and AS_NUMBER.fullmatch("".join(map(str, cells)))
            hint = "; if a program took it for a number, save it as text" if is_cut else ""
            raise LayoutError(f"the grid has {len(cells)} cells, expected {height * width} ({height} x {width}){hint}")
        return cells

    # --- what the characters stand for --------------------------------------------------------------------------------

    def _choose_meaning(self, words: Sequence[str]) -> tuple[str, dict[str, str]]:
        """What the words are written with, and {word: character}.

        Raises ValueError naming both readings where a 0 (or an x) may be a blank or a digit.

        A puzzle with one solution shows all of its digits but one, so other characters than 0 and x do tell.
        """
        if self.task != "sudoku" or self.written is not None:
            symbols = self.written or self.characters
            return symbols, self._meaning(symbols, words)
        counts = Counter(word.upper() for word in words)
        fitting = []
        for symbols in self._notations():
            meaning = self._meaning(symbols, words)
            # A digit occurs at most once in a row; what occurs more often is no digit.
            may_be = all(counts[digit] <= self.grid_shape[0] for digit in symbols[1:] if digit in BLANKS)
            if may_be and all(word in meaning for word in counts):
                fitting.append((symbols, meaning))
        for blank in "0X":
            roles = {meaning[blank] == ".": symbols for symbols, meaning in reversed(fitting)} if counts[blank] else {}
            if len(roles) > 1:
                raise ValueError(
                    f"{blank!r} may be a blank or a digit here: say {option('characters', roles[True])} if it is a "
                    f"blank, {option('characters', roles[False])} if it is a digit"
                )
        return fitting[0] if fitting else (self.characters, self._meaning(self.characters, words))

    def _notations(self) -> list[str]:
        """What the digits of a Sudoku are written with, the blank first; the processor's own before the others."""
        side = self.grid_shape[0]
        from_zero = ["." + (digits + ascii_uppercase)[:side]] if side > 9 else []
        return [self.characters, *from_zero, "." + ascii_uppercase[:side]]

    def _meaning(self, symbols: str, words: Iterable[str] = ()) -> dict[str, str]:
        """{word: character} where the digits are written with these symbols."""
        if self.task != "sudoku":
            return dict(zip(symbols, self.characters, strict=True))
        named = dict(zip(self._named(symbols, words), self.characters, strict=True))
        either_case = {symbol.swapcase(): character for symbol, character in named.items()}
        return {**dict.fromkeys(BLANKS, "."), **either_case, **named}

    def _named(self, symbols: str, words: Iterable[str]) -> list[str]:
        """The symbols, or where the words are numbers of more than one digit, the numbers that stand for the same."""
        if not any(len(word) > 1 and word.isdecimal() for word in words):
            return list(symbols)
        first = 0 if symbols[1] == "0" else 1
        return [symbols[0], *(str(first + number) for number in range(len(symbols) - 1))]


def sudoku_side(grid: str) -> int | None:
    """The side of the Sudoku that a text is; None where it is none."""
    if len(grid) in (side * side for side in SUDOKU_SIDES) and not set(grid) & set(" |+\n"):
        return math.isqrt(len(grid))
    for side in SUDOKU_SIDES:
        try:
            GridReader("sudoku", (side, side), "." + SUDOKU_DIGITS[:side])._cells_of_text(grid)
        except ValueError:
            continue
        return side
    return None


def as_lists(value: Any, depth: int = 0) -> Any:
    """Arrays and tuples, at any depth, as lists, and whole floats as integers; anything else as it is."""
    if depth > DEEPEST:
        raise ValueError(
            f"the grid is nested more than {DEEPEST} deep; allowed: cells, rows of cells, or a list of these"
        )
    if isinstance(value, torch.Tensor):
        if value.is_meta or value.layout != torch.strided:
            kind = "meta" if value.is_meta else str(value.layout).removeprefix("torch.")
            raise ValueError(f"the grid is a {kind} tensor, without numbers to read; allowed: an ordinary tensor")
        value = value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and value.is_integer():  # pandas has whole numbers as 5.0
        return int(value)
    return [as_lists(part, depth + 1) for part in value] if isinstance(value, list | tuple) else value


def option(name: str, value: str | Mapping[str, str]) -> str:
    """What to write in Python, and what to type: "on_bad_row='skip' (--on-bad-row skip)"."""
    typed = f"--{name.replace('_', '-')} "
    if isinstance(value, str):
        return f"{name}={value!r} ({typed}{shlex.quote(value)})"
    words = shlex.join(f"{key}={one}" for key, one in value.items())
    # A recipe's field is one text: the mapping as YAML, which is written as Python's.
    return f'{name}={value!r} ({typed}{words}; trm train: {typed}"{value!r}")'


def shown(value: Any) -> str:
    """A value as a message has it, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _word(cell: Any) -> str:
    """A cell as text; a number without leading zeros and without ".0"."""
    word = str(cell) or " "
    if len(word) > 1 and NUMBER.fullmatch(word):
        return str(int(float(word)))
    return word
