"""A model with a described puzzle table of three tasks, and the folder that it is saved in; pipelines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import pipeline

from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.reasoning_trm import SolveOutput
from tests.oracles.puzzle_table import make_index

ROWS = {"a": 3, "b": 1, "c": 2}
PUZZLES = 5  # of `problem`
SUDOKU = GridProcessor("sudoku", grid_shape=(4, 4))
MAZE = GridProcessor("maze", grid_shape=(4, 4))
WIDE_MAZE = GridProcessor("maze", grid_shape=(2, 8))
GRID = GridProcessor("grid", grid_shape=(4, 4), alphabet="ab012")
ARC = GridProcessor("arc", grid_shape=(4, 4))


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


@pytest.fixture
def make(tiny_model: Callable[..., TRMForGridReasoning]) -> Callable[..., TRMForGridReasoning]:
    """make(preset, **overrides): a random model with a row of its table for each puzzle of `problem`."""
    return lambda preset, **overrides: tiny_model(preset, **{"num_puzzles": PUZZLES, **overrides}).eval()


@pytest.fixture
def problem() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(6, (PUZZLES, 16)), torch.arange(PUZZLES)


class Echo:
    """Stands in for model.solve: answers with its input; keeps what it was given."""

    def __init__(self) -> None:
        self.input_ids: list[torch.Tensor] = []
        self.puzzle_ids: list[int] = []

    def __call__(self, input_ids: torch.Tensor, puzzle_ids: torch.Tensor, **_: Any) -> SolveOutput:
        self.input_ids.append(input_ids)
        self.puzzle_ids += puzzle_ids.tolist()
        size = len(input_ids)
        return SolveOutput(input_ids, torch.full((size,), 0.25), torch.full((size,), 7), None)


@pytest.fixture
def make_pipeline(tiny_model: Callable[..., TRMForGridReasoning]) -> Callable[..., Any]:
    """make_pipeline(processor, preset, **overrides): with a random model that answers with complete grids.

    In float64, where batches of other sizes change no answer.
    """

    def make(processor: GridProcessor, preset: str = "tr-mamba2mlpt", **overrides: Any) -> Any:
        sizes = {"vocab_size": processor.vocab_size, "seq_len": processor.seq_len, **overrides}
        model = tiny_model(preset, **sizes).eval().double()
        with torch.no_grad():  # the mean of the logits is never the largest: no padding, no blank or end of grid
            model.lm_head.weight[:2] = model.lm_head.weight[2:].mean(0)
        return pipeline("grid-reasoning", model=model, feature_extractor=processor, device="cpu")

    return make


@pytest.fixture
def echo_pipeline(make_pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """echo_pipeline(processor): a pipeline, and the Echo that it runs in place of its model."""

    def make(processor: GridProcessor) -> tuple[Any, Echo]:
        pipe, echo = make_pipeline(processor), Echo()
        monkeypatch.setattr(pipe.model, "solve", echo)
        return pipe, echo

    return make
