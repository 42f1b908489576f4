"""A long evaluation in chunks of puzzles, each kept on disk: what was stopped or killed goes on where it was.

    FOLDER/manifest.json        what is evaluated and how; every field must agree when the folder is used again
    FOLDER/chunk-000012.npz     the outcome of puzzles 12 * chunk_size and on: arrays whose first axis is the puzzle

Every file is written under a temporary name and then renamed: a file that exists is whole.
"""

import io
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..utils.files import write_bytes, write_json
from ..utils.reading import read_json

Outcome = dict[str, np.ndarray]  # of each puzzle, first axis
SECONDS = "seconds"  # of each puzzle: those of its chunk, shared out


def run_in_chunks(
    run: Callable[[np.ndarray], Outcome],
    count: int,
    folder: str | Path,
    manifest: Mapping[str, Any],
    *,
    chunk_size: int,
    title: str,
    progress: bool = True,
) -> Outcome:
    """The outcome of puzzles 0 to count - 1, with their `seconds`; chunks that the folder holds are not run again.

    Args:
        run: the outcome of the puzzles of these numbers.
        manifest: JSON-ready; all that decides the outcome.
        title: before the progress bar, which estimates the time left from the chunks of this call.

    Raises:
        ValueError: the folder was begun by another evaluation (the field that differs is named), or a chunk there
            cannot be read.
    """
    folder = Path(folder)
    _begin(folder, {**manifest, "count": count, "chunk_size": chunk_size})
    starts = range(0, count, chunk_size)
    parts: list[Outcome] = []
    done = sum(min(chunk_size, count - start) for start in starts if _path(folder, start // chunk_size).exists())
    with tqdm(total=count, initial=done, desc=title, unit="puzzle", smoothing=0.05, disable=not progress) as bar:
        for number, start in enumerate(starts):
            path = _path(folder, number)
            if not path.exists():
                numbers = np.arange(start, min(start + chunk_size, count))
                _write(path, _timed(run, numbers))
                bar.update(len(numbers))
            parts.append(_read(path))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _timed(run: Callable[[np.ndarray], Outcome], numbers: np.ndarray) -> Outcome:
    started = time.perf_counter()
    outcome = run(numbers)
    return outcome | {SECONDS: np.full(len(numbers), (time.perf_counter() - started) / len(numbers))}


def _begin(folder: Path, manifest: dict[str, Any]) -> None:
    path = folder / "manifest.json"
    if not path.is_file():
        write_json(path, manifest)
        return
    found = read_json(path)
    for field in sorted(manifest.keys() | found.keys()):
        if found.get(field) != manifest.get(field):
            raise ValueError(
                f"{folder}: was begun by another evaluation: its {field} is {found.get(field)!r}, this one's "
                f"{manifest.get(field)!r}; choose another folder, or remove this one"
            )


def _path(folder: Path, number: int) -> Path:
    return folder / f"chunk-{number:06d}.npz"


def _write(path: Path, outcome: Outcome) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **outcome)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def _read(path: Path) -> Outcome:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read ({error}); remove it: only its puzzles are run again") from error
