"""Values of fields, from YAML and from the command line, null and booleans included; what is wrong is named."""

from typing import Literal

import pytest

from modeling_trm.training.arguments import parse_recipe
from modeling_trm.training.fields import MappingText, options_by_name, typed


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("3", int, 3),
        (3, int, 3),
        ("1e-4", float, 1e-4),  # YAML 1.1 takes it for text
        (2, float, 2.0),
        ("0123", str, "0123"),
        (".ab", str, ".ab"),
        ({"a": 0.5}, MappingText, '{"a": 0.5}'),
        ("{a: 0.5}", MappingText | None, "{a: 0.5}"),
        ("null", int | None, None),
        (None, str | None, None),
        (None, int, 7),
        ("null", bool, 7),
        (True, bool, True),
        ("no", bool, False),
        ("On", bool, True),
        (False, Literal["auto", "yes", "no"], "no"),
        (True, Literal["auto", "yes", "no"], "yes"),
        ("2", Literal[1, 2] | None, 2),
        ("x", list[str], ["x"]),
        ("[x, y]", list[str], ["x", "y"]),
        ("{a: {b: [1e-4, .5, yes, x]}}", dict[str, dict] | None, {"a": {"b": [1e-4, 0.5, True, "x"]}}),
        ({"a": {"b": 1}}, dict[str, dict] | None, {"a": {"b": 1}}),
        (["1", 2], list[int] | None, [1, 2]),
        ("0.5", float | None, 0.5),
    ],
)
def test_values(value, kind, expected):
    found = typed("field", value, kind, default=7)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "kind", "allowed"),
    [
        ("3.5", int, "a whole number"),
        (3.5, int, "a whole number"),
        (True, int, "a whole number"),
        ("x", float, "a finite number"),
        ("maybe", bool, "true or false"),
        (["a"], str, "text that is not empty"),
        ({"a": 1}, str, "text that is not empty"),
        (["a"], MappingText | None, r"a mapping, as in \{key: value\}"),
        ("a b", list[str], r"a list; write it as \[a, b\]"),
        ("1,2", list[int] | None, r"a list; write it as \[1, 2\]"),
        (["a"], int | None, "a whole number"),
        ("often", Literal["auto", "yes", "no"], "auto, yes, no"),
        (["1", "x"], list[int], "a whole number"),
        ("{a: 1}", dict[str, dict], r"a mapping of mappings, as in \{name: \{key: value\}\}"),
        ("[1, 2", list[int], r"a list, as in \[one, another\] \(line 1: .*\)"),
    ],
)
def test_what_is_wrong_names_field_value_and_what_is_allowed(value, kind, allowed):
    with pytest.raises(ValueError, match=rf"^field=.*; allowed: {allowed}$"):
        typed("field", value, kind, default=None)


def test_options_as_they_are_typed():
    words = "--a 1 --b=2 --c 3 4 --halt-bias -3.0 --augment --no_cpu --deterministic no".split()
    found = options_by_name(words, switches=("augment", "cpu", "deterministic"))
    assert found == {
        "a": "1", "b": "2", "c": ["3", "4"], "halt_bias": "-3.0", "augment": "true", "cpu": "false",
        "deterministic": "no",
    }  # fmt: skip
    with pytest.raises(ValueError, match="'1' stands alone"):
        options_by_name(["1"], ())
    with pytest.raises(ValueError, match="--seed has no value"):
        options_by_name(["--seed", "--augment"], ("augment",))


def test_null_and_booleans_in_a_recipe_and_on_the_command_line(write_recipe):
    path = write_recipe("run", compile=False, source_weights=None, validation_puzzles=None, report_to="none")
    recipe = parse_recipe([str(path)])
    assert recipe.run.compile == "no" and recipe.run.report_to == ["none"]
    assert recipe.data.source_weights is None and recipe.data.validation_puzzles is None
    weighted = parse_recipe(["quickstart"])
    assert weighted.data.source_weights is not None
    switched = parse_recipe(["quickstart", "--source_weights", "null", "--clip-grad-norm", "null", "--no_augment"])
    assert (switched.data.source_weights, switched.optimisation.clip_grad_norm, switched.data.augment) == (
        None, None, False,
    )  # fmt: skip
