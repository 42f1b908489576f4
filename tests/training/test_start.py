"""The model that a run starts with: new, or a checkpoint whose puzzle table is made to fit the run's tasks."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from modeling_trm import GridProcessor, TRMConfig, TRMForGridReasoning
from modeling_trm.evaluation.trained_on import count_trained_on, hashes_kept
from modeling_trm.puzzle_index_trm import PuzzleIndex
from modeling_trm.training.arguments import RunArguments, parse_recipe
from modeling_trm.training.optimisers import build_optimisers
from modeling_trm.training.start import OF_A_RUN, initial_model, past_of

RUN = {field.name for field in dataclasses.fields(RunArguments)}
PROCESSOR = GridProcessor("sudoku", grid_shape=(4, 4))


def index_of(**dihedrals_of_task: list[int]) -> PuzzleIndex:
    """An index whose tasks have these dihedral maps, with the colours as they are."""
    tasks = tuple(dihedrals_of_task)
    rows = [(-1, 0)] + [(number, d) for number, task in enumerate(tasks) for d in dihedrals_of_task[task]]
    augmentations = np.array([[d, *range(10)] for _, d in rows], dtype=np.uint8)
    return PuzzleIndex(tasks, np.array([task for task, _ in rows], dtype=np.int32), augmentations)


@pytest.fixture
def checkpoint(tiny_model: Callable[..., TRMForGridReasoning], tmp_path: Path) -> Path:
    """A folder of a model whose table knows task a under maps 0 and 3, and b under map 0."""
    model = tiny_model("trm-attn", num_puzzles=4)
    model.set_puzzle_index(index_of(a=[0, 3], b=[0]))
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("started", [False, True])
def test_kernels_are_chosen_by_the_run(started: bool, checkpoint, write_recipe):
    path = write_recipe("run", ssd_backend="torch", attention_backend="flash")
    if started:  # a checkpoint brings its architecture, not its kernels
        content = {name: value for name, value in yaml.safe_load(path.read_text()).items() if name in RUN}
        path.write_text(yaml.safe_dump(content | {"start_from": str(checkpoint), "task": "grid"}))
    recipe = parse_recipe([str(path), "--attention_backend", "math"])
    config = initial_model(recipe, PROCESSOR).config
    chosen = {"ssd_backend": "torch", "attention_backend": "math", "mlp_t_backend": "auto"}
    assert {name: vars(config)[name] for name in chosen} == chosen == recipe.run.kernels()


def test_a_new_model_is_a_function_of_the_seed(write_recipe):
    recipe = parse_recipe([str(write_recipe("run"))])
    one, two = (initial_model(recipe, PROCESSOR, index_of(a=[0, 1])).state_dict() for _ in range(2))
    assert one["model.puzzle_emb.weight"].shape[0] == 3
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("preset", "objective"), [("trm-attn", "dis"), ("compact", "act")])
def test_a_checkpoint_made_for_another_objective_is_refused(preset, objective, tiny_model, write_recipe, tmp_path):
    tiny_model(preset, num_puzzles=1).save_pretrained(tmp_path / "checkpoint")
    fields = {"start_from": str(tmp_path / "checkpoint"), "objective": objective, "task": "grid"}
    recipe = write_recipe("run", **fields)
    content = yaml.safe_load(recipe.read_text())
    kept = {name: value for name, value in content.items() if name not in TRMConfig.__annotations__}
    recipe.write_text(yaml.safe_dump(kept))
    other = "act" if objective == "dis" else "dis"
    with pytest.raises(
        ValueError, match=f"objective='{objective}' does not fit .* is trained with objective='{other}'"
    ):
        initial_model(parse_recipe([str(recipe)]), PROCESSOR)


def test_rows_that_the_checkpoint_knows_are_kept_and_the_others_start_at_its_mean_row(checkpoint):
    model = TRMForGridReasoning.from_pretrained(checkpoint)
    before = model.model.puzzle_emb.weight.detach().clone()
    index = index_of(**{"c": [0, 5], "of a file/a": [3, 0, 7]})
    model.adopt_tasks(index)
    mean = before[1:].mean(0)
    # blank, c twice new, a under map 3 (row 2), under map 0 (row 1), under a map that the table lacks
    expected = torch.stack([before[0], mean, mean, before[2], before[1], mean])
    assert torch.equal(model.model.puzzle_emb.weight, expected)
    assert model.config.num_puzzles == 6 and model.puzzle_index.fingerprint == index.fingerprint


def test_a_run_from_a_checkpoint_has_its_core_and_the_runs_tasks(checkpoint):
    recipe = parse_recipe(["--start_from", str(checkpoint), "--task", "sudoku"])
    model = initial_model(recipe, PROCESSOR, index_of(new=[0, 1]))
    saved = TRMForGridReasoning.from_pretrained(checkpoint)
    for name, value in saved.state_dict().items():
        if name != "model.puzzle_emb.weight":
            assert torch.equal(model.state_dict()[name], value), name
    assert model.puzzle_index.tasks == ("new",) and model.training


def test_a_recipe_may_repeat_the_checkpoints_architecture(checkpoint):
    config = TRMForGridReasoning.from_pretrained(checkpoint).config
    same = ["--start_from", str(checkpoint), "--preset", "trm-attn", "--hidden_size", str(config.hidden_size)]
    model = initial_model(parse_recipe(same), PROCESSOR)
    assert model.config.block_operators == config.block_operators


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "hidden_size",
            "64",
            r"the recipe says hidden_size=64, but the checkpoint start_from='.*' has hidden_size=\d+",
        ),
        (
            "preset",
            "trm-mlp-t",
            r"preset='trm-mlp-t' says block_operators=\['mlp_t', .* has block_operators=\['attention",
        ),
        ("preset", "trm-atn", "did you mean 'trm-attn'"),
    ],
)
def test_another_architecture_than_the_checkpoints_is_refused_with_both_values(checkpoint, field, value, message):
    with pytest.raises(ValueError, match=message):
        initial_model(parse_recipe(["--start_from", str(checkpoint), f"--{field}", value]), PROCESSOR)


def test_a_checkpoint_in_bf16_is_trained_in_float32(checkpoint):
    """Its updates would round away: a hundredth of a step at the end of a schedule is less than bf16 can show."""
    TRMForGridReasoning.from_pretrained(checkpoint).bfloat16().save_pretrained(checkpoint)
    model = initial_model(parse_recipe(["--start_from", str(checkpoint)]), PROCESSOR)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_without_an_index_the_checkpoint_is_taken_as_it_is(checkpoint):
    model = initial_model(parse_recipe(["--start_from", str(checkpoint)]), PROCESSOR)
    assert model.puzzle_index.tasks == ("a", "b")


def test_a_checkpoint_for_other_grids_is_refused(checkpoint):
    recipe = parse_recipe(["--start_from", str(checkpoint)])
    with pytest.raises(ValueError, match="its config has vocab_size=6, but 'sudoku' puzzles need vocab_size=11"):
        initial_model(recipe, GridProcessor("sudoku"))


def test_a_checkpoint_with_symbol_fields_goes_on_at_the_size_of_the_puzzles(tiny_model, tmp_path):
    tiny_model("symbols-attn", vocab_size=11, seq_len=81).save_pretrained(tmp_path)
    model = initial_model(parse_recipe(["--start_from", str(tmp_path)]), PROCESSOR)
    assert (model.config.vocab_size, model.config.seq_len) == (6, 16)
    assert model.initial_state(1).z_H.shape == (1, 4, 18, 32)


def test_an_inductive_run_does_not_start_from_a_checkpoint_that_knows_its_tests(checkpoint):
    recipe = parse_recipe(["--start_from", str(checkpoint)])
    initial_model(recipe, PROCESSOR, index_of(x=[0]), held_out=["evaluation/c"])
    with pytest.raises(ValueError, match=r"trained on 1 tasks that the inductive protocol holds out.*'evaluation/b'"):
        initial_model(recipe, PROCESSOR, index_of(x=[0]), held_out=["evaluation/c", "evaluation/b"])


def test_loss_on_blanks_needs_a_checkpoint_that_knows_blanks(checkpoint):
    recipe = parse_recipe(["--start_from", str(checkpoint), "--loss_on", "blanks"])
    with pytest.raises(ValueError, match="blank_token_id is not set"):
        initial_model(recipe, PROCESSOR)


def test_a_checkpoint_without_a_table_cannot_take_tasks(tiny_model):
    model = tiny_model("trm-attn", puzzle_prefix_len=0, num_puzzles=1)
    with pytest.raises(ValueError, match="puzzle_prefix_len=0: the model has no puzzle table"):
        model.adopt_tasks(index_of(a=[0]))


def test_training_the_table_alone_leaves_the_core(checkpoint):
    recipe = parse_recipe(["--start_from", str(checkpoint), "--train_only", "puzzle_table", "--puzzle_lr", "0.01"])
    model = initial_model(recipe, PROCESSOR, index_of(new=[0, 1]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (optimiser,) = build_optimisers(model, recipe.optimisation)
    ids = torch.randint(1, 6, (3, 16))
    model(ids, puzzle_ids=torch.tensor([1, 2, 1]), labels=ids).loss.backward()
    optimiser.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"model.puzzle_emb.weight"}
    assert torch.equal(model.model.puzzle_emb.weight[0], before["model.puzzle_emb.weight"][0])


def test_a_model_of_several_sizes_becomes_one_of_the_runs_size(tiny_model, tmp_path):
    fields = {"vocab_size": 6, "seq_len": 16, "block_operators": ["conv2d", "mlp"], "position_embedding": "none"}
    small = tiny_model("trm-attn", num_puzzles=1, grid_width=8, **fields)
    small.save_pretrained(tmp_path / "small")
    GridProcessor("maze", (2, 8)).save_pretrained(tmp_path / "small")
    recipe = parse_recipe(["--task", "maze", "--start_from", str(tmp_path / "small")])
    model, ids = initial_model(recipe, GridProcessor("maze", (7, 7))).eval(), torch.ones(1, 49, dtype=torch.long)
    assert (model.config.seq_len, model.config.grid_width) == (49, None)
    assert torch.equal(model(ids).logits, small.eval()(ids).logits)
    model.save_pretrained(tmp_path / "large")
    assert TRMForGridReasoning.from_pretrained(tmp_path / "large").config.seq_len == 49
    # One that is bound to its size says so, as everywhere.
    tiny_model("trm-attn", num_puzzles=1, vocab_size=6, seq_len=16).save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="not for 49: only a model with symbol_fields"):
        initial_model(recipe, GridProcessor("maze", (7, 7)))


def test_what_a_checkpoint_had_learnt_before_is_told_by_its_metrics(tmp_path):
    assert past_of(None) == past_of(str(tmp_path)) == ([], {})
    (tmp_path / "config.json").write_text("{}")
    own = {name: f"{name} of the second" for name in OF_A_RUN if name != "train"} | {"train": {}}
    metrics = own | {"recipe": {}, "versions": {}, "evaluations": {}, "before": [own | {"command": "the first"}]}
    rows = np.arange(30, dtype=np.uint8).reshape(3, 10)
    for kept, expected in ((hashes_kept(rows, {}), hashes_kept(rows, {})), ("no hashes!", None), ({"81": "é"}, None)):
        (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"trained_on": kept}))
        runs, seen = past_of(str(tmp_path))
        assert ([run["command"] for run in runs], seen) == (
            ([], {}) if expected is None else (["the first", "command of the second"], expected)
        )
    both = hashes_kept(rows + 1, hashes_kept(rows, {}))
    assert count_trained_on(np.concatenate((rows, rows + 1, rows + 2)), both) == (6, True)
