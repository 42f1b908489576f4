"""The end of a run: the published checkpoint carries the defaults that were chosen on validation puzzles."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import csv

from datasets_builders.features import load_puzzles
from modeling_trm import OPERATORS, ReasoningConfig, TRMForGridReasoning
from modeling_trm.commands import train
from modeling_trm.evaluation.halting import calibrate_halting
from modeling_trm.training import final


def test_steps_and_halting_are_chosen_on_the_validation_puzzles(
    write_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def choose(model: TRMForGridReasoning, puzzles: Any, max_steps: int | None, **evaluation: Any) -> ReasoningConfig:
        asked.append((len(puzzles), max_steps, model.training))
        own = calibrate_halting(model, puzzles, max_steps, **evaluation)
        assert own == ReasoningConfig()  # so short a training solves nothing, and nothing is chosen
        return own.updated(max_steps=9, halt=0.8)

    monkeypatch.setattr(final, "calibrate_halting", choose)
    same = tmp_path / "same.csv"
    csv.write_csv(load_puzzles("sudoku", "train").select(range(8)).to_table(), same)
    files = str({split: str(same) for split in ("train", "validation", "test")})
    recipe = write_recipe("run", train_steps=2, eval_every=2, checkpoint_every=2, eval_max_steps=3, data_files=files)
    assert train.main([str(recipe)]) == 0
    assert asked == [(8, 3, False)]
    published = tmp_path / "run" / "model"
    assert TRMForGridReasoning.from_pretrained(published).reasoning_config == ReasoningConfig(max_steps=9, halt=0.8)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    shown, known = capsys.readouterr().out, "puzzles are training puzzles too: its figures are not those of new ones"
    assert f"note:  8 of the 8 validation {known}" in shown and f"note:  {metrics['train']['test puzzles']}" in shown
    assert metrics["train"]["test puzzles"].endswith(f" test {known}")
    said = "at most 9 steps, stopping above a halt probability of 0.8 (chosen on 8 validation puzzles)"
    assert metrics["train"]["inference defaults"] == said
    assert metrics["evaluations"]["test"]["steps"] == 3  # the figures are of every step, as the recipe says
    assert metrics["evaluations"]["test"]["early_exit"] is False


OWN = """
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from modeling_trm.operators_trm import OPERATORS


class Normalised(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = weight_norm(nn.Linear(config.hidden_size, config.hidden_size))

    def forward(self, x):
        return self.layer(x)


OPERATORS["final_weight_norm"] = Normalised
"""


def test_an_operator_whose_weights_are_parametrized_is_evaluated_and_published(
    write_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPERATORS, "final_weight_norm", None)  # so that it is gone afterwards
    del OPERATORS["final_weight_norm"]
    code = tmp_path / "final_ops.py"
    code.write_text(OWN, encoding="utf-8")
    operators = {"block_operators": ["final_weight_norm", "mlp"], "eval_max_steps": 2}
    recipe = str(write_recipe("run", train_steps=2, eval_every=2, checkpoint_every=2, **operators))
    assert train.main([recipe, "--import", str(code)]) == 0
    assert "test" in json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["evaluations"]
    model = TRMForGridReasoning.from_pretrained(tmp_path / "run" / "model").eval()
    assert model.solve(torch.ones(1, 81, dtype=torch.long), max_steps=1).answers.shape == (1, 81)


def test_an_evaluation_that_fails_leaves_the_model_and_the_same_command_ends_the_run(
    write_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    recipe = str(write_recipe("run", train_steps=2, eval_every=2, checkpoint_every=2, eval_max_steps=2))

    def fail(*_: Any) -> None:
        raise RuntimeError("no picture today")

    with monkeypatch.context() as patch:
        patch.setattr(final, "solving_picture", fail)
        with pytest.raises(RuntimeError, match="no picture today"):
            train.main([recipe])
    published = tmp_path / "run" / "model"
    assert f"note:  {published} is the trained model; what failed is its evaluation" in capsys.readouterr().out
    assert TRMForGridReasoning.from_pretrained(published).num_parameters() > 0
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert train.main([recipe]) == 0
    assert (published / "README.md").exists() and (tmp_path / "run" / "metrics.json").exists()
