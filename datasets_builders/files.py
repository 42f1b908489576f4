"""Local files of puzzles: csv and parquet, found by the split in their name, read into typed columns."""

import glob
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets_builders.validation import DataError
from modeling_trm.processing_trm import SUDOKU_DIGITS, TASKS

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "validation", "test")
SUFFIXES = (".parquet", ".csv")
# A column's own name first, then the name it has in data sets of input/label pairs.
COLUMN_NAMES = {"question": ("question", "input"), "answer": ("answer", "label")}

Paths = str | Path | Sequence[str | Path]


def file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def split_in_name(file: Path) -> str | None:
    """The split that a file's name says: train.csv, NAME_train.parquet, train-00000-of-00002.parquet."""
    words = file.stem.replace("-", "_").split("_")
    return next((split for split in SPLITS if split in (words[0], words[-1])), None)


def files_by_split(task: str, folder: Path) -> dict[str, list[Path]]:
    """The files of each split in a folder or its data/; those whose names begin with another task are left alone."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    files = sorted(file for root in (folder, folder / "data") for file in root.glob("*") if file.suffix in SUFFIXES)
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


def expand(paths: Paths) -> list[Path]:
    """The files that paths and patterns name. Raises DataError for one that names none."""
    files = []
    for pattern in [str(paths)] if isinstance(paths, str | Path) else map(str, paths):
        found = sorted(map(Path, glob.glob(pattern))) if glob.has_magic(pattern) else [Path(pattern)]
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


def read_table(task: str, file: Path) -> "pa.Table":
    """The rows of a file as source, question, answer, rating. Raises DataError naming the file."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if file.suffix not in SUFFIXES:
        raise DataError(f"{file}: has extension {file.suffix!r}; allowed: {', '.join(SUFFIXES)}")
    try:
        if file.suffix == ".parquet":
            table = pa.parquet.read_table(file)
        else:
            # Left to itself the reader takes a grid of digits for a number, and ends a row inside a quoted grid.
            text = {name: pa.string() for names in COLUMN_NAMES.values() for name in names} | {"source": pa.string()}
            table = pa.csv.read_csv(
                file,
                read_options=pa.csv.ReadOptions(use_threads=False),  # with threads its errors lack the row number
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(column_types=text),
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: cannot be read as {file.suffix[1:]}: {str(error).splitlines()[0]}") from error
    return normalise(task, table, str(file), default_source=file.stem)


def normalise(task: str, table: "pa.Table", name: str, default_source: str) -> "pa.Table":
    """The four columns, typed; source and rating get a default where the data set has none."""
    import pyarrow as pa

    columns = {}
    for column, names in COLUMN_NAMES.items():
        found = next((candidate for candidate in names if candidate in table.column_names), None)
        if found is None:
            raise DataError(f"{name}: has no column {' or '.join(names)}; it has {', '.join(table.column_names)}")
        columns[column] = _as_text(task, table[found])
    has = table.column_names
    source = table["source"] if "source" in has else pa.chunked_array([pa.repeat(default_source, table.num_rows)])
    rating = table["rating"] if "rating" in has else pa.chunked_array([pa.repeat(0, table.num_rows)])
    try:
        columns |= {"source": source.cast(pa.string()).fill_null(""), "rating": rating.cast(pa.int32()).fill_null(0)}
    except pa.ArrowInvalid as error:
        raise DataError(f"{name}: column rating must hold whole numbers: {str(error).splitlines()[0]}") from error
    return pa.table({column: columns[column] for column in ("source", "question", "answer", "rating")})


def _as_text(task: str, column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Grids given as (nested) lists of cells become strings; a Sudoku's number n is its nth digit, 0 a blank."""
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.large_string())
    digits = "." + SUDOKU_DIGITS

    def characters(cell: Any) -> Iterator[str]:
        if isinstance(cell, list):
            for part in cell:
                yield from characters(part)
        else:
            yield digits[cell] if task == "sudoku" and cell in range(len(digits)) else str(cell)

    grids = [None if grid is None else "".join(characters(grid)) for grid in column.to_pylist()]
    return pa.chunked_array([pa.array(grids, pa.large_string())])
