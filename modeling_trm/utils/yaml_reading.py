"""Read YAML that a user wrote, or say in one line what is wrong and where. Not in reading.py: help needs no yaml."""

import re
from typing import Any

import yaml

WITH_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
ODD_NUMBER = re.compile(r"[-+]?0[0-9_]+|.*:.*")


def load_yaml(text: str) -> Any:
    """What YAML says. Raises ValueError on one line with the line number; also for a key that is given twice."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{place}{' '.join(str(error.problem or error.context).split())}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # the last: a date that is none
        raise ValueError(" ".join(str(error).split())) from error


def key_line(text: str, key: str) -> int | None:
    """The line, from 1, where a mapping says this key; None where it does not."""
    node = yaml.compose(text, Loader=_Loader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((name.start_mark.line + 1 for name, _ in pairs if name.value == key), None)


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which PyYAML would silently take the last, and 010 and 1:30.

    YAML 1.1 means 8 and 90 by these, YAML 1.2 and people do not. 1e-4, text in YAML 1.1, is a number as in 1.2.
    """

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if ODD_NUMBER.fullmatch(node.value):
            problem = f"{node.value} can be read in two ways; write it without leading zero or colon, text in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if ":" in node.value:
            problem = f"{node.value} can be read in two ways; write it without the colon"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_yaml_float(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines and key.value != "<<":
                    problem = f"{key.value} is given twice, first in line {lines[key.value]}"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", WITH_EXPONENT, list("-+.0123456789"))
for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", getattr(_Loader, f"construct_yaml_{_kind}"))
