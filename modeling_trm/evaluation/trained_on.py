"""Which puzzles a checkpoint was trained on, by hashes that its metrics.json keeps: figures on them are no figures.

Kept are the smallest hashes of each grid size, so that they are few whatever was trained on, and still tell a share: of
puzzles whose hash is up to the largest that is kept, those that were trained on are among the kept ones, and no others.

Shapes: N puzzles, L positions.
"""

import base64
import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

from ..utils.loading import folder_of
from ..utils.reading import read_json

KEY = "trained_on"  # in metrics.json
KEPT = 1024  # of a grid size, 11 KB of text; all of them where there are no more puzzles


def made_test(grid: str | None = None) -> str:
    """The file, in a run's folder, of the test puzzles of data without a test split; grid: "16x16" of another size."""
    return "test.parquet" if grid is None else f"test-{grid}.parquet"


def hashes_kept(questions_NL: np.ndarray, before: Mapping[str, str]) -> dict[str, str]:
    """What a checkpoint keeps of the questions that it was trained on: {number of cells: hashes as text}.

    Args:
        questions_NL: uint8 token ids [N, L]. before: what is kept already, {} of nothing.
    """
    cells = str(questions_NL.shape[1])
    smallest = np.unique(np.concatenate((_known(before.get(cells, "")), _hashes(questions_NL))))[:KEPT]
    return {**before, cells: base64.b64encode(smallest.tobytes()).decode("ascii")}


def checked(kept: Any) -> dict[str, str]:
    """What `hashes_kept` returned, read from a file. Raises TypeError or ValueError for anything else."""
    if not isinstance(kept, dict):
        raise TypeError(f"{KEY} is a {type(kept).__name__}; allowed: {{number of cells: hashes}}")
    for text in kept.values():
        _known(text)
    return kept


def count_trained_on(questions_NL: np.ndarray, kept: Mapping[str, str]) -> tuple[int, bool]:
    """How many of these questions, uint8 token ids [N, L], were trained on, and whether they were counted.

    Args:
        kept: of `hashes_kept`. Where there were more to train on than are kept, the number is an estimate.
    """
    known = _known(kept.get(str(questions_NL.shape[1]), ""))
    hashes_N = _hashes(questions_NL)
    found = int(np.isin(hashes_N, known).sum())
    if len(known) < KEPT:
        return found, True
    would_be_known = int((hashes_N <= known[-1]).sum())
    return round(len(hashes_N) * found / max(would_be_known, 1)), False


def trained_on_note(checkpoint: str, questions_NL: np.ndarray) -> str | None:
    """A line for the user where a checkpoint is to be scored on what it was trained on; None where nothing tells so.

    Args:
        checkpoint: a folder, a shipped name or a Hub id; only one that we trained has something to tell.

    Raises:
        ValueError: no such checkpoint.
    """
    folder = folder_of(checkpoint)
    try:
        count, is_counted = count_trained_on(questions_NL, checked(read_json(folder / "metrics.json")[KEY]))
    except (OSError, KeyError, TypeError, ValueError):  # none, an earlier version's, or of another program
        return None
    if not count:
        return None
    about, side = "" if is_counted else "about ", math.isqrt(questions_NL.shape[1])
    held_out = [folder.parent / made_test(f"{side}x{side}"), folder.parent / made_test()]
    made = next((file for file in held_out if folder.name == "model" and file.is_file()), None)
    others = "" if made is None else f"; its run held out {made}"
    return (
        f"{checkpoint} was trained on {about}{count:,} of these {len(questions_NL):,} puzzles: the figures are not "
        f"those of new ones{others}"
    )


def _known(kept: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(kept), dtype="<u8")


def _hashes(questions_NL: np.ndarray) -> np.ndarray:
    """uint64 [N], the same on every machine."""
    digests = b"".join(blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(questions_NL))
    return np.frombuffer(digests, dtype="<u8")
