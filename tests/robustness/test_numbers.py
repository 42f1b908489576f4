"""Every number of a recipe has a range; what is out of it is refused by field, value, range and line of the recipe."""

import math
from typing import get_args

import pytest

from modeling_trm.training.arguments import FIELDS, PARTS, parse_recipe

NUMBERS = {
    name: one for name, one in FIELDS.items() if {int, float} & {one.type, *get_args(one.type)} and one.type is not bool
}
OF_THE_RECIPE = [name for part in PARTS[1:] for name in part.__dataclass_fields__ if name in NUMBERS]
# By hand, not from the table: what some fields must not be.
WRONG = {
    "beta1": ["1", "-0.1"],
    "clip_grad_norm": ["0", "-1"],
    "ema_decay": ["1", "1.5"],
    "eval_max_steps": ["0"],
    "halt_loss_weight": ["-1"],
    "lr_min_ratio": ["5"],
    "muon_momentum": ["2", "1"],
    "muon_ns_steps": ["0", "-1"],
    "seed": ["-1", str(2**32)],
    "stop_after_minutes": ["-1"],
    "test_puzzles": ["0"],
    "train_steps": ["0"],
    "validation_puzzles": ["-28"],
}


def test_every_number_has_a_range() -> None:
    assert len(OF_THE_RECIPE) > 35
    assert [name for name in OF_THE_RECIPE if NUMBERS[name].metadata.get("range") is None] == []


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "three", "{}", "[1, 2"])
def test_what_is_no_finite_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}=.*allowed: "):
        parse_recipe([f"--{name}", value])


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_out_of_range(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*; allowed: "):
        parse_recipe([f"--{name}", value])


def test_the_bounds_themselves() -> None:
    """Each range holds its closed bounds and not the next numbers outside."""
    for name in OF_THE_RECIPE:
        allowed = NUMBERS[name].metadata["range"]
        assert allowed.holds(allowed.least) is not allowed.open_below, name
        assert not allowed.holds(math.nextafter(allowed.least, -math.inf)), name
        if math.isfinite(allowed.most):
            assert allowed.holds(allowed.most) is not allowed.open_above, name
            assert not allowed.holds(math.nextafter(allowed.most, math.inf)), name


def test_the_line_of_the_recipe_is_told(tmp_path) -> None:
    (tmp_path / "below.yaml").write_text("# mine\ntask: sudoku\n\nmuon_momentum: 2\n", encoding="utf-8")
    (tmp_path / "above.yaml").write_text("base: below.yaml\nseed: 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^muon_momentum=2\.0; allowed: 0 <= x < 1 \(.*below\.yaml, line 4\)$"):
        parse_recipe([str(tmp_path / "above.yaml")])
    with pytest.raises(ValueError, match=r"^muon_momentum=3\.0; allowed: 0 <= x < 1$"):  # typed, not in a file
        parse_recipe([str(tmp_path / "above.yaml"), "--muon_momentum", "3"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("task: sudoku\nseed: 1\nseed: 2\n", "line 3: seed is given twice, first in line 2"),
        ("a: [1, 2\nb: }", "line 2: "),
        ("a:\n\t- b\n", "line 2: "),
        ("task: sudoku\n---\ntask: maze\n", "line 2: "),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1: "),
        ("a: 2024-99-99\n", ""),
        ("[" * 5000, ""),
        ("task: sudoku\nseed: 010\n", "line 2: 010 can be read in two ways"),
        ("train_steps: 1:30\n", "line 1: 1:30 can be read in two ways"),
        ("clip_grad_norm: 1:30.5\n", "line 1: 1:30.5 can be read in two ways"),
    ],
)
def test_wrong_yaml_is_one_line_with_its_number(text: str, told: str, tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"recipe.yaml is no recipe: {told}") as error:
        parse_recipe([str(path)])
    assert "\n" not in str(error.value)
