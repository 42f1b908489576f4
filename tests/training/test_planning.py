"""Steps planned from minutes: the arithmetic against counting, and a planned run against one that was told its steps.

The clock of these tests is their own: it goes on by the same amount at every look.
"""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from datasets_builders.features import load_puzzles
from modeling_trm.training import planning, stopping, trainer
from modeling_trm.training.arguments import parse_recipe
from modeling_trm.training.data import open_data
from modeling_trm.training.planning import CLOSING, MARGIN, MEASURED, Costs
from modeling_trm.training.schedule import stage_at
from scripts import train
from tests.training.frozen import frozen_step

COSTS = Costs(stages=((0.25, 0.04), (0.5, 0.06), (1.0, 0.1)), started=21.0, evaluation=3.0, final=14.0, eval_every=100)


def counted(costs: Costs, train_steps: int) -> float:
    """A step at a time, as the run goes."""
    shares = {share: cost for share, cost in costs.stages if share < 1}
    seconds = costs.started + costs.final + CLOSING
    for step in range(1, train_steps + 1):
        seconds += stage_at(step, train_steps, shares, costs.stages[-1][1])
        if step % costs.eval_every == 0 or step == train_steps:
            seconds += costs.evaluation
    return seconds


@pytest.mark.parametrize("train_steps", [1, 99, 100, 101, 1000, 1237])
def test_the_cost_of_a_run_is_the_sum_over_its_steps(train_steps):
    assert COSTS.seconds(train_steps) == pytest.approx(counted(COSTS, train_steps))


@pytest.mark.parametrize("minutes", [1.21, 3.03, 8.07])
def test_the_plan_is_the_longest_run_that_ends_in_time(minutes):
    available = 60 * minutes * (1 - MARGIN)
    steps = COSTS.most_steps(minutes)
    assert steps > 50
    assert counted(COSTS, steps) <= available < counted(COSTS, steps + 1)


def test_no_step_fits_into_too_few_minutes():
    assert COSTS.most_steps(0.5) == 0


def test_the_plan_in_words():
    assert COSTS.describe(1001, 8) == (
        "1,001 steps in 8 minutes: 250 at 40.0 ms, 250 at 60.0 ms, 501 at 100.0 ms; 11 evaluations of 3.0 s, the final "
        "one 14.0 s; 10% to spare"
    )


def test_a_run_without_validation_names_no_evaluations():
    assert replace(COSTS, evaluation=0.0).describe(1001, 8).endswith("; the final evaluation 14.0 s; 10% to spare")


def test_each_stage_is_measured_at_its_depth_and_undone():
    step = frozen_step(
        {"H_cycles": 2, "L_cycles": 2}, depth_curriculum="{0.25: [1, 1], 0.5: [1, 2]}", train_steps=10, rate=0.1
    )
    for number in (1, 2):
        step(number)
    before = {part: {k: v.clone() for k, v in named.items()} for part, named in step.state_dict().items()}
    depths, forward = [], step.wrapped.forward
    step.wrapped = lambda *args, **kwargs: depths.append(kwargs["cycles"]) or forward(*args, **kwargs)
    seconds, _ = planning._measure_stages(step)
    step.buckets[0].feed.close()
    assert len(seconds) == 3 and all(cost > 0 for cost in seconds)
    assert [(depth, len(list(group))) for depth, group in itertools.groupby(depths)] == [
        ((1, 1), MEASURED + 3), ((1, 2), MEASURED + 2), (None, MEASURED + 2),
    ]  # fmt: skip
    assert step.train_steps == 10
    for part, named in step.state_dict().items():
        assert named.keys() == before[part].keys()
        assert all(torch.equal(value, before[part][name]) for name, value in named.items())


def test_what_is_planned_with_is_what_the_processes_agree_on(write_recipe, monkeypatch):
    recipe = parse_recipe(
        [str(write_recipe("run", train_steps=None, train_minutes=8, test_puzzles=5, depth_curriculum={0.5: [1, 1]}))]
    )
    step = frozen_step(depth_curriculum="{0.5: [1, 1]}")
    agreed = torch.tensor([0.25, 0.5, 2.0, 32.0])  # two stages, a puzzle, before the first step
    monkeypatch.setattr(step.accelerator, "reduce", lambda mine, how: agreed if (mine > 0).all() else mine)
    data = replace(open_data(recipe), validation=load_puzzles("sudoku", "validation").select(np.arange(3)))
    costs = planning.measure_costs(step, recipe, data, -1.0)
    step.buckets[0].feed.close()
    assert costs == Costs(((0.5, 0.25), (1.0, 0.5)), started=32.0, evaluation=6.0, final=10.0, eval_every=8)


def test_a_planned_run_is_the_run_of_that_many_steps(write_recipe, tmp_path, monkeypatch, capsys):
    """At a hundredth of a second a look, a step takes 1 ms; the minutes are chosen for a run of some steps."""
    fields = {"depth_curriculum": {0.5: [1, 1]}, "train_steps": None, "reveal_start": 1.0, "reveal_until": 0.9}
    clock = SimpleNamespace(perf_counter=(0.01 * looks for looks in itertools.count()).__next__)
    minutes = {"train_minutes": (CLOSING + 0.15) / 60 / (1 - MARGIN)}
    recipe = str(write_recipe("planned", **fields, **minutes))
    with monkeypatch.context() as patch:
        patch.setattr(planning, "time", clock)
        patch.setattr(trainer, "time", clock)
        patch.setattr(stopping, "time", clock)
        assert train.main([recipe, "--stop_after_minutes", "0.005"]) == 0
    out = capsys.readouterr().out
    checkpoint = max((tmp_path / "planned" / "checkpoints").iterdir())
    progress = json.loads((checkpoint / "progress.json").read_text())
    steps = progress["train_steps"]
    assert 3 < progress["step"] < steps and f"planned {progress['plan']}" in out
    assert progress["plan"].startswith(f"{steps} steps in ") and "at 1.0 ms" in progress["plan"]

    monkeypatch.setattr(trainer, "measure_costs", None)  # what goes on keeps its plan
    assert train.main([recipe]) == 0
    told = str(write_recipe("told", **fields | {"train_steps": steps}))
    assert train.main([told]) == 0
    for kind in ("last", "ema", "best"):
        one, other = (load_file(tmp_path / run / "weights" / kind / "model.safetensors") for run in ("planned", "told"))
        assert all(torch.equal(other[name], value) for name, value in one.items())
    metrics = json.loads((tmp_path / "planned" / "metrics.json").read_text())
    assert metrics["steps"] == steps and metrics["train"]["plan"] == progress["plan"]


def test_minutes_that_do_not_reach_beyond_the_warm_up_are_refused(write_recipe, tmp_path, refused):
    recipe = write_recipe("run", train_steps=None, train_minutes=0.01)
    error = refused(train.main, [str(recipe)])
    assert "train_minutes=0.01 holds 0 steps" in error and "warmup_steps=2" in error
    assert not (tmp_path / "run" / "checkpoints").exists()
