"""Recipes: every shipped one is sound; a wrong one is refused by name."""

import re
from pathlib import Path

import pytest

from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.training.arguments import parse_recipe
from modeling_trm.training.fields import parse_mapping
from scripts import train

RECIPES = sorted((Path(train.__file__).parent / "recipes").glob("*.yaml"))
BY_SCRIPT = {"arc-adapt"}  # its script sets data and output folder


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipe_builds_its_model(path):
    recipe = parse_recipe([str(path), *(["--data_dir", "data"] if path.stem in BY_SCRIPT else [])])
    rows = 0 if recipe.model.puzzle_prefix_len == 0 else 3
    config = recipe.model_config(GridProcessor(recipe.data.task), num_puzzles=max(rows, 1))
    model = TRMForGridReasoning(config)
    assert model.num_parameters_core() > 0
    assert model.num_parameters_table() == rows * config.puzzle_width
    assert path.stem in BY_SCRIPT or recipe.run.output_dir == f"runs/{path.stem}"  # each recipe has its own folder


def test_an_oblong_grid_says_how_wide_it_is():
    recipe = parse_recipe(["--task", "maze", "--position_embedding", "rope2d", "--preset", "trm-attn"])
    config = recipe.model_config(GridProcessor("maze", grid_shape=(5, 7)), num_puzzles=1)
    assert config.grid_shape(35) == (5, 7)
    assert recipe.model_config(GridProcessor("maze"), num_puzzles=1).grid_width is None


def test_command_line_wins_over_the_recipe_and_it_over_defaults(write_recipe):
    recipe = parse_recipe([str(write_recipe("run")), "--hidden_size", "64", "--block_operators", "mlp_t", "mlp"])
    assert recipe.model.hidden_size == 64 and recipe.model.block_operators == ["mlp_t", "mlp"]
    assert recipe.optimisation.batch_size == 8
    assert recipe.optimisation.beta2 == 0.95


@pytest.mark.parametrize(
    ("field", "option"), [("train_steps", "--train_minutes"), ("train_minutes", "--train_steps=9")]
)
def test_steps_and_minutes_take_each_others_place_on_the_command_line(write_recipe, field, option):
    recipe = write_recipe("run", **{"train_steps": None, field: 7})
    o = parse_recipe([str(recipe), *([option] if "=" in option else [option, "9"])]).optimisation
    assert (o.train_steps, o.train_minutes) == ((None, 9.0) if field == "train_steps" else (9, None))


def test_what_a_recipe_says_is_a_recipe_again(write_recipe):
    recipe = parse_recipe([str(write_recipe("run", source_weights={"gen_easy": 1.0}))])
    again = parse_recipe([str(write_recipe("again", **recipe.to_dict()))])
    assert again == recipe


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"learning_rat": 0.1}, "--learning_rate"),
        ({"hiden_size": 12}, "--hidden_size"),
        ({"token_loss": "hinge"}, "token_loss='hinge'; allowed: stablemax, softmax"),
        ({"optimiser": "sgd"}, "optimiser='sgd'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"reveal_start": 1.5}, "reveal_start=1.5"),
        ({"hidden_size": 33, "preset": "trm-attn", "block_operators": ["attention"]}, "num_attention_heads=8"),
        ({"block_operators": ["mamba_2", "mlp"]}, "did you mean 'mamba2'"),
        ({"preset": "trm-atn"}, "did you mean 'trm-attn'"),
        ({"source_weights": {"gen_esy": 1}}, "gen_esy"),
        ({"data_dir": "no/such/folder"}, "no/such/folder"),
        ({"task": "arc", "test_puzzles": None}, "task arc needs data, a folder written by: trm build-data arc"),
        ({"task": "arc", "data_dir": "d"}, "test_puzzles: task arc takes its data, all of it, from one folder"),
        ({"task": "arc", "data_dir": "no/such/folder", "test_puzzles": None}, "no/such/folder"),
        (
            {"task": "arc", "data_dir": "d", "subset": 5},
            "subset, test_puzzles: task arc takes its data",
        ),
        ({"views": 8}, "views=8 is for task arc only"),
        ({"test_augmentations": 8}, "the recipe has no field --test_augmentations; did you mean --views?"),
        ({"step_weights": "random"}, "step_weights='random'; allowed: uniform, rising, falling"),
        ({"depth_curriculum": {0.3: [1]}}, "0.3: [1] is not allowed; allowed: a share above 0 and below 1"),
        ({"depth_curriculum": {1.5: [1, 2]}}, "1.5: [1, 2] is not allowed"),
        ({"depth_curriculum": {1.0: [1, 2]}}, "1.0: [1, 2] is not allowed"),
        ({"depth_curriculum": {0.5: [0, 2]}}, "0.5: [0, 2] is not allowed"),
        ({"depth_curriculum": {0.3: [2, 1], 0.5: [1, 1]}}, "falls at 0.5, from [2, 1] to [1, 1]"),
        ({"depth_curriculum": {0.3: [5, 1]}}, "ends with [5, 1], deeper than the model's H_cycles, L_cycles"),
        ({"supervision_curriculum": {0.3: [1]}, "halt_max_steps": 4, "objective": "dis"}, "for objective 'act' only"),
        ({"supervision_curriculum": {0.3: 1.5}}, "0.3: 1.5 is not allowed; allowed: a share above 0 and below 1"),
        ({"supervision_curriculum": {0: 1}}, "0: 1 is not allowed"),
        ({"supervision_curriculum": {0.3: 4, 0.6: 2}}, "falls at 0.6, from [4] to [2]"),
        ({"supervision_curriculum": {0.3: 400}}, "ends with 400 steps; allowed: up to halt_max_steps="),
        ({"depth_curriculum": "deeper"}, "depth_curriculum='deeper' is no mapping"),
        ({"start_step": 5}, "start_step=5 needs start_from: the weights that the run had there"),
        ({"start_step": 16, "start_from": "x"}, "start_step=16; allowed: 0 to 15, a step before the last of train_"),
        ({"start_step": -1, "start_from": "x"}, "start_step=-1; allowed: 0 or more ("),
        ({"train_minutes": 8}, "train_steps=16, train_minutes=8.0: give one of them"),
        ({"train_minutes": 0, "train_steps": None}, "train_minutes=0.0; allowed: more than 0"),
        ({"train_minutes": 8, "train_steps": None, "test_puzzles": None}, "train_minutes=8.0 needs test_puzzles"),
        (
            {"train_minutes": 8, "train_steps": None, "start_step": 5, "start_from": "x"},
            "start_step=5 needs train_steps",
        ),
        (
            {"task": "grid", "reveal_start": 1.0, "reveal_until": 0.5, "loss_on": "blanks"},
            "reveal_start, reveal_until, loss_on: not for task 'grid'; switch them off: --reveal_start 0 "
            "--reveal_until 0 --loss_on all",
        ),
        ({"resume_from": "no/such/folder"}, "resume_from='no/such/folder': there is no such folder"),
        ({"train_only": "puzzle_table", "puzzle_prefix_len": 0}, "no puzzle table"),
        ({"subset": 10**9}, "subset=1000000000"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(write_recipe, tmp_path, refused, overrides, expected):
    assert expected in refused(train.main, [str(write_recipe("run", **overrides))])
    assert not (tmp_path / "run" / "model").exists()


def test_a_recipe_that_is_no_mapping(tmp_path, refused):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    assert "expected a YAML mapping" in refused(train.main, [str(path)])


@pytest.mark.parametrize("text", ["{a: 1", "{train: [a.csv, }", "[1, 2]", "5"])
def test_a_field_that_is_no_mapping_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"source_weights={re.escape(repr(text))} is no mapping.*; write") as error:
        parse_mapping("source_weights", text)
    assert "\n" not in str(error.value)
