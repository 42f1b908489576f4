"""The manifest of a folder: size and checksum of every file in it, so that a missing or damaged one is named.

It also tells that we made the folder, and which of its files are ours.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .files import write_json
from .reading import read_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Write folder/manifest.json, {file: {bytes, sha256}} of all files below it, by their paths in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in paths
    }
    write_json(folder / MANIFEST, entries)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises ValueError naming the file when there is none, or one that is not ours."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} has no {MANIFEST}")
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error}") from error
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) and entry.keys() == {"bytes", "sha256"} for entry in entries.values()
    ):
        raise ValueError(f"{MANIFEST} is damaged or of another program: no list of files with their SHA-256")
    return entries


def find_damage(folder: Path, names: Collection[str] | None = None) -> str | None:
    """What is wrong with the folder, naming the file; None when every file is as the manifest says.

    Args:
        names: of the files to look at; None for all.
    """
    try:
        entries = read_manifest(folder)
    except ValueError as error:
        return str(error)
    asked = {name: entry for name, entry in entries.items() if names is None or name in names}
    return next(filter(None, (_damage(folder / name, entry) for name, entry in asked.items())), None)


def foreign_files(folder: Path) -> list[str]:
    """Files below the folder that are not as its manifest says. Raises ValueError where it has none of ours."""
    entries = read_manifest(folder)
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    there = {path.relative_to(folder).as_posix() for path in paths} - {MANIFEST}
    ours = {name for name in there & entries.keys() if _damage(folder / name, entries[name]) is None}
    return sorted(there - ours)


def _damage(path: Path, entry: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    if (size := path.stat().st_size) != entry["bytes"]:
        return f"{path.name} has {size} bytes instead of {entry['bytes']}"
    if file_sha256(path) != entry["sha256"]:
        return f"{path.name} is damaged: its SHA-256 is not the one in {MANIFEST}"
    return None


def weights_sha256(folder: Path) -> dict[str, str]:
    """{file: SHA-256} of a checkpoint's weights, as its metrics.json names them under "weights"."""
    return {path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors"))}


def changed_weights(folder: Path) -> str | None:
    """Which weights are not those that the checkpoint's metrics.json names; None where all are.

    Raises:
        ValueError: it names none, so that nothing can be compared.
    """
    path = folder / "metrics.json"
    named = read_json(path).get("weights") if path.is_file() else None
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{path} names no SHA-256 of the weights: they cannot be verified")
    found = weights_sha256(folder)
    wrong = sorted(name for name in named.keys() | found.keys() if named.get(name) != found.get(name))
    return f"{', '.join(wrong)}: the SHA-256 is not the one in {path.name}" if wrong else None


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
