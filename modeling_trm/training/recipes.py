"""Recipe files: found by name or path, read with the recipes they are based on.

A recipe is a YAML mapping of fields. `base: NAME_OR_PATH` takes every field of another recipe, which the file then
overrides; a path is relative to the file that names it. Nothing here imports PyTorch.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..text_file_trm import decode, unpack
from ..utils.yaml_reading import key_line, load_yaml

SHIPPED = Path(__file__).parents[1] / "recipes"
BASE = "base"
# Of fields that exclude each other, one named above takes the place of those below: where the data are, the length.
EXCLUSIVE = (("data", "data_dir", "data_files", "dataset"), ("train_steps", "train_minutes"))


def shipped_names() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find_recipe(name: str, near: Path = Path()) -> Path:
    """The file of a recipe: a shipped name, or a path (below `near` where it is relative).

    Raises:
        ValueError: there is no such recipe; the nearest name is told, also for a file where shipped recipes once were.
    """
    if name in shipped_names():
        return SHIPPED / f"{name}.yaml"
    if (near / name).is_file():
        return near / name
    names = shipped_names()
    close = difflib.get_close_matches(Path(name).stem, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"shipped are: {', '.join(names)}"
    raise ValueError(f"no recipe {name!r}: neither a file nor the name of a shipped one; {hint}")


def read_recipe(name: str) -> dict[str, Any]:
    """{field: value} of a recipe and of those it is based on, the nearer one winning.

    Raises:
        ValueError: a file that is no mapping, an unknown recipe, or bases in a circle, which is named.
        OSError: a file that cannot be read.
    """
    return _read(find_recipe(name), ())


def _read(path: Path, before: Sequence[Path]) -> dict[str, Any]:
    chain = [*before, path.resolve()]
    if path.resolve() in before:
        raise ValueError(f"the recipes are based on each other: {' -> '.join(one.stem for one in chain)}")
    try:
        fields = load_yaml(_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is no recipe: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} is no recipe: expected a YAML mapping of fields, found {type(fields).__name__}")
    base = fields.pop(BASE, None)
    if base is None:
        return fields
    if not isinstance(base, str):
        raise ValueError(f"{path}: base={base!r} must be the name of a recipe or a path")
    try:
        below = find_recipe(base, path.parent)
    except ValueError as error:
        raise ValueError(f"{path}: base={base!r}: {error}") from error
    return override(_read(below, chain), fields)


def _text(path: Path) -> str:
    """What a recipe's file says, whatever program wrote it."""
    return decode(unpack(path.read_bytes()))


def where_stated(name: str, field: str) -> str | None:
    """File and line that say a field of a recipe that was read; None where none does."""
    path = find_recipe(name)
    while True:
        text = _text(path)
        line = key_line(text, field)
        if line is not None:
            return f"{path}, line {line}"
        base = load_yaml(text).get(BASE)
        if base is None:
            return None
        path = find_recipe(base, path.parent)


def override(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The fields of both, those above winning, also over those that they exclude."""
    for group in EXCLUSIVE:
        if any(above.get(name) is not None for name in group):
            below = {name: value for name, value in below.items() if name not in group}
    return below | above


def first_line(name: str) -> str:
    """What a recipe's file says it is: its first comment, on one line."""
    line = _text(find_recipe(name)).partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""
