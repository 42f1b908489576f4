"""Grids of several sizes in one run: each step is of all of them, and what a run leaves tells of each."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file

from datasets_builders.features import load_puzzles
from datasets_builders.sampling import TrainingStream
from datasets_builders.sources import SAMPLES
from modeling_trm import GridProcessor, TRMConfig
from modeling_trm.evaluation.halting import most_careful
from modeling_trm.evaluation.trained_on import count_trained_on
from modeling_trm.experiments.recipes import read_contender
from modeling_trm.losses_trm import stablemax_cross_entropy
from modeling_trm.reasoning_config_trm import ReasoningConfig
from modeling_trm.training import planning
from modeling_trm.training.arguments import parse_recipe
from modeling_trm.training.bucket import Bucket, open_buckets
from modeling_trm.training.data import open_data
from modeling_trm.training.rows import RowFeed
from modeling_trm.training.start import initial_model
from modeling_trm.training.trainer import Trainer
from modeling_trm.utils.flops import training_flops
from modeling_trm.utils.loading import resized
from scripts import train

from .frozen import SEED, B, frozen_step

FIELDS = {
    "block_operators": ["axial", "symbols", "mlp"], "symbol_fields": True, "axial_heads": 1, "axial_head_dim": 4,
    "position_embedding": "none", "puzzle_prefix_len": 0,
}  # fmt: skip


def small_stream() -> TrainingStream:
    return TrainingStream(load_puzzles("sudoku", "test", grid_shape=(4, 4)).select(np.arange(50)), seed=SEED)


def test_a_step_is_the_mean_over_the_puzzles_of_all_sizes(monkeypatch):
    """The gradient of a step against that of one loss, written down here."""
    step = frozen_step(FIELDS, gradient_accumulation=2)
    feed = RowFeed(small_stream(), np.arange(4), 4, lambda step: 0.5, torch.device("cpu"))
    step.buckets.append(Bucket(step.arguments, step.model, feed, 16, SEED, first=B))
    monkeypatch.setattr(step, "_update", lambda number: None)
    tally = step(1)
    step.close()
    found = {name: weight.grad.clone() for name, weight in step.model.named_parameters() if weight.grad is not None}
    step.model.zero_grad()

    losses = []
    for bucket in step.buckets:
        slots = bucket.slots
        out = step.model(slots.inputs, puzzle_ids=slots.puzzle_ids)
        exact = (out.logits.argmax(-1) == slots.labels).all(-1).float()
        halting = torch.nn.functional.binary_cross_entropy_with_logits(out.halt_logits, exact, reduction="none")
        losses.append(stablemax_cross_entropy(out.logits, slots.labels) + 0.5 * halting)
    torch.cat(losses).mean().backward()
    assert tally["slots"] == B + 4 and tally["cells"] == B * 81 + 4 * 16
    wanted = {name: weight.grad for name, weight in step.model.named_parameters() if weight.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_what_is_drawn_for_a_size_is_not_drawn_for_another():
    step = frozen_step(FIELDS, random_start=True, halt_exploration=0.5)
    feed = RowFeed(small_stream(), np.arange(B), B, lambda step: 0.5, torch.device("cpu"))
    own, other = step.buckets[0], Bucket(step.arguments, step.model, feed, 16, SEED, first=B)
    first, second = (bucket.perturbation.start(1).z_H for bucket in (own, other))
    assert first.shape[2:] == (81, 16) and second.shape[2:] == (16, 16)
    assert not torch.equal(first.flatten()[:8], second.flatten()[:8])
    step.close()
    other.feed.close()


@pytest.fixture
def fields(tmp_path: Path) -> dict:
    """Of a recipe that trains 9x9 and a user's own 4x4, a file without splits."""
    own = shutil.copy(SAMPLES / "sudoku-4x4" / "test.parquet", tmp_path / "mine.parquet")
    small = {"batch_size": 2, "data": str(own), "validation_puzzles": 3, "test_puzzles": 2}
    return {
        **FIELDS, "block_operators": ["mamba2", "axial", "symbols", "mlp"],
        "scan_orders": ["transposed-reversed"], "random_start": True, "noise_std": 0.1, "damping": 0.05,
        "corrupted_share": 0.25, "train_steps": 4, "validation_puzzles": 2, "test_puzzles": 2, "batch_size": 3,
        "other_sizes": {4: small},
    }  # fmt: skip


def test_a_run_of_two_sizes_tells_of_each_and_resumes_bit_for_bit(write_recipe, fields, tmp_path: Path, capsys):
    fields |= {"checkpoint_every": 2}
    assert train.main([str(write_recipe("whole", **fields))]) == 0
    recipe, whole, parts = str(write_recipe("parts", **fields)), tmp_path / "whole", tmp_path / "parts"
    told = capsys.readouterr().out
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "step-00000004")
    assert train.main([recipe]) == 0
    assert "step-00000002, after step 2" in capsys.readouterr().out
    weights, resumed = (load_file(run / "checkpoints/step-00000004/model.safetensors") for run in (whole, parts))
    assert weights["lm_head.weight"].shape == (3, 32)
    for name, value in weights.items():
        assert torch.equal(resumed[name], value), name

    metrics = json.loads((whole / "metrics.json").read_text(encoding="utf-8"))
    test, small, made = metrics["evaluations"]["test"], metrics["evaluations"]["4x4"], whole / "test-4x4.parquet"
    assert (test["count"], small["count"]) == (2, 2)
    assert "--side" not in test["command"]
    assert "--side 4 " in small["command"] and f"--data {made}" in small["command"]
    assert f"test puzzles held out: {made}" in told
    data = open_data(parse_recipe([recipe]))
    assert metrics["flops"] == 4 * data.step_flops(TRMConfig.from_pretrained(whole / "model"))
    assert metrics["train"]["training data"] == " ".join(one.stream.puzzles.fingerprint for one in data.of_each_size)
    train_facts = metrics["train"]
    assert train_facts["training puzzles, 4x4"] == 193  # of 198, two and three held out
    assert train_facts["training puzzles"] == len(data.stream.puzzles) + 193
    rows = data.others[0].stream.questions
    assert count_trained_on(rows, metrics["trained_on"])[0] == len(rows) == 193
    results = yaml.safe_load((whole / "model/README.md").read_text().split("---")[1])["model-index"][0]["results"]
    assert [one["dataset"]["name"] for one in results] == [test["dataset"], small["dataset"]]
    last = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()][-2]
    assert last["eval"]["count"] == 2 and last["others"]["4x4"]["count"] == 3


def test_each_bucket_has_its_rows_and_numbers(write_recipe, fields):
    recipe = parse_recipe([str(write_recipe("run", **fields))])
    data, model = open_data(recipe), frozen_step(FIELDS).model
    own, small = open_buckets(Accelerator(cpu=True), model, data, lambda step: 0.0)
    assert own.numbers.tolist() == [0, 1, 2] and small.numbers.tolist() == [3, 4]
    assert (own.feed.batch_size, small.feed.batch_size) == (3, 2)
    assert own.slots.inputs.shape == (3, 81) and small.slots.inputs.shape == (2, 16)
    assert small.feed(1)[0].shape == (2, 16)
    small.feed.close()


def test_defaults_of_several_sizes_are_the_most_careful():
    easy, hard = ReasoningConfig(max_steps=4, halt=0.6), ReasoningConfig(max_steps=9, halt=0.8)
    assert most_careful([easy, hard], 16) == hard
    assert most_careful([easy, ReasoningConfig()], 16) == ReasoningConfig(max_steps=16, halt=False)


def test_the_best_weights_are_those_of_the_best_mean_over_the_sizes(write_recipe, fields, monkeypatch):
    recipe = parse_recipe([str(write_recipe("run", **fields)), "--train_steps", "2", "--eval_every", "1"])
    data = open_data(recipe)
    torch.manual_seed(0)
    trainer = Trainer(recipe, initial_model(recipe, data.processor), data)
    accuracy = {2: iter([0.5, 0.6]), 3: iter([0.5, 0.3])}  # by the number of validation puzzles: 9x9, 4x4

    def score(puzzles):
        share = next(accuracy[len(puzzles)])
        return {"exact_accuracy": share, "exact_accuracy_ci95": (0.0, 1.0), "cell_accuracy": 0.5, "count": len(puzzles)}

    monkeypatch.setattr(trainer, "_score", score)
    trainer.train()
    trainer.close()
    assert trainer.progress["best"]["step"] == 1 and trainer.progress["best"]["exact_accuracy"] == 0.5


def test_a_planned_run_has_time_for_the_puzzles_of_each_size(write_recipe, fields, monkeypatch):
    recipe = parse_recipe([str(write_recipe("run", **fields)), "--train_steps", "null", "--train_minutes", "1"])
    data, step = open_data(recipe), frozen_step(FIELDS)
    monkeypatch.setattr(planning, "_measure_evaluation", lambda step, recipe, data: float(data.processor.seq_len))
    costs = planning.measure_costs(step, recipe, data, 0.0)
    step.close()
    assert costs.evaluation == 2 * 81 + 3 * 16 and costs.final == 2 * 81 + 2 * 16


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"four": {"batch_size": 2}}, "other_sizes: four: side='four'; allowed: a whole number"),
        ({0: {"batch_size": 2}}, "other_sizes: 0: side=0; allowed: 1 or more"),
        ({4: 2}, "other_sizes: 4: expected {batch_size: puzzles a step, data: their file, ...}"),
        ({4: {"data": "x"}}, "other_sizes: 4: expected {batch_size: puzzles a step"),
        ({4: {"batch_size": 0}}, "other_sizes: 4: batch_size=0; allowed: 1 or more"),
        ({4: {"batch_size": None}}, "other_sizes: 4: expected {batch_size: puzzles a step"),
        (
            {4: {"batch_size": 2, "seed": 2}},
            "other_sizes: 4: 'seed' is not said of one size; allowed: batch_size",
        ),
        ({4: {"batch_size": 2, "data": "gone.csv"}}, "other_sizes: 4: --data 'gone.csv'"),
        ({16: {"batch_size": 2, "validation_puzzles": None}}, "validation_puzzles: 16x16 has none, other sizes do"),
        ({9: {"batch_size": 2}}, "the run's own puzzles, 9x9, have as many cells"),
        ({8: {"batch_size": 2}}, "other_sizes: 8: "),
    ],
)
def test_what_cannot_be_trained_beside_is_named(write_recipe, stated, message, refused, tmp_path):
    assert message in refused(train.main, [str(write_recipe("run", **FIELDS, other_sizes=stated))])
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_model_of_one_size_and_a_batch_that_does_not_divide_are_refused(write_recipe, fields, refused):
    message = refused(train.main, [str(write_recipe("run", other_sizes={16: {"batch_size": 2}}))])
    assert "other_sizes: the model does not answer grids of 16x16" in message and "only a model with" in message
    assert "other_sizes: 4x4: batch_size=2 must be a multiple of the 1 processes and leave each at least" in refused(
        train.main, [str(write_recipe("run", **fields)), "--gradient_accumulation", "3"]
    )


def test_the_flops_of_a_step_are_those_of_all_sizes(write_recipe, fields):
    """As a run counts them, and as `trm compare-recipes` shares them out."""
    recipe = write_recipe("run", **fields)
    contender = read_contender(str(recipe), [])
    small = resized(contender.config, GridProcessor("sudoku", grid_shape=(4, 4)))
    assert small.num_symbols == 4 and small.seq_len == 16
    wanted = 3 * training_flops(contender.config) + 2 * training_flops(small)
    assert contender.flops_a_step == contender.data.step_flops(contender.config) == wanted
