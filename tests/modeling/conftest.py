"""A model with a described puzzle table of three tasks, and the folder that it is saved in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modeling_trm import TRMForGridReasoning
from tests.oracles.puzzle_table import make_index

ROWS = {"a": 3, "b": 1, "c": 2}


@pytest.fixture
def model(tiny_model: Callable[..., TRMForGridReasoning]) -> TRMForGridReasoning:
    index = make_index(ROWS)
    model = tiny_model("tr-mamba2attn", num_puzzles=len(index))
    model.set_puzzle_index(index)
    return model.eval()


@pytest.fixture
def folder(model: TRMForGridReasoning, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"
