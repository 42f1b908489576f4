"""scripts/eval_puzzles.py by voting: from a checkpoint with a puzzle table to the report, in shards and processes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_builders.arc_build import build_arc
from datasets_builders.arc_folder import write_arc_folder
from datasets_builders.arc_set import ArcOptions
from datasets_builders.arc_tasks import ArcTask, load_tasks, parse_task
from modeling_trm import GridProcessor
from modeling_trm.arc_augmentation_trm import draw_augmentations
from modeling_trm.puzzle_index_trm import PuzzleIndex
from modeling_trm.voting.records import load_records
from modeling_trm.voting.submission import read_submission
from scripts import eval_puzzles
from tests.two_processes import run_in_two

GRIDS = [[[1, 2], [3, 4]], [[0, 5]], [[6], [7], [0]]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three official task files, one of them with two test inputs and one without its answer."""
    folder = tmp_path / "official" / "evaluation"
    folder.mkdir(parents=True)
    for number, grid in enumerate(GRIDS):
        pair = {"input": grid, "output": grid}
        tests = [pair] * (1 + (number == 1)) if number < 2 else [{"input": grid}]
        (folder / f"task{number}.json").write_text(json.dumps({"train": [pair], "test": tests}), encoding="utf-8")
    return tmp_path / "official"


@pytest.fixture
def checkpoint(tiny_model, tmp_path: Path, data: Path) -> Callable[..., str]:
    """checkpoint(known): a model on a 4 x 4 canvas whose table has rows for the first `known` tasks."""

    def make(known: int = 3, processor: GridProcessor | None = None, tasks: list[ArcTask] | None = None) -> str:
        processor = processor or GridProcessor("arc", grid_shape=(4, 4))
        tasks = (tasks or load_tasks("evaluation", data_dir=data))[:known]
        parts = [draw_augmentations(task, 4, seed=0) for task in tasks]
        rows = np.concatenate([np.array([[0, *range(10)]], dtype=np.uint8), *parts])
        numbers = np.repeat(np.arange(known), [len(part) for part in parts])
        names = tuple(f"{task.subset}/{task.id}" for task in tasks)
        sizes = {"vocab_size": processor.vocab_size, "seq_len": processor.seq_len, "L_cycles": 1}
        torch.manual_seed(0)
        model = tiny_model("trm-mlp-t", **sizes, num_puzzles=len(rows))
        model.set_puzzle_index(PuzzleIndex(names, np.concatenate([[-1], numbers]).astype(np.int32), rows))
        folder = tmp_path / f"model{known}"
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return str(folder)

    return make


def run(output: Path, *arguments: str) -> dict | None:
    common = ["--task", "arc", "--device", "cpu", "--max-steps", "1", "--output", str(output)]
    assert eval_puzzles.main([*common, *arguments]) == 0
    report = output / "report.json"
    return json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None


def test_report_of_a_checkpoint_that_knows_the_tasks(checkpoint, data: Path, tmp_path: Path, capsys) -> None:
    report = run(tmp_path / "out", "--model", checkpoint(), "--data", str(data))
    assert report["protocol"] == "transductive"
    assert (report["counts"]["tasks"], report["counts"]["inputs"]) == (3, 4)
    assert report["counts"]["inputs_without_reference"]
    assert "pass@2" in report["pass_at_k"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"records", "report.json", "report.md", "plots", "submission.json"} <= names
    submission = json.loads((tmp_path / "out" / "submission.json").read_text(encoding="utf-8"))
    assert len(submission) == 3
    shown = capsys.readouterr().out
    assert "protocol: transductive" in shown and "have no row" not in shown
    assert "pass@2" in shown and "95 % interval" in shown
    manifest = load_records(tmp_path / "out" / "records").manifest
    assert manifest["num_views"] == 5
    assert manifest["command"].startswith("trm vote --task arc")
    assert "torch" in manifest["versions"]


def test_protocol_of_unknown_tasks_and_fewer_views(checkpoint, data: Path, tmp_path: Path, capsys) -> None:
    common = ["--data", str(data), "--max-augmentations", "2"]
    mixed = run(tmp_path / "mixed", "--model", checkpoint(1), *common)
    assert mixed["protocol"] == "mixed: 1 of 3 tasks are in the puzzle table"
    assert mixed["counts"]["votes"] == 2 * 4
    assert "note: 2 of 3 tasks have no row in the checkpoint's puzzle table" in capsys.readouterr().out
    one = run(tmp_path / "one", "--model", checkpoint(1), *common, "--max-puzzles", "1", "--halt")
    assert one["counts"]["tasks"] == 1


def test_a_built_folder_names_its_protocol(checkpoint, data: Path, tmp_path: Path, capsys) -> None:
    """Its test tasks are asked; what the checkpoint's table says about them goes before what the folder says."""
    random = np.random.RandomState(0)
    subsets = {}
    for subset in ("training", "evaluation"):
        grids = [random.randint(1, 10, (4, 3)).tolist() for _ in range(2)]
        task = {"train": [{"input": grids[0], "output": grids[1]}], "test": [{"input": grids[1], "output": grids[0]}]}
        subsets[subset] = [parse_task(task, f"{subset}0", subset, "test")]
    options = ArcOptions(("training",), protocol="inductive", num_augmentations=2, validation_tasks=0)
    write_arc_folder(build_arc(subsets, options), tmp_path / "built")
    arguments = ["--data", str(tmp_path / "built"), "--max-augmentations", "2"]
    report = run(tmp_path / "out", "--model", checkpoint(), *arguments)
    assert report["protocol"] == "inductive"
    assert [item["task_id"] for item in report["inputs"]] == ["evaluation/evaluation0"]
    model = checkpoint(1, tasks=subsets["evaluation"])
    assert run(tmp_path / "known", "--model", model, *arguments)["protocol"] == "transductive"
    assert "the data folder says inductive; the checkpoint's puzzle table decides" in capsys.readouterr().out
    assert run(tmp_path / "none", "--model", checkpoint(0), *arguments)["protocol"] == "inductive"
    assert run(tmp_path / "no", "--model", checkpoint(0), "--data", str(data))["protocol"] == "unstated"


def test_a_task_larger_than_the_canvas_is_left_out_and_named(
    checkpoint, data: Path, tmp_path: Path, capsys, refused
) -> None:
    """Whether its demonstrations or its tests are; and --max-puzzles counts what can be asked."""
    model, wide, small = checkpoint(), [[0] * 5], [[1]]
    big = {"train": [{"input": small, "output": small}], "test": [{"input": wide}, {"input": small}]}
    grows = {"train": [{"input": small, "output": wide}], "test": [{"input": small}]}
    for name, task in (("big", big), ("grows", grows)):
        (data / "evaluation" / f"{name}.json").write_text(json.dumps(task), encoding="utf-8")
    report = run(tmp_path / "out", "--model", model, "--data", str(data), "--views", "1")
    assert report["counts"]["tasks"] == 3 and report["protocol"] == "transductive"
    assert "2 tasks are larger than the canvas of 4 x 4: not attempted" in capsys.readouterr().out
    submission = read_submission(tmp_path / "out" / "submission.json")
    for name, tests in (("big", 2), ("grows", 1)):
        assert submission[name] == [{"attempt_1": [[0]], "attempt_2": [[0]]}] * tests
    few = run(tmp_path / "few", "--model", model, "--data", str(data), "--views", "1", "--max-puzzles", "3")
    assert few["counts"]["tasks"] == 3
    for path in (data / "evaluation").glob("task*"):
        path.unlink()
    assert "no task fits the checkpoint's canvas of 4 x 4" in refused(
        run, tmp_path / "none", "--model", model, "--data", str(data), "--views", "1"
    )


def test_kaggle_files(checkpoint, tmp_path: Path) -> None:
    pair = {"input": GRIDS[0], "output": GRIDS[0]}
    challenges = tmp_path / "arc_evaluation_challenges.json"
    challenges.write_text(json.dumps({"task0": {"train": [pair], "test": [{"input": GRIDS[0]}]}}), encoding="utf-8")
    arguments = ["--model", checkpoint(), "--data", str(challenges)]
    assert run(tmp_path / "secret", *arguments)["pass_at_k"] == {}
    challenges.with_name("arc_evaluation_solutions.json").write_text(
        json.dumps({"task0": [GRIDS[0]]}), encoding="utf-8"
    )
    assert "pass@1" in run(tmp_path / "solved", *arguments)["pass_at_k"]


def test_shards_say_what_is_missing_and_the_last_one_reports(checkpoint, data: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--model", checkpoint(), "--data", str(data), "--max-augmentations", "80"]
    for number in range(3):  # tasks that the table lacks, so that there are more items than one chunk holds
        path = data / "evaluation" / f"new{number}.json"
        path.write_text((data / "evaluation" / "task0.json").read_text(encoding="utf-8"), encoding="utf-8")
    whole = run(tmp_path / "whole", *arguments)
    assert run(tmp_path / "out", *arguments, "--shard", "1/2") is None
    shown = capsys.readouterr().out
    assert "chunks of votes are done" in shown and "trm vote report" in shown
    assert run(tmp_path / "out", *arguments, "--shard", "0/2")["pass_at_k"] == whole["pass_at_k"]
    one, other = load_records(tmp_path / "out" / "records"), load_records(tmp_path / "whole" / "records")
    assert np.array_equal(one.grid_of_vote, other.grid_of_vote)
    assert np.array_equal(one.halt_probability, other.halt_probability)


@pytest.mark.slow
def test_two_processes_write_the_records_of_one(checkpoint, data: Path, tmp_path: Path) -> None:
    arguments = ["--model", checkpoint(1), "--data", str(data), "--max-augmentations", "60"]
    whole = run(tmp_path / "whole", *arguments)
    options = ["--task", "arc", "--device", "cpu", "--max-steps", "1", "--output", str(tmp_path / "two")]
    done = run_in_two("scripts.eval_puzzles", *options, *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "two" / "report.json").read_text(encoding="utf-8"))
    assert report["pass_at_k"] == whole["pass_at_k"]
    assert report["inputs"] == whole["inputs"]
    assert done.stdout.count("written:") == 1


def test_sudoku_by_voting(tiny_model, tmp_path: Path, capsys) -> None:
    processor = GridProcessor("sudoku")
    model = tiny_model("trm-mlp-t", vocab_size=11, seq_len=81, num_puzzles=1, L_cycles=1, blank_token_id=1)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    common = ["--model", str(tmp_path / "model"), "--task", "sudoku", "--max-steps", "1", "--max-puzzles", "5"]
    assert eval_puzzles.main([*common, "--max-augmentations", "3", "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["counts"]["votes"] == 15
    assert "protocol" not in capsys.readouterr().out
    assert eval_puzzles.main([*common, "--max-augmentations", "1", "--output", str(tmp_path / "plain")]) == 0
    assert (tmp_path / "plain" / "metrics.json").is_file()


def test_user_errors_are_one_line_each(checkpoint, data: Path, tmp_path: Path, refused) -> None:
    model, sudoku = checkpoint(), checkpoint(2, GridProcessor("sudoku", grid_shape=(4, 4)))
    arc = ["--task", "arc", "--data", str(data)]
    used = tmp_path / "used"
    run(used, "--model", model, "--data", str(data))
    cases = [
        (["--model", sudoku, *arc], "was made for task 'sudoku', not for --task 'arc'"),
        (["--model", model, *arc, "--shard", "2/2"], "--shard '2/2' must be I/N with 0 <= I < N"),
        (["--model", model, *arc, "--max-augmentations", "0"], "--views must be at least 1, got 0"),
        (["--model", model, "--task", "arc", "--split", "train"], "arc's pairs without votes need --data"),
        (["--model", model, *arc, "--split", "train", "--max-augmentations", "2"], "arc votes on its test inputs"),
        (["--model", sudoku, "--task", "sudoku", "--shard", "0/2"], "--views says how many views of a puzzle vote"),
        (["--model", model, "--task", "arc", "--data", "nowhere"], "--data 'nowhere': no such file or folder"),
        (["--model", model, *arc, "--subset", "training"], "has no subset 'training'"),
        (["--model", model, *arc, "--max-steps", "3", "--output", str(used)], "its max_steps is 1, this one's 3"),
        (
            ["--model", model, *arc, "--max-steps", "1", "--precision", "bfloat16", "--output", str(used)],
            "its precision is 'float32', this one's 'bfloat16'",
        ),
    ]
    for arguments, message in cases:
        shown = refused(eval_puzzles.main, ["--output", str(tmp_path / "out"), *arguments])
        assert message in shown and "error: " in shown, arguments
    assert not (tmp_path / "out").exists()
