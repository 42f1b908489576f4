"""Read JSON that a user or another program wrote, or say in one line what is wrong. YAML: yaml_reading.py."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ValueError: naming the file; no UTF-8, no JSON, or something else than an object.
        OSError: it cannot be read.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}; allowed: a JSON object")
    return value
