"""GridProcessor: the one alphabet shared by data set builders, training and inference: grid <-> token ids.

Token ids (TRM, arXiv 2510.04871, public data builders; 0 is padding in every task):

| task   | grid given and returned                        | token ids                                            |
|--------|------------------------------------------------|------------------------------------------------------|
| sudoku | string, row by row, "." for a blank            | 1 blank, 2..n+1 the digits 1..n (n = 9)              |
| maze   | string, row by row, of the characters "# SGo"  | 1..5 in that order: wall, open, start, goal, path    |
| arc    | list of rows of colours 0..9                   | 1 end of grid (EOS), 2..11 the colours, on a canvas  |
| grid   | string over an alphabet of your own            | alphabet[i] is i + 1                                 |

Strings may be written otherwise (0 or - for a blank, ruled, numbers between blanks); see grid_text_trm.

Shapes: N grids, L = height * width positions of a grid, row-major.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

from .grid_text_trm import MAZE_CHARACTERS, SUDOKU_DIGITS, SUDOKU_SIDES, GridReader

TASKS = ("sudoku", "maze", "arc", "grid")
PAD_TOKEN_ID = 0
EOS_TOKEN_ID = 1  # ARC only
FIRST_COLOUR_ID = 2  # ARC only
NUM_COLOURS = 10

Grid = str | Sequence[Sequence[int]]


class GridProcessor(FeatureExtractionMixin):
    """Turns puzzles into token ids and back.

    Args:
        task: "sudoku", "maze", "arc" or "grid" (puzzles of your own).
        grid_shape: (height, width). Default: sudoku (9, 9), maze and arc (30, 30); required for "grid".
        alphabet: the characters of a "grid" task, in the order of their ids 1, 2, ...; given by the other tasks.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    model_input_names: ClassVar[list[str]] = ["input_ids"]

    def __init__(
        self,
        task: str = "sudoku",
        grid_shape: Sequence[int] | None = None,
        alphabet: str | None = None,
        **kwargs: Any,
    ):
        kwargs.pop("feature_extractor_type", None)
        super().__init__(**kwargs)
        if task not in TASKS:
            raise ValueError(f"task={task!r} is unknown; allowed: {', '.join(TASKS)}")
        self.task = task
        self.grid_shape = _checked_shape(task, grid_shape)
        if task != "grid" and alphabet is not None:
            raise ValueError(f"alphabet={alphabet!r} is for task='grid' only; task={task!r} has its own")
        self.alphabet = _checked_alphabet(alphabet) if task == "grid" else None

    def __eq__(self, other: object) -> bool:
        # By name, not by class: a copy loaded as remote code is another class object.
        if type(other).__name__ != type(self).__name__:
            return NotImplemented
        return self._facts() == other._facts()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self._facts())

    def _facts(self) -> tuple[Any, ...]:
        """All that it does hangs on; what a file says beside that (auto_map) makes no other processor."""
        return self.task, tuple(self.grid_shape), self.alphabet

    @property
    def seq_len(self) -> int:
        """L, the number of positions of a grid."""
        return self.grid_shape[0] * self.grid_shape[1]

    @property
    def characters(self) -> str:
        """The characters of token ids 1, 2, ... (tasks whose grids are strings)."""
        if self.task == "sudoku":
            return "." + SUDOKU_DIGITS[: self.grid_shape[0]]
        if self.task == "maze":
            return MAZE_CHARACTERS
        if self.alphabet is not None:
            return self.alphabet
        raise ValueError("task='arc' has colours 0..9, not characters")

    @property
    def vocab_size(self) -> int:
        """Number of token ids, padding included."""
        return FIRST_COLOUR_ID + NUM_COLOURS if self.task == "arc" else len(self.characters) + 1

    @property
    def blank_token_id(self) -> int | None:
        """The id of a cell that is to be answered: a Sudoku's blank, a maze's open cell; None where all are."""
        return {"sudoku": 1, "maze": 2}.get(self.task)

    @property
    def reader(self) -> GridReader:
        """Reads grids as people write them into `characters`."""
        return GridReader(self.task, (self.grid_shape[0], self.grid_shape[1]), self.characters)

    def encode(self, grid: Grid, offset: tuple[int, int] = (0, 0)) -> torch.Tensor:
        """Token ids int64 [L] of one grid. Raises ValueError naming the row, the column and the character.

        Args:
            offset: (row, column) of an arc grid's top left corner on its canvas, the translation of TRM's training.
        """
        return torch.from_numpy(self._encode(grid, offset))

    def _encode(self, grid: Grid, offset: tuple[int, int] = (0, 0)) -> np.ndarray:
        if self.task == "arc":
            return self._encode_colours(grid, offset)
        if offset != (0, 0):
            raise ValueError(f"offset={offset} is for task='arc' only; a {self.task} grid fills its canvas")
        if not isinstance(grid, str):
            raise ValueError(f"a {self.task} grid is given as a string, got {type(grid).__name__}")
        return self.encode_cells(self.reader.read(grid))

    def encode_cells(self, cells: str) -> np.ndarray:
        """Token ids int64 [L] of a grid as the reader has read it."""
        token_ids = {character: token_id for token_id, character in enumerate(self.characters, start=1)}
        return np.array([token_ids[character] for character in cells], dtype=np.int64)

    def _encode_colours(self, grid: Grid, offset: tuple[int, int]) -> np.ndarray:
        rows = grid.tolist() if isinstance(grid, np.ndarray) else grid
        if isinstance(rows, str) or not rows or not all(isinstance(row, Sequence) for row in rows):
            raise ValueError("an arc grid is a non-empty list of rows of colours 0..9")
        height, width = len(rows), len(rows[0])
        if any(len(row) != width for row in rows):
            raise ValueError(f"the rows of an arc grid differ in length: {[len(row) for row in rows]}")
        if not (0 < height <= self.grid_shape[0] and 0 < width <= self.grid_shape[1]):
            raise ValueError(f"the grid is {height} x {width}, at most {self.grid_shape[0]} x {self.grid_shape[1]}")
        for r, row in enumerate(rows):
            for c, colour in enumerate(row):
                if colour not in range(NUM_COLOURS):
                    raise ValueError(f"row {r + 1}, column {c + 1}: colour {colour!r} is not allowed; allowed: 0..9")
        return place_colours(np.array(rows, dtype=np.int64), self.grid_shape, offset)

    def decode(
        self, ids: Sequence[int] | np.ndarray | torch.Tensor, offset: tuple[int, int] = (0, 0)
    ) -> str | list[list[int]] | None:
        """The grid of token ids [L]: a string, for arc a list of rows; None when the ids are no grid.

        Args:
            offset: where an arc grid begins on its canvas; evaluation never translates, so it is (0, 0) there.

        Raises:
            ValueError: ids of another shape than one grid's.
        """
        tokens = np.asarray(ids.detach().cpu() if isinstance(ids, torch.Tensor) else ids)
        if tokens.shape != (self.seq_len,):
            raise ValueError(
                f"token ids of shape {list(tokens.shape)}; allowed: decode takes one grid, [{self.seq_len}] (as ids[0] "
                f"of a batch), batch_decode several, [N, {self.seq_len}]"
            )
        if self.task == "arc":
            colours = crop_colours(tokens.reshape(self.grid_shape)[offset[0] :, offset[1] :])
            return colours.tolist() if colours.size else None
        characters = self.characters
        if tokens.min() < 1 or tokens.max() > len(characters):
            return None
        return "".join(characters[token - 1] for token in tokens)

    def batch_decode(self, ids: torch.Tensor | np.ndarray | Sequence[Sequence[int]]) -> list[Any]:
        """The grid of each row of token ids [N, L], as `decode` gives it."""
        return [self.decode(row) for row in ids]

    def __call__(self, grids: Grid | Sequence[Grid], return_tensors: str | None = "pt") -> BatchFeature:
        """BatchFeature(input_ids [N, L]) of one grid or of a list of grids."""
        batch = []
        for number, grid in enumerate(self._as_list(grids)):
            try:
                batch.append(self._encode(grid))
            except ValueError as error:
                raise ValueError(f"grid {number + 1}: {error}") from error
        if not batch:
            raise ValueError("no grid was given")
        return BatchFeature({"input_ids": np.stack(batch)}, tensor_type=return_tensors)

    def _as_list(self, grids: Any) -> Sequence[Grid]:
        if isinstance(grids, str):
            return [grids]
        is_table = isinstance(grids, Mapping) or hasattr(grids, "columns")  # to iterate it gives names
        if is_table or not hasattr(grids, "__iter__"):
            raise TypeError(
                f"grids are of type {type(grids).__name__}; allowed: one grid as text (arc: a list of rows), or a list "
                f"of grids; of a table its column, table['question']"
            )
        is_one_arc_grid = self.task == "arc" and len(grids) > 0 and np.ndim(grids[0]) == 1
        return [grids] if is_one_arc_grid else grids

    def render(self, grid: Grid | None) -> str:
        """The grid on several lines, for people: Sudoku with its boxes, the others row by row; None is "no grid"."""
        if grid is None:  # what `decode` says of ids that are none
            return "no grid"
        if not isinstance(grid, str):
            return "\n".join(" ".join(str(colour) for colour in row) for row in grid)
        width = self.grid_shape[1]
        cells = grid if len(grid) == self.seq_len else self.reader.read(grid)
        rows = [cells[start : start + width] for start in range(0, len(cells), width)]
        return _render_sudoku(rows) if self.task == "sudoku" else "\n".join(rows)


def colours_to_text(grid: Sequence[Sequence[int]] | np.ndarray) -> str:
    """An arc grid as text, its rows joined by "/": "012/340". No grid at all is ""."""
    colours = np.asarray(grid, dtype=np.uint8)
    if colours.size == 0:
        return ""
    height, width = colours.shape
    characters = np.full((height, width + 1), ord("/"), dtype=np.uint8)
    characters[:, :width] = colours + ord("0")
    return characters.tobytes()[:-1].decode("ascii")


def text_to_colours(text: str) -> np.ndarray:
    """uint8 [h, w] of an arc grid's text. Raises ValueError for rows of unequal length or other characters."""
    rows = text.split("/")
    if len({len(row) for row in rows}) != 1 or not all(row.isascii() and row.isdigit() for row in rows):
        raise ValueError(f"{text!r} is no arc grid; allowed: rows of digits of one length, joined by '/'")
    return np.array([[int(colour) for colour in row] for row in rows], dtype=np.uint8)


def _checked_shape(task: str, grid_shape: Sequence[int] | None) -> list[int]:
    """[height, width] as a list, which is what JSON gives back."""
    if grid_shape is None:
        if task == "grid":
            raise ValueError("task='grid' needs grid_shape=(height, width) of your puzzles (--grid-shape HEIGHT WIDTH)")
        return [9, 9] if task == "sudoku" else [30, 30]
    try:
        shape = [operator.index(size) for size in grid_shape]
    except TypeError as error:
        raise ValueError(f"grid_shape={grid_shape!r} must be (height, width), two whole numbers") from error
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"grid_shape={tuple(grid_shape)} must be (height, width), both at least 1")
    if task == "sudoku":
        n = shape[0]
        if shape[1] != n or n not in SUDOKU_SIDES:
            raise ValueError(f"grid_shape={tuple(shape)} is no Sudoku; allowed: (4, 4), (9, 9), (16, 16), (25, 25)")
    return shape


def _checked_alphabet(alphabet: str | None) -> str:
    if not (alphabet and isinstance(alphabet, str)):
        raise ValueError("task='grid' needs alphabet='...', the characters of your puzzles (--alphabet ...)")
    repeated = sorted({c for c in alphabet if alphabet.count(c) > 1})
    if repeated:
        raise ValueError(f"alphabet={alphabet!r} repeats {repeated}; every character may occur once")
    forbidden = [c for c in alphabet if not c.isascii() or c in "\r\n"]
    if forbidden:
        raise ValueError(f"alphabet={alphabet!r} has {forbidden}; allowed are ASCII characters other than line ends")
    return alphabet


def place_colours(colours_hw: np.ndarray, grid_shape: Sequence[int], offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """int64 [L]: the colours on a canvas, with EOS below and to the right; of an empty grid, padding alone."""
    height, width = colours_hw.shape
    top, left = offset
    bottom, right = top + height, left + width
    if top < 0 or left < 0 or bottom > grid_shape[0] or right > grid_shape[1]:
        raise ValueError(f"offset={offset}: a {height} x {width} grid does not fit there on {tuple(grid_shape)}")
    canvas = np.full(grid_shape, PAD_TOKEN_ID, dtype=np.int64)
    canvas[top:bottom, left:right] = colours_hw.astype(np.int64) + FIRST_COLOUR_ID
    if colours_hw.size:
        canvas[bottom : bottom + 1, left:right] = EOS_TOKEN_ID
        canvas[top:bottom, right : right + 1] = EOS_TOKEN_ID
    return canvas.reshape(-1)


def crop_colours(tokens_HW: np.ndarray) -> np.ndarray:
    """uint8 [h, w], maybe empty: the colours of the largest rectangle from the top left without padding or EOS.

    The rule of TRM's ARC evaluator; the first one wins a tie. Few NumPy calls: an evaluation has hundreds of thousands.
    """
    height, width = tokens_HW.shape
    colours_HW = tokens_HW.clip(0, 255).astype(np.uint8) - np.uint8(
        FIRST_COLOUR_ID
    )  # padding and EOS wrap around to 254 and 255
    is_end = np.ones((height, width + 1), dtype=bool)
    np.greater_equal(colours_HW, NUM_COLOURS, out=is_end[:, :width])
    width_H = np.minimum.accumulate(is_end.argmax(axis=1))
    last = int((width_H * np.arange(1, height + 1)).argmax())
    return colours_HW[: last + 1, : width_H[last]]


def _render_sudoku(rows: list[str]) -> str:
    box = math.isqrt(len(rows))
    lines = []
    for r, row in enumerate(rows):
        if r and r % box == 0:
            lines.append("+".join(["-" * (2 * box + 1)] * box)[1:-1])
        lines.append(" | ".join(" ".join(row[c : c + box]) for c in range(0, len(row), box)))
    return "\n".join(lines)


GridProcessor.register_for_auto_class("AutoFeatureExtractor")
