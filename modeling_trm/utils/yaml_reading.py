"""Read YAML that a user wrote, or say in one line what is wrong and where. Not in reading.py: help needs no yaml."""

from typing import Any

import yaml


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
    """Refuses a key that a mapping has twice, of which PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines and key.value != "<<":
                    problem = f"{key.value} is given twice, first in line {lines[key.value]}"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)
