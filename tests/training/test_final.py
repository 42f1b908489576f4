"""The end of a run: the published checkpoint carries the defaults that were chosen on validation puzzles."""

import json
from pathlib import Path
from typing import Any

import pytest

from modeling_trm import ReasoningConfig, TRMForGridReasoning
from modeling_trm.commands import train
from modeling_trm.evaluation.halting import calibrate_halting
from modeling_trm.training import final


def test_steps_and_halting_are_chosen_on_the_validation_puzzles(
    write_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def choose(model: TRMForGridReasoning, puzzles: Any, max_steps: int | None, **evaluation: Any) -> ReasoningConfig:
        asked.append((len(puzzles), max_steps, model.training))
        own = calibrate_halting(model, puzzles, max_steps, **evaluation)
        assert own == ReasoningConfig()  # so short a training solves nothing, and nothing is chosen
        return own.updated(max_steps=9, halt=0.8)

    monkeypatch.setattr(final, "calibrate_halting", choose)
    recipe = write_recipe("run", train_steps=2, eval_every=2, checkpoint_every=2, eval_max_steps=3)
    assert train.main([str(recipe)]) == 0
    assert asked == [(8, 3, False)]
    published = tmp_path / "run" / "model"
    assert TRMForGridReasoning.from_pretrained(published).reasoning_config == ReasoningConfig(max_steps=9, halt=0.8)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    said = "at most 9 steps, stopping above a halt probability of 0.8 (chosen on 8 validation puzzles)"
    assert metrics["train"]["inference defaults"] == said
    assert metrics["evaluations"]["test"]["steps"] == 3  # the figures are of every step, as the recipe says
    assert metrics["evaluations"]["test"]["early_exit"] is False
