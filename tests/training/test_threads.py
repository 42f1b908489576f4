"""What a run on a CPU is told of a recipe that was made for a GPU."""

import pytest
import torch

from modeling_trm import GridProcessor
from modeling_trm.training.arguments import parse_recipe
from modeling_trm.training.recipes import read_recipe, shipped_names
from modeling_trm.training.threads import gpu_sized

# Those of ARC need data for their sizes, those that start from a checkpoint have its architecture.
OTHERS = [name for name in shipped_names() if name.startswith("arc") or "start_from" in read_recipe(name)]
RECIPES = [name for name in shipped_names() if name not in OTHERS]


@pytest.mark.parametrize("name", RECIPES)
def test_whoever_runs_a_recipe_for_gpus_on_a_cpu_is_told(name: str) -> None:
    recipe = parse_recipe([name])
    config, batch_size = recipe.model_config(GridProcessor(recipe.data.task), 1), recipe.optimisation.batch_size
    notes = gpu_sized(config, batch_size, torch.device("cpu"))
    is_for_cpus = "cpu" in name or name in ("quickstart", "sudoku-study")
    assert len(notes) == (0 if is_for_cpus else 1)
    assert is_for_cpus or f"and {batch_size} puzzles at once need gigabytes" in notes[0]
    assert gpu_sized(config, batch_size, torch.device("cuda")) == []
