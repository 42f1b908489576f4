"""The registry of operators: which names a config may list, and which options each of them takes.

operators_trm puts the package's in, users their own. A configuration alone, loaded from the Hub, knows none, and then
checks none.
"""

import difflib
import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

OPERATORS: dict[str, Any] = {}  # {name: class}


def near_miss(name: str, known: Collection[Any]) -> str:
    """What may have been meant, as the end of a message; empty if nothing is near."""
    by_lower = {str(key).lower(): key for key in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def check_operators_known(names: Sequence[str]) -> None:
    """Raise ValueError for none at all, or for one that is not registered."""
    if not names:
        raise ValueError("block_operators is empty; name at least one operator")
    for i, name in enumerate(names):
        if OPERATORS and name not in OPERATORS:
            raise ValueError(
                f"block_operators[{i}]={name!r} is not an operator{near_miss(name, OPERATORS)}; allowed: "
                f"{', '.join(OPERATORS)}, and one of your own when its file has been imported (on the command line "
                f"--import FILE)"
            )


def check_options(names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError for options that no operator of the stack takes, lacks, or that a config.json could not hold."""
    for name in options:
        if name not in names:
            raise ValueError(
                f"operator_options names {name!r}, which the stack has not{near_miss(name, names)}; allowed: "
                f"{', '.join(dict.fromkeys(names))}"
            )
    try:
        is_plain = json.loads(json.dumps(options, allow_nan=False)) == options
    except (TypeError, ValueError):
        is_plain = False
    if not is_plain:
        raise ValueError(
            f"operator_options={options!r} cannot be saved as it is; allowed: text, finite numbers, True, False, None, "
            f"and lists and dicts of them whose keys are text"
        )
    for name in dict.fromkeys(names):
        if isinstance(OPERATORS.get(name), type):
            _check_call(name, OPERATORS[name], options.get(name, {}))


def _check_call(name: str, cls: type[Any], given: Mapping[str, Any]) -> None:
    """Whether `cls(config, **given)` is a call that its __init__ takes."""
    signature = inspect.signature(cls)
    try:
        signature.bind(None, **given)
    except TypeError as error:
        allowed = ", ".join(map(str, list(signature.parameters.values())[1:])) or "none"
        raise ValueError(
            f"operator_options of {name!r} are {dict(given)}: {error}; allowed: {allowed} (arguments of "
            f"{cls.__name__}.__init__ after the config)"
        ) from error
