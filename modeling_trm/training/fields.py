"""From what a YAML file or a command line says to the value of a typed field, or a line that says what is allowed."""

import json
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

NULL = "null"  # on a command line, as in YAML
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
ALLOWED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def options_by_name(arguments: Sequence[str], switches: Sequence[str]) -> dict[str, Any]:
    """{field: text, or a list of texts} of `--field value ...`; dashes are as good as underscores.

    Args:
        switches: fields that are true or false: `--field` alone is true, `--no_field` is false.

    Raises:
        ValueError: a word that belongs to no option.
    """
    found: dict[str, Any] = {}
    name = ""
    for word in arguments:
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            name = name.replace("-", "_")
            if name.removeprefix("no_") in switches and name.startswith("no_"):
                name, has_value, value = name.removeprefix("no_"), "=", FALSE[0]
            found[name] = [value] if has_value else []
        elif not name:
            raise ValueError(f"{word!r} stands alone; fields are given as --field value")
        else:
            found[name].append(word)
    for name, words in found.items():
        if not words and name in switches:
            words.append(TRUE[0])
        if not words:
            raise ValueError(f"--{name} has no value")
    return {name: words[0] if len(words) == 1 else words for name, words in found.items()}


def typed(name: str, value: Any, kind: Any, default: Any) -> Any:
    """The value of a field.

    Args:
        value: as YAML or `options_by_name` has it. kind: the field's annotation.
        default: what null means to a field that is never None.

    Raises:
        ValueError: naming field, value and what is allowed.
    """
    optional = get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)
    if value is None or value == NULL:
        return None if optional else default
    if optional:
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
        return [_scalar(name, one, kind) for one in (value if isinstance(value, list) else [value])]
    return _scalar(name, value, kind)


def _scalar(name: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return _choice(name, value, get_args(kind))
    try:
        if kind is bool:
            return _truth(value)
        if kind is str:
            return _text(value)
        if isinstance(value, bool | list | dict) or (kind is int and isinstance(value, float)):
            raise ValueError
        return kind(value)
    except ValueError:
        raise ValueError(f"{name}={value!r}; allowed: {ALLOWED[kind]}") from None


def _choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """One of several values; YAML reads yes and no as booleans."""
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    for one in allowed:
        if text == str(one):
            return one
    raise ValueError(f"{name}={value!r}; allowed: {', '.join(map(str, allowed))}")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text not in TRUE + FALSE:
        raise ValueError
    return text in TRUE


def _text(value: Any) -> str:
    """A mapping, which some fields hold as text, becomes JSON."""
    if isinstance(value, list):
        raise ValueError
    return json.dumps(value) if isinstance(value, dict) else str(value)
