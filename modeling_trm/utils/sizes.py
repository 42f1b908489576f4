"""Puzzles of another size than a checkpoint's own, read in the size that they have where its model answers that one."""

import math
from collections.abc import Callable

from ..configuration_trm import TRMConfig
from ..grid_text_trm import SUDOKU_SIDES
from ..processing_trm import GridProcessor
from ..puzzle_files_trm import NoPuzzle
from ..puzzle_input_trm import Puzzle
from .loading import SQUARE_TASKS
from .shipped import find_checkpoint

Found = list[Puzzle | NoPuzzle]


def read_in_their_size(
    read: Callable[[GridProcessor], Found], own: GridProcessor, model: str
) -> tuple[Found, GridProcessor, str | None]:
    """(what was read, the processor that read it, a note where it is not the checkpoint's own or need not be).

    Another size is taken where no puzzle has the checkpoint's, and all have the same in one way of reading alone, or in
    one with fewer faults than the others.
    """
    found = read(own)
    wrong = [one for one in found if isinstance(one, NoPuzzle)]
    if own.task not in SQUARE_TASKS or count_faults(found, own) is not None:
        return found, own, None
    sizes = other_sizes(own, model, wrong[0].text)
    if len(wrong) == len(found):
        ways = [(faults, way, size) for size in sizes if (faults := count_faults(way := read(size), size)) is not None]
        fewest = [(way, size) for faults, way, size in ways if faults == min(way[0] for way in ways)]
        if len(fewest) == 1:
            found, size = fewest[0]
            (side, _), trained = size.grid_shape, " x ".join(map(str, own.grid_shape))
            note = f"the puzzles are {side} x {side}, which this checkpoint of {trained} answers too (--side {side})"
            return found, size, note
    hint = "this checkpoint answers square grids of other sizes too, with --side N"
    return found, own, hint if sizes else None


def written_for(own: GridProcessor, characters: str | None) -> GridProcessor | None:
    """What reads Sudokus that are written with these characters, a blank and a digit for each column."""
    if own.task != "sudoku" or characters is None:
        return None
    side = len(characters) - 1
    return GridProcessor("sudoku", grid_shape=(side, side)) if side in SUDOKU_SIDES else own


def other_sizes(own: GridProcessor, model: str, text: str) -> list[GridProcessor]:
    """The sizes that the model answers, and that such a text may be or begin with, a grid a line or in rows."""
    config = TRMConfig.from_pretrained(find_checkpoint(model))
    widest = max(map(len, text.splitlines()), default=0)
    sides = SUDOKU_SIDES if own.task == "sudoku" else {widest, math.isqrt(widest)} - {0}
    sizes = [GridProcessor(own.task, grid_shape=(side, side)) for side in sides]
    return [size for size in sizes if size != own and config.misfit(size.task, size.vocab_size, size.seq_len) is None]


def count_faults(found: Found, size: GridProcessor) -> int | None:
    """How many are no puzzles; None where one has not even the cells of one."""
    wrong = [one for one in found if isinstance(one, NoPuzzle)]
    return len(wrong) if all(size.reader.fits(one.text) for one in wrong) else None
