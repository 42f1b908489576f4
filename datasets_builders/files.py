"""Local files of puzzles, found by the split in their name."""

import glob
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets_builders.validation import DataError
from modeling_trm.processing_trm import TASKS
from modeling_trm.puzzle_tables_trm import SUFFIXES

SPLITS = ("train", "validation", "test")

Paths = str | Path | Sequence[str | Path]


def file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_stem(file: Path) -> str:
    """A file's name without its extension, the .gz of a packed file included."""
    return Path(file.name.removesuffix(".gz")).stem


def split_in_name(file: Path) -> str | None:
    """The split that a file's name says: train.csv, NAME_train.parquet, train-00000-of-00002.parquet."""
    words = file_stem(file).replace("-", "_").split("_")
    return next((split for split in SPLITS if split in (words[0], words[-1])), None)


def files_by_split(task: str, folder: Path) -> dict[str, list[Path]]:
    """The files of each split in a folder or its data/; those whose names begin with another task are left alone."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    refuse_saved_to_disk(folder)
    files = sorted(file for root in (folder, folder / "data") for file in root.glob("[!.]*") if _is_table(file))
    foreign = tuple(other for other in TASKS if other not in (task, "grid"))
    found: dict[str, list[Path]] = {}
    for file in files:
        split = split_in_name(file)
        if split and not file.stem.startswith(foreign):
            found.setdefault(split, []).append(file)
    if not found:
        names = ", ".join(sorted(file.name for file in folder.iterdir())[:20]) or "nothing"
        raise DataError(f"{folder}: no {task} file named for a split (train.parquet, NAME_test.csv); it has: {names}")
    for split, several in found.items():
        if len(several) > 1 and not all("-of-" in file.stem for file in several):
            names = ", ".join(file.name for file in several)
            raise DataError(f"{folder}: several files could be {split}: {names}; name yours with data_files")
    return {split: found[split] for split in SPLITS if split in found}


def refuse_saved_to_disk(folder: Path) -> None:
    """Raise DataError for what `datasets` keeps for itself, with the way out."""
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise DataError(
            f"{folder}: was written by save_to_disk of `datasets`, for itself alone; write a file of each split, as in "
            f"load_from_disk({str(folder)!r})['train'].to_parquet('train.parquet'), into a folder to name instead"
        )


def _is_table(file: Path) -> bool:
    return Path(file.name.removesuffix(".gz")).suffix in SUFFIXES


def expand(paths: Paths) -> list[Path]:
    """The files that paths and patterns name. Raises DataError for one that names none."""
    files: list[Path] = []
    names = [paths] if isinstance(paths, str | Path) else paths
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str | Path) for name in names):
        raise DataError(f"data_files names {paths!r}; allowed: a file, or a list of files")
    for pattern in map(str, names):
        is_pattern = glob.has_magic(pattern) and not Path(pattern).exists()  # a file may be named data[1].csv
        found = sorted(map(Path, glob.glob(pattern))) if is_pattern else [Path(pattern)]
        if not found or not all(file.is_file() for file in found):
            raise DataError(f"{pattern}: no such file")
        files.extend(found)
    return files


def named_files(data_files: Paths | Mapping[str, Paths]) -> dict[str | None, list[Path]]:
    """{split: files}. A file named without a split has the one that its name says, None if that says nothing."""
    if isinstance(data_files, Mapping):
        unknown = sorted(set(data_files) - set(SPLITS))
        if unknown:
            raise DataError(f"data_files names the splits {unknown}; allowed: {', '.join(SPLITS)}")
        return {split: expand(paths) for split, paths in data_files.items()}
    found: dict[str | None, list[Path]] = {}
    for file in expand(data_files):
        found.setdefault(split_in_name(file), []).append(file)
    return found
