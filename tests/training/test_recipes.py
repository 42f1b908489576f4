"""Recipes as files: by name or path, on the base of others, complete when they are shown."""

import gzip
import re
from pathlib import Path

import pytest
import yaml

from modeling_trm import PRESETS, GridProcessor
from modeling_trm.commands import recipes
from modeling_trm.training.arguments import FIELDS, parse_recipe
from modeling_trm.training.recipes import SHIPPED, find_recipe, first_line, read_recipe, shipped_names

ROOT = SHIPPED.parents[1]


def write(folder: Path, name: str, **fields) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return str(path)


def test_a_recipe_states_what_differs_from_its_base(tmp_path):
    write(tmp_path, "a", train_steps=10, muon_lr=0.5, source_weights={"x": 1.0})
    write(tmp_path, "b", base="a.yaml", muon_lr=0.25, seed=3)  # relative to the file, not to where one stands
    last = write(tmp_path, "c", base="b.yaml", source_weights=None)
    assert read_recipe(last) == {"train_steps": 10, "muon_lr": 0.25, "seed": 3, "source_weights": None}
    recipe = parse_recipe([last, "--seed", "4"])
    assert (recipe.optimisation.train_steps, recipe.run.seed, recipe.data.source_weights) == (10, 4, None)


def test_a_shipped_recipe_is_a_base(tmp_path):
    mine = write(tmp_path, "mine", base="quickstart", train_steps=7)
    assert read_recipe(mine) == read_recipe("quickstart") | {"train_steps": 7}


def test_bases_in_a_circle_are_named(tmp_path):
    first = write(tmp_path, "first", base="second.yaml")
    write(tmp_path, "second", base="first.yaml")
    with pytest.raises(ValueError, match="based on each other: first -> second -> first"):
        read_recipe(first)


@pytest.mark.parametrize("base", [3, ["a"], "quickstrat"])
def test_a_base_that_is_none_is_refused(tmp_path, base):
    with pytest.raises(ValueError, match=r"must be the name of a recipe|did you mean quickstart"):
        read_recipe(write(tmp_path, "mine", base=base))
    with pytest.raises(ValueError, match=r"mine\.yaml: base="):
        read_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_recipe_is_read_whatever_program_wrote_it(tmp_path, encoding, pack):
    path = tmp_path / "mine.yaml"
    path.write_bytes(pack("# Mine, so small.\nbase: quickstart\nseed: -1\n".encode(encoding)))
    assert read_recipe(str(path)) == read_recipe("quickstart") | {"seed": -1}
    assert first_line(str(path)) == "Mine, so small."
    with pytest.raises(ValueError, match=r"^seed=-1; .*mine\.yaml, line 3\)$"):
        parse_recipe([str(path)])


def test_a_file_that_is_no_text_is_no_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"seed: 3 # \xe9\n")
    with pytest.raises(ValueError, match=r"mine\.yaml is no recipe: is not UTF-8 text in line 1"):
        read_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("depth_curriculum: [1, 2]", "depth_curriculum=[1, 2]; allowed: a mapping, as in {key: value} (F, line 2)"),
        ("output_dir: {a: 1}", "output_dir={'a': 1}; allowed: text that is not empty (F, line 2)"),
        ("train_stps: 3", "the recipe has no field --train_stps; did you mean --train_steps? (F, line 2)"),
        ("3: 4", "the recipe has no field --3 (F, line 2)"),
        ("vocab_size: 12", "the recipe has no field --vocab_size: the data decide it, leave it out (F, line 2)"),
        ("seq_len: 81", "the recipe has no field --seq_len: the data decide it, leave it out (F, line 2)"),
        (
            "block_operators: attention mlp",
            "block_operators='attention mlp'; allowed: a list; write it as [attention, mlp] (F, line 2)",
        ),
        (
            "block_operators: symbols,mlp",
            "block_operators='symbols,mlp'; allowed: a list; write it as [symbols, mlp] (F, line 2)",
        ),
        ("grid_shape: 5, 7", "grid_shape='5, 7'; allowed: a list; write it as [5, 7] (F, line 2)"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told_with_its_line(tmp_path, text, told):
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: quickstart\n{text}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{re.escape(told.replace('F,', f'{path},'))}$"):
        parse_recipe([str(path)])


def test_an_unknown_recipe_is_told_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no recipe 'recipes/maze-cpu\.yml'.*did you mean maze-cpu"):
        find_recipe("recipes/maze-cpu.yml")
    assert find_recipe("maze-cpu") == SHIPPED / "maze-cpu.yaml"


def test_paths_that_cards_name_are_valid():
    """Published cards say `scripts/recipes/NAME.yaml`."""
    for name in shipped_names():
        assert (ROOT / "scripts" / "recipes" / f"{name}.yaml").samefile(SHIPPED / f"{name}.yaml")


def test_data_above_take_the_place_of_data_below(tmp_path):
    assert read_recipe("sudoku-trm-mlp-t")["dataset"] == "hub"
    mine = write(tmp_path, "mine", base="sudoku-trm-mlp-t", data_dir="here")
    data = parse_recipe([mine]).data
    assert (data.data, data.data_dir, data.dataset) == (None, "here", None)
    data = parse_recipe([mine, "--data", "there"]).data
    assert (data.data, data.data_dir, data.dataset) == ("there", None, None)


@pytest.mark.parametrize("name", shipped_names())
def test_a_recipe_that_is_shown_is_the_recipe(name, tmp_path, capsys):
    """Complete: without a base, and read to the same values."""
    assert recipes.main(["show", name]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out, encoding="utf-8")
    assert read_recipe(str(shown)) == read_recipe(name)
    more = ["--data", "data"] if name == "arc-adapt" else []
    assert parse_recipe([str(shown), *more]) == parse_recipe([name, *more])


@pytest.mark.parametrize("name", shipped_names())
def test_what_a_card_states_is_the_recipe_without_defaults(name, tmp_path):
    """A file of it trains the same model in the same way; a preset that nothing is left of is not named."""
    recipe = parse_recipe([name, *(["--data", "data"] if name == "arc-adapt" else [])])
    stated = recipe.stated()
    again = parse_recipe([write(tmp_path, name, **stated)])
    without = {field: value for field, value in recipe.to_dict().items() if field != "preset"}
    assert {field: value for field, value in again.to_dict().items() if field != "preset"} == without
    processor = GridProcessor(recipe.data.task)
    assert again.model_config(processor, 1).to_dict() == recipe.model_config(processor, 1).to_dict()
    assert len(stated) < 0.6 * len(recipe.to_dict()) and None not in stated.values()
    assert "preset" not in stated or PRESETS[stated["preset"]].keys() - stated.keys()


def test_a_family_differs_in_what_it_is_named_for():
    """What the bases are for: of one family, only these fields are another."""
    for names, differ in (
        (("sudoku-trm-mlp-t", "sudoku-trm-attn", "sudoku-tr-mamba2attn", "sudoku-tr-mamba2mlpt"), {"preset"}),
        (("sudoku-fast-tr-mamba2mlpt", "sudoku-fast-trm-mlp-t"), {"preset"}),
        (("sudoku-fast-trm-attn", "sudoku-fast-tr-mamba2attn"), {"preset"}),
        (("sudoku-fast-tr-mamba2mlpt", "sudoku-fast-trm-attn"), {"preset", "position_embedding"}),
        (("sudoku-symbols-fast-attn", "sudoku-symbols-fast-mamba2"), {"preset", "position_embedding"}),
        (("sudoku-symbols-fast-attn", "sudoku-symbols-fast-mamba2attn"), {"preset"}),  # and the stack, which is stated
        (("maze-trm-attn", "maze-tr-mamba2attn"), {"preset"}),
        (("maze-fast-trm-attn", "maze-fast-tr-mamba2attn"), {"preset"}),
        (("arc-trm-attn", "arc-tr-mamba2attn"), {"preset"}),
        (("sudoku-trm-mlp-t", "sudoku-trm-mlp-t-curriculum"), {"depth_curriculum", "step_weights"}),
        (("sudoku-cpu-dis", "sudoku-cpu-dis-released"), {"loss_on"}),
        (("sudoku-cpu-cheap", "sudoku-cpu-cheap-curriculum"), {"depth_curriculum"}),
    ):
        first, *others = (parse_recipe([name]).to_dict() for name in names)
        for other in others:
            assert {name for name in first if first[name] != other[name]} == differ | {"output_dir"}


def test_the_list_and_the_fields(capsys):
    assert recipes.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == shipped_names()
    assert all(len(line.split()) > 4 for line in lines)
    assert recipes.main(["fields"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in FIELDS)
    assert "learning_rate [0.0001]: learning rate of everything" in shown
