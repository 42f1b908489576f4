"""The three splits of a training run; what the source does not have is made of its training puzzles, and said."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets_builders.features import PuzzleSet, load_puzzles, load_training_puzzles
from datasets_builders.sources import open_source
from datasets_builders.validation import DataError
from modeling_trm.randomness_trm import subset_rows

SHARE = 10  # a made split has at most one in so many of the puzzles


@dataclass(frozen=True)
class RunSplits:
    """Puzzles of a run; no puzzle of a split that was made is in another.

    Attributes:
        validation: None where none is wanted.
        test: None where the source has a test split of its own, to be read when it is needed.
        notes: what was made or gave way, a line each.
    """

    training: PuzzleSet
    validation: PuzzleSet | None
    test: PuzzleSet | None
    notes: tuple[str, ...]


def known_note(split: str, puzzles: PuzzleSet, questions_NL: np.ndarray) -> list[str]:
    """A line for the user where puzzles that are to tell how a model does on new ones are among the training puzzles.

    Args:
        questions_NL: of these, uint8 token ids.
    """
    known = int(puzzles.is_among(questions_NL).sum())
    which = f"{known:,} of the {len(puzzles):,} {split} puzzles"
    return [f"{which} are training puzzles too: its figures are not those of new ones"] if known else []


def load_run_splits(
    task: str,
    *,
    subset: int | None = None,
    validation_puzzles: int | None = None,
    test_puzzles: int | None = None,
    seed: int = 0,
    at_most: bool = False,
    **source: Any,
) -> RunSplits:
    """Read and check the training and validation puzzles; hold out test puzzles where the source has none.

    Args:
        subset: training puzzles; None for all. validation_puzzles: None for no validation. test_puzzles: at most so
            many are held out. at_most: subset and validation_puzzles give way where there are fewer.
        source: the keywords of `load_puzzles` that say where the rows come from and how they are read.

    Raises:
        DataError: data that cannot be read or do not suffice, naming them.
    """
    where = (source.get(name) for name in ("data_dir", "data_files", "dataset", "grid_shape"))
    splits = open_source(task, *where).splits()
    if "test" in splits and not at_most:
        if validation_puzzles is None:
            return RunSplits(load_puzzles(task, "train", subset=subset, seed=seed, **source), None, None, ())
        both = load_training_puzzles(task, subset=subset, validation_puzzles=validation_puzzles, seed=seed, **source)
        return RunSplits(*both, None, ())
    return _made_splits(task, splits, subset, validation_puzzles, test_puzzles, seed, at_most, source)


def _made_splits(
    task: str,
    splits: list[str],
    subset: int | None,
    validation_puzzles: int | None,
    test_puzzles: int | None,
    seed: int,
    at_most: bool,
    source: dict[str, Any],
) -> RunSplits:
    rows = load_puzzles(task, "train", seed=seed, **source)
    wanted = {"test": test_puzzles or len(rows), "validation": validation_puzzles}
    missing = {split: count for split, count in wanted.items() if split not in splits and count is not None}
    rest = rows.distinct() if missing else np.arange(len(rows))
    made, notes, whole = {}, [], len(rest)
    for split, count in missing.items():
        if len(rest) < 2:
            raise DataError(f"{rows.origin}: {whole} puzzles are too few to train, validate and test with")
        chosen = subset_rows(rest, min(count, max(1, whole // SHARE)), seed)
        made[split], rest = rows.select(chosen), np.setdiff1d(rest, chosen)
        notes.append(f"the data have no {split} split: {len(chosen):,} of {whole:,} puzzles are held out for it")
    if subset is not None and subset > len(rest):
        if not at_most:
            raise DataError(f"subset={subset} is not between 1 and the {len(rest)} puzzles of {rows.origin}")
        notes.append(f"subset={subset:,} is more than there is: all {len(rest):,} training puzzles are taken")
    if subset is not None and subset < len(rest):
        rest = subset_rows(rest, subset, seed)
    validation = made.get("validation")
    if validation is None and validation_puzzles is not None:
        own = load_puzzles(task, "validation", seed=seed, **source)
        validation = own.select(subset_rows(np.arange(len(own)), min(validation_puzzles, len(own)), seed))
    return RunSplits(rows.select(rest), validation, made.get("test"), tuple(notes))
