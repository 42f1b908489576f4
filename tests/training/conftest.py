"""A small Sudoku recipe on the shipped sample, as a file and as a mapping."""

from pathlib import Path
from typing import Any

import pytest
import yaml

TINY_RECIPE: dict[str, Any] = {
    "block_operators": ["mamba2", "mlp_t", "mlp"],
    "hidden_size": 32,
    "mlp_expansion": 2,
    "mlp_multiple_of": 32,
    "mamba_d_state": 8,
    "mamba_expand": 1,
    "mamba_head_dim": 8,
    "puzzle_prefix_len": 2,
    "H_cycles": 2,
    "L_cycles": 2,
    "halt_max_steps": 4,
    "halt_bias": 0.0,
    "task": "sudoku",
    "validation_puzzles": 8,
    "test_puzzles": 8,
    "train_steps": 16,
    "batch_size": 8,
    "optimiser": "muon",
    "learning_rate": 0.001,
    "lr_schedule": "cosine",
    "warmup_steps": 2,
    "log_every": 2,
    "eval_every": 8,
    "checkpoint_every": 3,
    "report_to": ["none"],
    "compile": "no",
    "mixed_precision": "no",
    "cpu": True,
}


@pytest.fixture
def write_recipe(tmp_path: Path):
    """write_recipe(name, **overrides) -> path of a YAML recipe whose output_dir is tmp_path/name."""

    def write(name: str, **overrides: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        fields = {**TINY_RECIPE, "output_dir": str(tmp_path / name), **overrides}
        path.write_text(yaml.safe_dump(fields), encoding="utf-8")
        return path

    return write
