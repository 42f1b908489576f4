"""A data set's folder, as `trm build-data` writes it: a card with `configs:` and the files that these name."""

import hashlib
from pathlib import Path
from typing import Any

from .contents import Contents, ContentsError, collect, front_matter, parse_file, read_text, select

CARD, SUMMARY = "README.md", "summary.json"
PATTERNS = (CARD, SUMMARY, "LICENSE*", "NOTICE*", "licences/*")
DATA_SUFFIXES = (".parquet", ".arrow", ".csv", ".json", ".jsonl")
PLACEHOLDER = "THIS_FOLDER_OR_REPOSITORY"  # what the builders' cards call themselves


def prepare_dataset(folder: Path, repository: str) -> Contents:
    """Check the folder and choose its files: those that `load_dataset` will read, and the text beside them.

    Raises:
        ContentsError: naming the file that is missing, unreadable, altered, or left over from an earlier build.
    """
    data = _data_files(folder)
    for path, file in data.items():
        _check_readable(path, Path(str(file)))
    _check_summary(folder, set(data))
    files = data | select(folder, PATTERNS)
    files[CARD] = read_text(folder / CARD).replace(PLACEHOLDER, repository).encode("utf-8")
    return collect(folder, "dataset", "dataset", files)


def _data_files(folder: Path) -> dict[str, Path | bytes]:
    """What the patterns of the card's `configs:` match."""
    files: dict[str, Path | bytes] = {}
    configs = _list(front_matter(folder / CARD).get("configs"))
    if not configs:
        raise ContentsError(f"{folder / CARD}: configs: is no list of configurations; load_dataset needs one at least")
    for number, config in enumerate(configs):
        name = config.get("config_name", number) if isinstance(config, dict) else number
        patterns = _patterns(config.get("data_files")) if isinstance(config, dict) else []
        if not patterns:
            raise ContentsError(f"{folder / CARD}: config {name!r} has no data_files")
        for pattern in patterns:
            if pattern.startswith("/") or ".." in Path(pattern).parts:
                raise ContentsError(f"{folder / CARD}: config {name!r}: {pattern!r} leads out of the folder")
            found = select(folder, [pattern])
            if not found:
                raise ContentsError(f"{folder / CARD}: config {name!r}: no file matches {pattern!r}")
            files |= found
    return files


def _patterns(data_files: Any) -> list[str]:
    """A pattern, a list of them, {split: patterns} or [{split, path: patterns}]: all that the Hub's format allows."""
    if isinstance(data_files, str):
        return [data_files]
    if isinstance(data_files, dict):
        values = [data_files["path"]] if "path" in data_files else list(data_files.values())
        return [pattern for value in values for pattern in _patterns(value)]
    return [pattern for value in _list(data_files) for pattern in _patterns(value)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _check_readable(path: str, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix not in DATA_SUFFIXES:
        raise ContentsError(f"{path}: has extension {file.suffix!r}; data files have {', '.join(DATA_SUFFIXES)}")
    try:
        if file.suffix == ".parquet":
            pq.read_metadata(file)
        elif file.suffix == ".arrow":
            with pa.memory_map(str(file)) as source:
                pa.ipc.open_file(source)
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise ContentsError(f"{file}: cannot be read as {file.suffix[1:]}: {reason}") from error


def _check_summary(folder: Path, data: set[str]) -> None:
    """The data are those that the summary was written for; without a summary there is nothing to compare."""
    if not (folder / SUMMARY).is_file():
        return
    try:
        summary = parse_file(folder / SUMMARY)
        parts = [summary] if "files" in summary else list(summary["splits"].values())
        expected = {name: sha256 for part in parts for name, sha256 in part["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContentsError(f"{folder / SUMMARY}: is not the summary of a data set: {error!r}") from error
    for path in sorted(data - expected.keys()):
        raise ContentsError(
            f"{folder / path}: is not of this build ({SUMMARY} does not name it), but the card's data_files match it: "
            f"load_dataset would read it too"
        )
    for path, sha256 in expected.items():
        if not (folder / path).is_file():
            raise ContentsError(f"{folder / path}: is missing, but {SUMMARY} names it; build the folder again")
        with (folder / path).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ContentsError(f"{folder / path}: is truncated or altered (its SHA-256 is not {SUMMARY}'s)")
