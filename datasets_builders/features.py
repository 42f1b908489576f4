"""PuzzleSet: the puzzles of one split as token ids, read from any source and checked row by row.

Shapes: N puzzles, L positions of a grid.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from datasets_builders.files import SPLITS, Paths
from datasets_builders.solutions import several_solutions
from datasets_builders.sources import Rows, open_source
from datasets_builders.validation import (
    BadRow,
    DataError,
    check_paths,
    check_tokens,
    list_bad_rows,
    maze_shape,
    sudoku_units,
    tokenise,
)
from modeling_trm.grid_text_trm import GridReader, option, sudoku_side
from modeling_trm.losses_trm import IGNORE_INDEX
from modeling_trm.processing_trm import PAD_TOKEN_ID, GridProcessor
from modeling_trm.puzzle_tables_trm import ANSWERS_THAT_TELL
from modeling_trm.randomness_trm import subset_rows

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

CHUNK_ROWS = 65_536  # text of so many rows is held as Python strings at a time
PATHS_CHECKED = 256  # mazes whose path is searched for unless validate="all"
CELLS_SEARCHED = 64 * 81  # of Sudokus that are searched for a second solution unless validate="all"
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PuzzleSet:
    """Puzzles of one task and shape; a map-style data set, as PyTorch's DataLoader and transformers' Trainer take it.

    Attributes:
        inputs, labels: uint8 [N, L] token ids of question and answer.
        sources: str [N]; ratings: int32 [N], or float64 where some are no whole numbers (0 where there is none).
        bad_rows: rows left out by on_bad_row="skip".
        origin: one line saying where the rows came from.
        puzzle_ids: int64 [N], each puzzle's row of the puzzle table; None where all have the blank row 0.
        several_solutions: (Sudokus found to have several solutions, Sudokus searched); None where none were.
    """

    task: str
    inputs: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    ratings: np.ndarray
    processor: GridProcessor
    origin: str = ""
    bad_rows: tuple[BadRow, ...] = ()
    puzzle_ids: np.ndarray | None = None
    several_solutions: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """What the model takes: input_ids and labels int64 [L], padding ignored; puzzle_ids where there are any."""
        labels = torch.from_numpy(self.labels[index].astype(np.int64))
        row = {
            "input_ids": torch.from_numpy(self.inputs[index].astype(np.int64)),
            "labels": labels.masked_fill(labels == PAD_TOKEN_ID, IGNORE_INDEX),
        }
        return row if self.puzzle_ids is None else row | {"puzzle_ids": torch.tensor(int(self.puzzle_ids[index]))}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over task, shape and rows (questions, answers, sources, ratings, in order)."""
        digest = hashlib.sha256(f"{self.task} {self.processor.grid_shape} {len(self)}\n".encode())
        ratings = self.ratings.astype("<f8" if self.ratings.dtype.kind == "f" else "<i4")
        for column in (self.inputs, self.labels, ratings):
            digest.update(np.ascontiguousarray(column).tobytes())
        digest.update("\n".join(self.sources.tolist()).encode())
        if self.puzzle_ids is not None:
            digest.update(self.puzzle_ids.astype("<i8").tobytes())
        return digest.hexdigest()

    def distinct(self) -> np.ndarray:
        """int64: the first row of each question; a file may hold a puzzle twice, and only one split may have it."""
        first = np.sort(np.unique(_keys(self.inputs), return_index=True)[1])
        if len(first) < len(self):
            LOG.warning("%s: %d of %d rows repeat a puzzle: left out", self.origin, len(self) - len(first), len(self))
        return first

    def is_among(self, questions_NL: np.ndarray) -> np.ndarray:
        """bool [N]: which of its puzzles are among these questions, uint8 token ids [M, L]."""
        return np.isin(_keys(self.inputs), _keys(questions_NL))

    def select(self, indices: np.ndarray) -> "PuzzleSet":
        """The puzzles at these positions (or where a bool mask is true), in this order."""
        columns = (self.inputs[indices], self.labels[indices], self.sources[indices], self.ratings[indices])
        ids = None if self.puzzle_ids is None else self.puzzle_ids[indices]
        return PuzzleSet(self.task, *columns, self.processor, self.origin, self.bad_rows, ids, self.several_solutions)

    def to_table(self) -> "pa.Table":
        """The puzzles as text: an Arrow table of source, question, answer and rating."""
        import pyarrow as pa

        characters = np.frombuffer(("\0" + self.processor.characters).encode("ascii"), dtype=np.uint8)
        text = [
            np.ascontiguousarray(characters[ids]).view(f"S{self.processor.seq_len}")[:, 0].astype(str)
            for ids in (self.inputs, self.labels)
        ]
        columns = (self.sources, *text, self.ratings)
        types = (pa.string(), pa.string(), pa.string(), pa.float64() if self.ratings.dtype.kind == "f" else pa.int32())
        names = ("source", "question", "answer", "rating")
        return pa.table({name: pa.array(col, type_) for name, col, type_ in zip(names, columns, types, strict=True)})


def _keys(questions_NL: np.ndarray) -> np.ndarray:
    """int64 [N], equal for equal questions, in this process alone."""
    return np.fromiter((hash(row.tobytes()) for row in questions_NL), np.int64, len(questions_NL))


def load_puzzles(
    task: str,
    split: str,
    *,
    data_dir: str | Path | None = None,
    data_files: Paths | Mapping[str, Paths] | None = None,
    dataset: "str | Path | datasets.Dataset | datasets.DatasetDict | None" = None,
    subset: int | None = None,
    seed: int = 0,
    on_bad_row: str = "error",
    validate: str = "sample",
    grid_shape: tuple[int, int] | None = None,
    alphabet: str | None = None,
    columns: Mapping[str, str] | None = None,
    characters: str | None = None,
    expected_fingerprint: str | None = None,
) -> PuzzleSet:
    """Reads and checks the puzzles of a split; without data_dir, data_files and dataset, the shipped sample's.

    Args:
        task: "sudoku", "maze" or "grid" (puzzles of your own; needs grid_shape and alphabet).
        split: "train", "validation" or "test".
        data_dir: folder whose file names say the split; data_files: files of any kind that puzzle_tables_trm reads,
            {split: files} or files; dataset: "hub" (the pinned source), a Hub id, a local data set folder, or a
            Dataset in memory. What was taken for the question and the answer is said by a warning of `logging`.
        subset: keep this many puzzles, those with the smallest splitmix64 hashes of (seed, row number).
        on_bad_row: "error" raises DataError naming the first bad rows; "skip" leaves them out, see `bad_rows`.
        validate: "sample" searches the paths of a seeded sample of the mazes, and a sample of the Sudokus for a second
            solution, "all" all of them. The rest is always checked.
        grid_shape: default from the length of the grids (Sudoku, and square mazes); without a source, of which Sudokus
            the sample is.
        columns: {"question": NAME, "answer": NAME, "rating": NAME, "source": NAME}, those that the names do not tell.
        characters: what the grids are written with, in the order of the processor's characters, where they could be
            read in two ways or are others: ".0123456789ABCDEF" for 16 x 16 Sudokus, "X.SE*" for mazes.
        expected_fingerprint: raise DataError unless the puzzles have this fingerprint.
    """
    _check_choices(task, split, on_bad_row, validate)
    source = open_source(task, data_dir, data_files, dataset, grid_shape)
    rows = source.read(split, columns, characters or alphabet)
    for note in rows.notes:
        LOG.warning(note)
    if rows.table.num_rows == 0:
        raise DataError(f"{rows.origin}: the data set is empty: it has no rows")
    processor = GridProcessor(task, grid_shape=grid_shape or _shape_of(task, rows), alphabet=alphabet)
    everything, reasons = _read_puzzles(_reader(processor, characters, rows), processor, rows, seed, validate)
    kept = _without_bad_rows(rows, reasons, on_bad_row)
    if subset is not None:
        kept = _subset(rows, kept, subset, seed)
    bad_rows = tuple(BadRow(*rows.place(number), reasons[number]) for number in sorted(reasons))
    several = None
    if task == "sudoku" and not source.has_one_solution_each:
        several = _count_several(everything[0][kept], processor, rows.origin, seed, validate)
    puzzles = PuzzleSet(task, *everything, processor, rows.origin, bad_rows, None, several).select(kept)
    if expected_fingerprint is not None and puzzles.fingerprint != expected_fingerprint:
        raise DataError(
            f"{rows.origin}: the puzzles have fingerprint {puzzles.fingerprint}, expected {expected_fingerprint}"
        )
    return puzzles


def _check_choices(task: str, split: str, on_bad_row: str, validate: str) -> None:
    if task == "arc":
        raise DataError(
            "task='arc' is not allowed here; allowed: sudoku, maze, grid; the tasks of ARC are asked by trm vote, and "
            "their pairs, one by one, by trm evaluate --data FOLDER of trm build-data arc"
        )
    for name, value, allowed in (
        ("task", task, ("sudoku", "maze", "grid")),
        ("split", split, SPLITS),
        ("on_bad_row", on_bad_row, ("error", "skip")),
        ("validate", validate, ("sample", "all")),
    ):
        if value not in allowed:
            raise DataError(f"{name}={value!r} is unknown; allowed: {', '.join(allowed)}")


def load_training_puzzles(
    task: str,
    *,
    subset: int | None = None,
    validation_puzzles: int | None = None,
    seed: int = 0,
    **source: Any,
) -> tuple[PuzzleSet, PuzzleSet]:
    """(training, validation) puzzles; no puzzle is in both.

    A source without a validation split (the Hub's) gives part of its training split, never of its test split: the
    `validation_puzzles` rows that come after the subset in the order of `load_puzzles`; without a subset, training has
    the rest.

    Args:
        subset: training puzzles, default all. validation_puzzles: at most so many, default all of the split.
        source: the keywords of `load_puzzles` that say where the rows come from and how they are read.
    """
    where = (source.get(name) for name in ("data_dir", "data_files", "dataset", "grid_shape"))
    if "validation" in open_source(task, *where).splits():
        training = load_puzzles(task, "train", subset=subset, seed=seed, **source)
        validation = load_puzzles(task, "validation", seed=seed, **source)
        size = len(validation) if validation_puzzles is None else min(validation_puzzles, len(validation))
        return training, validation.select(subset_rows(np.arange(len(validation)), size, seed))
    rows = load_puzzles(task, "train", seed=seed, **source)
    everything = rows.distinct()
    wanted = (subset or 1) + (validation_puzzles or 1)
    if validation_puzzles is None or wanted > len(everything):
        raise DataError(
            f"{rows.origin}: has no validation split, and its {len(everything)} training puzzles cannot give "
            f"subset={subset} and validation_puzzles={validation_puzzles}; name a smaller number of both"
        )
    chosen = everything[:0] if subset is None else subset_rows(everything, subset, seed)
    rest = np.setdiff1d(everything, chosen)
    held_out = subset_rows(rest, validation_puzzles, seed)
    return rows.select(np.setdiff1d(rest, held_out) if subset is None else chosen), rows.select(held_out)


def _shape_of(task: str, rows: Rows) -> tuple[int, int] | None:
    """The shape that most of the first rows have; None leaves it to the processor."""
    if task == "grid":
        return None
    texts = [text for text in rows.table["question"][:1000].to_pylist() if text is not None]
    if task == "sudoku":
        shapes: list[Any] = [(side, side) for side in map(sudoku_side, texts) if side is not None]
    else:
        shapes = [shape for shape in map(maze_shape, texts) if shape is not None]
    return max(dict.fromkeys(shapes), key=shapes.count, default=None)


def _reader(processor: GridProcessor, characters: str | None, rows: Rows) -> GridReader:
    """Of the rows' grids: of Sudokus larger than 9 x 9 the answers tell whether a 0 is a digit."""
    reader = replace(processor.reader, written=characters)
    answers = rows.table["answer"][:ANSWERS_THAT_TELL].to_pylist()
    return reader.told_by(answers) if processor.grid_shape[0] > 9 else reader


def _count_several(
    inputs_NL: np.ndarray, processor: GridProcessor, origin: str, seed: int, validate: str
) -> tuple[int, int]:
    """(Sudokus with several solutions, Sudokus searched), of all or a seeded sample; a warning where there are any."""
    everything = np.arange(len(inputs_NL))
    most = CELLS_SEARCHED // processor.seq_len
    searched = everything if validate == "all" else subset_rows(everything, most, seed)
    units_US = np.stack([positions for _, positions in sudoku_units(processor.grid_shape[0])])
    count = int(several_solutions(inputs_NL[searched], units_US).sum())
    if count:
        LOG.warning(
            "%s: %d of the %d puzzles that were searched%s have several solutions: 'exact' counts only the one in the "
            "data set as right, 'valid' each that obeys the rules and keeps the givens",
            origin, count, len(searched), "" if len(searched) == len(everything) else f" (of {len(everything):,})",
        )  # fmt: skip
    return count, len(searched)


def _read_puzzles(
    reader: GridReader, processor: GridProcessor, rows: Rows, seed: int, validate: str
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[int, str]]:
    """(inputs, labels, sources, ratings) of all rows, bad ones included, and the reason of each bad row."""
    inputs, labels = [], []
    reasons: dict[int, str] = {}
    start = 0
    for batch in rows.table.select(["question", "answer"]).to_batches(max_chunksize=CHUNK_ROWS):
        inputs_NL, wrong_question = tokenise(processor, batch["question"], reader)
        labels_NL, wrong_answer = tokenise(processor, batch["answer"], reader)
        found = {row: f"the answer: {reason}" for row, reason in wrong_answer.items()}
        found |= {row: f"the question: {reason}" for row, reason in wrong_question.items()}
        grids = np.setdiff1d(np.arange(len(inputs_NL)), np.array(sorted(found), dtype=np.int64))
        for place, reason in check_tokens(processor, inputs_NL[grids], labels_NL[grids]).items():
            found[int(grids[place])] = reason
        reasons |= {start + row: reason for row, reason in found.items()}
        inputs.append(inputs_NL)
        labels.append(labels_NL)
        start += len(inputs_NL)
    all_inputs, all_labels = np.concatenate(inputs), np.concatenate(labels)
    if processor.task == "maze":
        reasons |= _bad_paths(processor, all_inputs, all_labels, reasons, seed, validate)
    sources = np.array(rows.table["source"].to_pylist(), dtype=str)
    return (all_inputs, all_labels, sources, rows.table["rating"].to_numpy()), reasons


def _bad_paths(
    processor: GridProcessor,
    inputs_NL: np.ndarray,
    labels_NL: np.ndarray,
    reasons: dict[int, str],
    seed: int,
    validate: str,
) -> dict[int, str]:
    """Checks the paths of the mazes that are well-formed: of all, or of a seeded sample."""
    rows = np.array([row for row in range(len(inputs_NL)) if row not in reasons], dtype=np.int64)
    if validate == "sample":
        rows = subset_rows(rows, PATHS_CHECKED, seed)
    found: dict[int, str] = {}
    for start in range(0, len(rows), 1000):  # bounds the memory of the search
        part = rows[start : start + 1000]
        wrong = check_paths(processor, inputs_NL[part], labels_NL[part])
        found |= {int(part[row]): reason for row, reason in wrong.items()}
    return found


def _without_bad_rows(rows: Rows, reasons: dict[int, str], on_bad_row: str) -> np.ndarray:
    """The row numbers that are good. Raises DataError if there are bad ones (on_bad_row="error") or only bad ones."""
    kept = np.setdiff1d(np.arange(rows.table.num_rows), np.array(sorted(reasons), dtype=np.int64))
    if reasons and (on_bad_row == "error" or len(kept) == 0):
        bad_rows = [BadRow(*rows.place(number), reasons[number]) for number in sorted(reasons)]
        hint = f"; {option('on_bad_row', 'skip')} leaves them out" if len(kept) else ""
        raise DataError(f"{len(bad_rows)} of {rows.table.num_rows} rows are bad{hint}:\n{list_bad_rows(bad_rows)}")
    return kept


def _subset(rows: Rows, kept: np.ndarray, subset: int, seed: int) -> np.ndarray:
    if not 1 <= subset <= len(kept):
        raise DataError(f"subset={subset} is not between 1 and the {len(kept)} puzzles of {rows.origin}")
    return subset_rows(kept, subset, seed)
