"""The `datasets` builders, and the folder that scripts/build_datasets.py writes: loaded, streamed, or not there."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from datasets_builders import folder
from datasets_builders.features import load_puzzles
from datasets_builders.maze import Maze
from datasets_builders.sudoku import Sudoku
from scripts import build_datasets

ROOT = Path(__file__).parents[2]
COLUMNS = ["source", "question", "answer", "rating"]
QUESTION = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


@pytest.fixture
def build(capsys):
    """build(*arguments) -> (exit code, last line of stdout, stderr)."""

    def run(*arguments):
        try:
            code = build_datasets.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, (captured.out.splitlines() or [""])[-1], captured.err

    return run


def test_the_script_runs_as_a_file(tmp_path):
    command = [sys.executable, "scripts/build_datasets.py", "maze", "--output", str(tmp_path / "maze")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["rows"] == {"train": 900, "validation": 100, "test": 1000}


@pytest.mark.parametrize("builder_class", [Sudoku, Maze])
def test_builders_give_the_sample(tmp_path, builder_class):
    builder = builder_class(cache_dir=str(tmp_path))
    builder.download_and_prepare()
    loaded = builder.as_dataset()
    for split in ("train", "validation", "test"):
        puzzles = load_puzzles(builder.TASK, split)
        assert loaded[split].column_names == COLUMNS
        assert load_puzzles(builder.TASK, split, dataset=loaded).fingerprint == puzzles.fingerprint
    streamed = next(iter(builder.as_streaming_dataset(split="test")))
    assert streamed == loaded["test"][0]


def test_a_builder_writes_parquet_and_takes_subsets(tmp_path):
    builder = Sudoku(cache_dir=str(tmp_path / "cache"), subset=100, seed=3)
    builder.download_and_prepare(str(tmp_path / "out"), file_format="parquet")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "out" / "sudoku-train.parquet"), cache_dir=str(tmp_path))
    expected = load_puzzles("sudoku", "train", subset=100, seed=3)
    assert load_puzzles("sudoku", "train", dataset=loaded).fingerprint == expected.fingerprint


def test_the_cache_knows_what_was_asked_for(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text(f"question,answer\n{QUESTION},{ANSWER}\n")
    asked = [{}, {"subset": 10}, {"subset": 10, "seed": 1}, {"data_files": str(file)}]
    places = [Sudoku(cache_dir=str(tmp_path / "c"), **arguments).cache_dir for arguments in asked]
    file.write_text(f"question,answer\n{QUESTION},{ANSWER}\n{QUESTION},{ANSWER}\n")
    builder = Sudoku(cache_dir=str(tmp_path / "c"), data_files=str(file))
    assert len({*places, builder.cache_dir}) == 5
    builder.download_and_prepare()
    assert {split: len(rows) for split, rows in builder.as_dataset().items()} == {"train": 2}


@pytest.mark.parametrize("task", ["sudoku", "maze"])
def test_a_built_folder_loads_and_streams_offline(build, tmp_path, task):
    output = tmp_path / "out" / task
    code, last, error = build(task, "--output", output, "--subset", 50)
    assert code == 0, error
    assert json.loads(last)["rows"]["train"] == 50
    loaded = datasets.load_dataset(str(output), cache_dir=str(tmp_path / "cache"))
    assert sorted(loaded) == ["test", "train", "validation"]
    streamed = datasets.load_dataset(str(output), split="test", streaming=True)
    assert next(iter(streamed)) == loaded["test"][0]
    expected = load_puzzles(task, "train", subset=50)
    assert load_puzzles(task, "train", data_dir=output).fingerprint == expected.fingerprint
    assert load_puzzles(task, "train", dataset=str(output)).fingerprint == expected.fingerprint
    summary = json.loads((output / "summary.json").read_text())
    assert summary["splits"]["train"]["fingerprint"] == expected.fingerprint
    card = (output / "README.md").read_text()
    for text in ("configs:", "license: apache-2.0", "subset 50", expected.fingerprint, "gen_", "generated for this"):
        assert text in card
    assert sorted(file.name for file in output.parent.iterdir()) == [task]


def test_an_existing_folder_is_kept_unless_overwritten(build, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    code, _, error = build("maze", "--output", tmp_path / "out")
    assert code == 2
    assert error.splitlines()[-1].endswith("exists and is not empty; give --overwrite to replace it")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
    code, _, error = build("maze", "--output", tmp_path / "out", "--overwrite")
    assert code == 2
    assert "nothing tells that it was built like this" in error
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_build_of_ours_is_replaced_but_nothing_that_was_put_into_it(build, tmp_path):
    made = ("maze", "--output", tmp_path / "made")
    assert build(*made)[0] == build(*made, "--overwrite")[0] == 0
    names = ["README.md", "data", "manifest.json", "summary.json"]
    assert sorted(file.name for file in (tmp_path / "made").iterdir()) == names
    (tmp_path / "made" / "data" / "mine.txt").write_text("mine")
    code, _, error = build(*made, "--overwrite")
    assert code == 2
    assert "it holds files that no run of ours wrote like this: data/mine.txt; move them away" in error
    assert (tmp_path / "made" / "data" / "mine.txt").read_text() == "mine"


def test_what_is_read_is_not_replaced(build, tmp_path):
    assert build("maze", "--output", tmp_path / "made")[0] == 0
    code, _, error = build("maze", "--data", tmp_path / "made", "--output", tmp_path / "made", "--overwrite")
    assert code == 2
    assert "which is read; give another output" in error


def test_bad_rows_stop_the_build_or_are_listed(build, tmp_path):
    bad = ANSWER.replace("1", "2", 1)
    file = tmp_path / "mine.csv"
    file.write_text(f"question,answer\n{QUESTION},{ANSWER}\n{QUESTION},{bad}\n")
    command = ("sudoku", "--output", tmp_path / "out", "--data-files", f"train={file}")
    code, _, error = build(*command)
    assert code == 2
    assert f"{file}, row 2: the answer breaks the rules" in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    code, _, error = build(*command, "--on-bad-row", "skip")
    assert code == 0
    assert "1 bad rows left out" in error
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["splits"]["train"]
    assert summary["rows"] == 1
    assert (summary["bad_rows"][0]["file"], summary["bad_rows"][0]["row"]) == ("mine.csv", 2)
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()
    assert "Rows left out as bad: 1" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sudoku --output {out} --data-files none.csv", "error: none.csv: no such file"),
        ("sudoku --output {out} --dataset hub", "could not be fetched from the Hub"),
        ("sudoku --output {out} --subset 10 --expected-fingerprint 00", "expected 00"),
        ("sudoku --output {out} --data-files train=a.csv b.csv", "give SPLIT=FILE for all files or for none"),
        ("chess --output {out}", "invalid choice: 'chess'"),
        ("sudoku --output /dev/null/out", "error: "),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(build, tmp_path, arguments, message):
    code, _, error = build(*shlex.split(arguments.format(out=tmp_path / "out")))
    assert code == 2
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "_card", full)
    puzzles = {"test": load_puzzles("maze", "test")}
    with pytest.raises(OSError, match="No space left"):
        folder.write_dataset_folder(puzzles, tmp_path / "out", provenance="", license_id=None, options={})
    assert list(tmp_path.iterdir()) == []


def test_ratings_that_are_not_whole_and_several_solutions_are_kept(tmp_path, build):
    path = tmp_path / "train.csv"
    path.write_text(f"puzzle,solution,rating\n{QUESTION},{ANSWER},1.5\n{'.' * 81},{ANSWER},2\n", encoding="utf-8")
    builder = Sudoku(cache_dir=str(tmp_path / "cache"), data_files={"train": str(path)})
    builder.download_and_prepare()
    assert builder.as_dataset(split="train")["rating"] == [1.5, 2.0]
    code, _, errors = build("sudoku", "--data-files", f"train={path}", f"test={path}", "--output", tmp_path / "out")
    assert code == 0, errors
    assert "note: 2 of the 2 test puzzles are training puzzles too: its figures are not those of new ones" in errors
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["splits"]["train"]["several_solutions"] == [1, 2]
    assert "Puzzles with several solutions: 2 of the 4 searched." in (tmp_path / "out" / "README.md").read_text("utf-8")
    again = load_puzzles("sudoku", "train", data_dir=tmp_path / "out")
    assert again.ratings.tolist() == [1.5, 2.0]
