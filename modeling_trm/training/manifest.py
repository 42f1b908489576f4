"""The manifest of a folder: size and checksum of every file in it, so that a missing or damaged one is named."""

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Write folder/manifest.json, {file: {bytes, sha256}} of the files that lie there."""
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(files, indent=2), encoding="utf-8")


def find_damage(folder: Path) -> str | None:
    """What is wrong with the folder, naming the file; None when every file is as the manifest says."""
    if not (folder / MANIFEST).is_file():
        return f"it has no {MANIFEST}"
    files: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return next(filter(None, (_damage(folder / name, entry) for name, entry in files.items())), None)


def _damage(path: Path, entry: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    if (size := path.stat().st_size) != entry["bytes"]:
        return f"{path.name} has {size} bytes instead of {entry['bytes']}"
    if _sha256(path) != entry["sha256"]:
        return f"{path.name} is damaged: its SHA-256 is not the one in {MANIFEST}"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
