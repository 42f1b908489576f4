"""Read JSON that a user or another program wrote, or say in one line what is wrong. YAML: yaml_reading.py."""

from pathlib import Path
from typing import Any

from ..text_file_trm import decode, parse_json, unpack


def read_json(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises as `load_json`, and ValueError for something else than an object."""
    value = load_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}; allowed: a JSON object")
    return value


def load_json(path: str | Path) -> Any:
    """What a JSON file says, whatever program wrote it: with a byte order mark, UTF-16, packed by gzip.

    Raises:
        ValueError: naming the file; no text, no JSON, or a name that an object has twice.
        OSError: it cannot be read.
    """
    try:
        return parse_json(decode(unpack(Path(path).read_bytes())))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON, or cut short: {error}") from error
