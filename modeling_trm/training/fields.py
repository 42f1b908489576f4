"""From what a YAML file or a command line says to the value of a typed field, or a line that says what is allowed."""

import difflib
import json
import math
import re
import types
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, NewType, Union, get_args, get_origin

from ..utils.yaml_reading import load_yaml

NULL = "null"  # on a command line, as in YAML
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
MappingText = NewType("MappingText", str)  # what a field that is a mapping is held as, JSON or YAML
ALLOWED: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "text that is not empty",
    MappingText: "a mapping, as in {key: value}",
}


class FieldError(ValueError):
    """A field whose value is not allowed."""

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        super().__init__(f"{field}={value!r}; allowed: {allowed}")
        self.field = field


class UnknownFieldError(FieldError):
    """A field that there is not; hint: what may have been meant."""

    def __init__(self, field: str, hint: str) -> None:
        ValueError.__init__(self, f"the recipe has no field --{field}{hint}")
        self.field = field


class Range(NamedTuple):
    """The numbers that a field may hold, all finite.

    Args:
        open_below, open_above: the bound itself is not allowed.
    """

    least: float
    most: float = math.inf
    open_below: bool = False
    open_above: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.least if self.open_below else value >= self.least
        return math.isfinite(value) and above and (value < self.most if self.open_above else value <= self.most)

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"more than {self.least}" if self.open_below else f"{self.least} or more"
        return f"{self.least} <= x < {self.most}" if self.open_above else f"{self.least}..{self.most}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_below=True)
SHARE = Range(0, 1)
DECAY = Range(0, 1, open_above=True)
SEED = Range(0, 2**32 - 1)  # what every library takes


def check_range(name: str, value: Any, allowed: Range | None) -> None:
    """Raise FieldError for a number, or one of a list, that is out of the field's range."""
    if allowed is None or value is None:
        return
    for number in value if isinstance(value, list) else [value]:
        if not allowed.holds(number):
            raise FieldError(name, value, str(allowed))


def check_known(name: str, known: Collection[str], renamed: Mapping[str, str], from_data: Collection[str]) -> None:
    """Raise UnknownFieldError for a field that there is not, with what may have been meant.

    Args:
        renamed: {what a field was called: field}. from_data: what a recipe does not say, because the data do.
    """
    if name in known:
        return
    close = renamed.get(name) or next(iter(difflib.get_close_matches(name, known, n=1)), None)
    hint = f"; did you mean --{close}?" if close else ""
    if name in from_data:
        hint = ": the data decide it, leave it out"
    raise UnknownFieldError(name, hint)


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
        FieldError: naming field, value and what is allowed.
    """
    optional = get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)
    if value is None or value == NULL:
        return None if optional else default
    if optional:
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is dict:
        return _mapping(name, value)
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
        words = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else []
        if isinstance(value, str) and value.startswith("["):  # as in YAML, in one word of the command line
            try:
                value = load_yaml(value)
            except ValueError as error:
                raise FieldError(name, value, f"a list, as in [one, another] ({error})") from error
        elif len(words) > 1:
            raise FieldError(name, value, f"a list; write it as [{', '.join(words)}]")
        return [_scalar(name, one, kind) for one in (value if isinstance(value, list) else [value])]
    return _scalar(name, value, kind)


def _scalar(name: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return _choice(name, value, get_args(kind))
    try:
        if kind is bool:
            return _truth(value)
        if kind in (str, MappingText):
            return _text(value, kind is MappingText)
        if isinstance(value, bool | list | dict) or (kind is int and isinstance(value, float)):
            raise ValueError
        number = kind(value)
        if kind is float and not math.isfinite(number):
            raise ValueError
        return number
    except (TypeError, ValueError, OverflowError):  # the first: a date or a set of YAML
        raise FieldError(name, value, ALLOWED[kind]) from None


def _choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """One of several values; YAML reads yes and no as booleans."""
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    for one in allowed:
        if text == str(one):
            return one
    raise FieldError(name, value, ", ".join(map(str, allowed)))


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text not in TRUE + FALSE:
        raise ValueError
    return text in TRUE


def _text(value: Any, may_map: bool) -> str:
    """A mapping, where the field is one, becomes JSON."""
    if value == "" or isinstance(value, list if may_map else list | dict):
        raise ValueError
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    """A mapping of mappings, in YAML or as text."""
    found = value if isinstance(value, dict) else parse_mapping(name, str(value)) or {}
    for key, one in found.items():
        if not (isinstance(key, str) and isinstance(one, dict)):
            raise FieldError(name, value, "a mapping of mappings, as in {name: {key: value}}")
    return found


def parse_mapping(name: str, text: str | None) -> dict[str, Any] | None:
    """The mapping that a field such as source_weights holds as text. Raises ValueError naming the field."""
    if text is None:
        return None
    try:
        value = load_yaml(text)
    except ValueError as error:
        raise ValueError(f"{name}={text!r} is no mapping ({error}); write it as {{key: value, ...}}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name}={text!r} is no mapping; write it as {{key: value, ...}}")
    return value


def parse_files(name: str, text: str | None) -> dict[str, Any] | None:
    """{split: file or list of files}, as `parse_mapping`. Raises ValueError naming field, split and value."""
    found = parse_mapping(name, text)
    for split, files in (found or {}).items():
        if not all(isinstance(file, str) for file in (files if isinstance(files, list) else [files])):
            raise ValueError(f"{name}: {split} is {files!r}; allowed: the name of a file, or a list of them")
    return found


def by_side(name: str, text: str | None, kinds: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """{side of a square grid: {field: value}}, in order; batch_size is among the fields.

    Args:
        kinds: {field that may stand there: its annotation}.

    Raises:
        ValueError: naming field, side and what is allowed.
    """
    found: dict[int, dict[str, Any]] = {}
    for key, stated in (parse_mapping(name, text) or {}).items():
        try:
            side = _scalar("side", key if isinstance(key, int) else str(key), int)
            check_range("side", side, COUNT)
            if not isinstance(stated, dict) or stated.get("batch_size") is None:
                raise ValueError("expected {batch_size: puzzles a step, data: their file, ...}")
            for field in map(str, stated):
                if field not in kinds:
                    raise ValueError(f"{field!r} is not said of one size; allowed: {', '.join(kinds)}")
            found[side] = {field: typed(field, value, kinds[field], None) for field, value in stated.items()}
        except ValueError as error:
            raise ValueError(f"{name}: {key}: {error}") from error
    return dict(sorted(found.items()))


def stages(name: str, text: str | None, size: int, allowed: str) -> dict[float, Any]:
    """{share of the run: `size` whole numbers}, in order. Raises ValueError naming field, share and value."""
    found: dict[float, tuple[int, ...]] = {}
    for end, value in (parse_mapping(name, text) or {}).items():
        numbers = tuple(value) if isinstance(value, list) else (value,)
        try:
            share = float(end)  # the keys of JSON are text
        except (TypeError, ValueError):
            share = 0.0
        whole = len(numbers) == size and all(type(number) is int and number >= 1 for number in numbers)
        if not (whole and 0 < share < 1):
            raise ValueError(
                f"{name}={text!r}: {end}: {value} is not allowed; allowed: a share above 0 and below 1, and {allowed}"
            )
        found[share] = numbers
    ordered = dict(sorted(found.items()))
    for (_, before), (share, after) in pairwise(ordered.items()):
        if any(later < earlier for earlier, later in zip(before, after)):
            fall = f"falls at {share}, from {list(before)} to {list(after)}"
            raise ValueError(f"{name}={text!r}: {fall}; allowed: {allowed}")
    return ordered
