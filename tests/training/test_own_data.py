"""`trm train RECIPE --data FILE`: in place of whatever the recipe says, with the splits that the file does not have."""

import json
import os
import shlex

import pytest
import torch
import yaml
from pyarrow import csv, parquet

from datasets_builders.features import load_puzzles, load_training_puzzles
from datasets_builders.run_splits import load_run_splits
from modeling_trm.commands import evaluate, train, trm
from modeling_trm.training import threads
from modeling_trm.training.arguments import parse_recipe
from modeling_trm.training.data import open_data


def rows_of(puzzles):
    return set(map(bytes, puzzles.inputs))


@pytest.fixture
def own(tmp_path):
    """own(count) -> a csv file of so many puzzles, whose name says no split."""

    def write(count, name="my"):
        path = tmp_path / f"{name}.csv"
        csv.write_csv(load_puzzles("sudoku", "train").to_table().slice(0, count), path)
        return str(path)

    return write


def test_missing_splits_are_made_and_said(own):
    splits = load_run_splits("sudoku", validation_puzzles=3, data_files=own(40))
    parts = splits.training, splits.validation, splits.test
    assert [len(part) for part in parts] == [33, 3, 4]
    assert len(set.union(*map(rows_of, parts))) == 40  # no puzzle is in two
    assert splits.notes == (
        "the data have no test split: 4 of 40 puzzles are held out for it",
        "the data have no validation split: 3 of 40 puzzles are held out for it",
    )
    again = load_run_splits("sudoku", validation_puzzles=3, data_files=own(40))
    assert again.training.fingerprint == splits.training.fingerprint
    other = load_run_splits("sudoku", validation_puzzles=3, data_files=own(40), seed=1)
    assert other.training.fingerprint != splits.training.fingerprint


def test_a_puzzle_that_a_file_holds_twice_is_in_one_split_alone(own, tmp_path, caplog):
    twice = tmp_path / "twice.csv"
    with open(own(40), encoding="utf-8") as file:
        header, *rows = file.read().splitlines()
    twice.write_text("\n".join([header, *rows, *rows[:30]]), encoding="utf-8")
    splits = load_run_splits("sudoku", validation_puzzles=3, data_files=str(twice))
    parts = splits.training, splits.validation, splits.test
    assert [len(part) for part in parts] == [33, 3, 4] and len(set.union(*map(rows_of, parts))) == 40
    assert caplog.messages == [f"files {twice.name}: 30 of 70 rows repeat a puzzle: left out"]
    files = {"train": str(twice), "test": own(5, "test")}
    training, validation = load_training_puzzles("sudoku", validation_puzzles=4, data_files=files)
    assert len(training) == 36 and not rows_of(training) & rows_of(validation)


def test_splits_that_are_there_are_taken(tmp_path):
    for split, count in (("train", 20), ("validation", 6), ("test", 5)):
        csv.write_csv(load_puzzles("sudoku", split).to_table().slice(0, count), tmp_path / f"{split}.csv")
    for at_most in (False, True):
        splits = load_run_splits("sudoku", validation_puzzles=4, data_dir=tmp_path, at_most=at_most)
        assert (len(splits.training), len(splits.validation), splits.test, splits.notes) == (20, 4, None, ())
    assert load_run_splits("sudoku", data_dir=tmp_path).validation is None


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_puzzles_are_refused(own, count):
    with pytest.raises(ValueError, match=f"my.csv: {count} puzzles are too few to train, validate and test with"):
        load_run_splits("sudoku", validation_puzzles=3, data_files=own(count))


def test_what_the_data_do_not_have_gives_way_and_is_said(own):
    """A recipe for the benchmark: 1,000 puzzles, 2,048 for validation, of sources that the file has not."""
    weights = ["--source_weights", "{gen_unbiased: 1, elsewhere: 2}"]
    data = open_data(parse_recipe(["sudoku-trm-mlp-t", "--data", own(60), *weights]))
    assert len(data.stream) == 48 and len(data.validation) == 6 and len(data.load_test()) == 6
    assert data.made_test == "test.parquet"
    assert data.stream.source_weights == {"gen_unbiased": 1}
    assert data.notes[2:] == (
        "subset=1,000 is more than there is: all 48 training puzzles are taken",
        "source_weights names elsewhere, not in these data: the others keep theirs",
    )
    alike = open_data(parse_recipe(["quickstart", "--data", own(60), "--source_weights", "{elsewhere: 2}"]))
    assert alike.stream.source_weights is None and alike.notes[-1].endswith("every puzzle is drawn alike")


def test_data_that_a_recipe_names_by_another_field_must_suffice(own):
    with pytest.raises(ValueError, match="subset=1000"):
        open_data(parse_recipe(["sudoku-trm-mlp-t", "--data_files", json.dumps({"train": own(60)})]))


@pytest.mark.slow
def test_a_recipe_trains_on_ones_own_file(own, tmp_path, write_recipe, capsys):
    recipe = str(write_recipe("run", dataset="hub", subset=1000, validation_puzzles=None))
    assert train.main([recipe, "--data", own(60)]) == 0
    shown = capsys.readouterr().out
    assert "note:  the data have no test split: 6 of 60 puzzles are held out for it" in shown
    run = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert run["evaluations"]["test"]["count"] == 6
    made = tmp_path / "run" / "test.parquet"
    assert parquet.read_table(made).num_rows == 6 and f"--data {made}" in run["evaluations"]["test"]["command"]
    assert f"test puzzles held out: {made}" in shown
    evaluated = ["--model", str(tmp_path / "run" / "model"), "--max-steps", "1"]
    assert evaluate.main([*evaluated, "--data", own(60), "--output", str(tmp_path / "whole")]) == 0
    assert f"was trained on 54 of these 60 puzzles: the figures are not those of new ones; its run held out {made}" in (
        capsys.readouterr().err
    )
    assert evaluate.main([*evaluated, "--data", str(made), "--output", str(tmp_path / "held out")]) == 0
    assert "note:" not in capsys.readouterr().err
    assert run["command"] == f"trm train {recipe} --data {tmp_path / 'my.csv'}"
    assert run["recipe"]["data"] == str(tmp_path / "my.csv")
    assert "published step" not in run["train"]  # validation was switched off: the averaged weights are published
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["dataset"] == "hub"


@pytest.mark.parametrize("several", [False, True])
def test_the_command_on_the_card_reads_the_test_puzzles_as_the_run_did(several, tmp_path, write_recipe):
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation", "test", "more")}
    for split, count in (("train", 20), ("validation", 2), ("test", 3)):
        table = load_puzzles("sudoku", split).to_table().slice(0, count).select(["question", "answer"])
        csv.write_csv(table.rename_columns(["start", "end"]), files[split])
    csv.write_csv(table.slice(0, 2).rename_columns(["start", "end"]), files["more"])
    named = {split: files[split] for split in ("train", "validation", "test")}
    named |= {"test": [files["test"], files["more"]]} if several else {}
    read = {"data_files": named, "columns": {"question": "start", "answer": "end"}, "test_puzzles": 4 if several else 2}
    recipe = write_recipe("run", train_steps=2, eval_every=2, eval_max_steps=2, validation_puzzles=2, **read)
    assert train.main([str(recipe)]) == 0
    first = json.loads((tmp_path / "run/metrics.json").read_text(encoding="utf-8"))["evaluations"]["test"]
    assert trm.main(shlex.split(first["command"])[1:]) == 0
    second = json.loads((tmp_path / "run/again-plain/metrics.json").read_text(encoding="utf-8"))["evaluations"]["test"]
    assert (first["count"], first["fingerprint"]) == (second["count"], second["fingerprint"])


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}, 4),
        ({"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}, 1),
        ({"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "3"}, 1),
        ({"OMP_NUM_THREADS": "1"}, 1),  # said by the user, not by the launcher
    ],
)
@pytest.mark.parametrize("told", [b"", b"A=1\0OMP_NUM_THREADS=1\0"])
def test_the_one_thread_of_accelerate_launch_becomes_all_cores(monkeypatch, tmp_path, environment, expected, told):
    (tmp_path / "environ").write_bytes(told)
    monkeypatch.setattr(threads, "LAUNCHER", tmp_path / "environ")
    expected = 1 if told else expected  # whoever told the launcher is obeyed
    for name in ("ACCELERATE_MIXED_PRECISION", "OMP_NUM_THREADS", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        said = threads.use_all_cores()
        assert torch.get_num_threads() == expected
        assert bool(said) == (expected == 4)
        monkeypatch.setattr(threads, "LAUNCHER", tmp_path / "none")  # another system
        assert not threads._launcher_was_told()
    finally:
        torch.set_num_threads(before)
