"""What build_arc trains on and holds out, under both protocols; puzzle ids; leaks; the same for any worker count."""

import numpy as np
import pytest

from datasets_builders import arc_build
from datasets_builders.arc_build import build_arc
from datasets_builders.arc_set import ARC_SPLITS, ArcOptions, task_name
from datasets_builders.arc_tasks import ArcTask, Pair, load_tasks
from datasets_builders.validation import DataError
from modeling_trm.arc_augmentation_trm import ArcAugmentation, draw_augmentations
from modeling_trm.puzzle_index_trm import IDENTITY


def names_of(arc_set, split, role=None):
    """{(task, role, number)} of a split."""
    return {
        (arc_set.names[ref.task], ref.role, ref.number)
        for ref in arc_set.splits[split]
        if role is None or ref.role == role
    }


def all_of(tasks, role):
    """{(task, role, number)} of the tasks' demonstrations or tests."""
    return {
        (task_name(task), role, number)
        for task in tasks
        for number in range(len(task.train if role == "train" else task.test))
    }


def test_the_published_protocol_trains_on_all_but_the_tests_of_the_test_subset(build_small, arc_tasks):
    arc_set = build_small(validation_tasks=0)
    others = arc_tasks["training"] + arc_tasks["concept"]
    everything = others + arc_tasks["evaluation"]
    assert names_of(arc_set, "train") == all_of(everything, "train") | all_of(others, "test")
    assert names_of(arc_set, "test") == all_of(arc_tasks["evaluation"], "test")
    assert not arc_set.splits["validation"] and not arc_set.splits["context"]
    assert set(arc_set.index.tasks) == set(map(task_name, everything))
    assert [task_name(task) for task in arc_set.test_tasks] == [task_name(t) for t in arc_tasks["evaluation"]]
    assert arc_set.protocol == "transductive" and "transductive" in arc_set.origin


def test_validation_tests_come_from_the_other_subsets_and_are_not_trained_on(build_small):
    arc_set = build_small(validation_tasks=4)
    tasks = {name for name, _, _ in names_of(arc_set, "validation")}
    assert len(tasks) == 4 and not any(name.startswith("evaluation/") for name in tasks)
    assert names_of(arc_set, "validation", "train") == set()
    assert not names_of(arc_set, "validation") & names_of(arc_set, "train")
    assert tasks <= {name for name, role, _ in names_of(arc_set, "train") if role == "train"}
    larger, other = build_small(validation_tasks=6), build_small(validation_tasks=4, seed=1)
    assert names_of(arc_set, "validation") < names_of(larger, "validation")
    assert names_of(arc_set, "validation") != names_of(other, "validation")


def test_the_test_subset_alone_gives_validation_tasks_that_are_no_test_tasks(build_small, arc_tasks):
    arc_set = build_small(subsets=("training",), test_subset="training", validation_tasks=4)
    validation, test = names_of(arc_set, "validation"), names_of(arc_set, "test")
    assert validation | test == all_of(arc_tasks["training"], "test")
    assert names_of(arc_set, "train") == all_of(arc_tasks["training"], "train")
    assert len({name for name, _, _ in validation}) == 4 and len(arc_set.test_tasks) == 5
    assert not {name for name, _, _ in validation} & {name for name, _, _ in test}


@pytest.mark.parametrize("subsets", [("training", "concept"), ("training", "evaluation", "concept")])
def test_the_inductive_protocol_trains_on_nothing_of_the_test_tasks(build_small, arc_tasks, subsets):
    arc_set = build_small(subsets=subsets, protocol="inductive")
    assert not any(name.startswith("evaluation/") for name, _, _ in names_of(arc_set, "train"))
    assert not any(name.startswith("evaluation/") for name in arc_set.index.tasks)
    assert names_of(arc_set, "context") == all_of(arc_tasks["evaluation"], "train")
    assert names_of(arc_set, "test") == all_of(arc_tasks["evaluation"], "test")
    assert set(arc_set.test().puzzle_ids.tolist()) == {0}
    assert 0 not in arc_set.validation().puzzle_ids
    assert arc_set.test_tasks[0].train[0] is arc_tasks["evaluation"][0].train[0]


def test_every_pair_is_in_one_split(build_small, arc_tasks):
    for options in ({}, {"protocol": "inductive"}, {"max_tasks": 5}):
        arc_set = build_small(**options)
        pairs = [ref for split in ARC_SPLITS for ref in arc_set.splits[split]]
        assert len(pairs) == len(set(pairs)) == sum(len(task.train) + len(task.test) for task in arc_set.tasks)


def test_puzzle_ids_are_numbered_task_after_task_identity_first(build_small, arc_tasks):
    arc_set = build_small()
    index, row = arc_set.index, 1
    assert index.task_of_row[0] == -1
    for subset in ("training", "evaluation", "concept"):
        for task in arc_tasks[subset]:
            drawn = draw_augmentations(task, 15, seed=0)
            rows = index.rows_of(task_name(task))
            assert rows.tolist() == list(range(row, row + len(drawn)))
            np.testing.assert_array_equal(index.augmentation_of_row[rows], drawn)
            np.testing.assert_array_equal(drawn[0], IDENTITY)
            assert arc_set.identity_row(task_name(task)) == row
            row += len(drawn)
    assert len(index) == row
    assert arc_set.identity_row("evaluation/unknown") == 0


def test_puzzle_sets_are_the_held_out_tests_as_they_are(build_small):
    arc_set = build_small()
    for split, puzzles in (("validation", arc_set.validation()), ("test", arc_set.test())):
        assert (puzzles.task, len(puzzles)) == ("arc", len(arc_set.splits[split]))
        assert tuple(puzzles.processor.grid_shape) == (12, 12) and puzzles.inputs.dtype == np.uint8
        for place, ref in enumerate(arc_set.splits[split]):
            pair, task = arc_set.pair(ref), arc_set.tasks[ref.task]
            assert puzzles.processor.decode(puzzles.inputs[place]) == pair.input.tolist()
            assert puzzles.processor.decode(puzzles.labels[place]) == pair.output.tolist()
            assert puzzles.sources[place] == task.subset
            assert puzzles.puzzle_ids[place] == arc_set.index.rows_of(task_name(task))[0]
        assert not puzzles.ratings.any()


def test_unknown_outputs_are_asked_but_not_scored(build_small, arc_tasks):
    first, *rest = arc_tasks["evaluation"]
    secret = ArcTask(first.id, first.subset, first.train, tuple(Pair(pair.input, None) for pair in first.test))
    other, *others = arc_tasks["training"]
    partly = ArcTask(other.id, other.subset, other.train, (*other.test, Pair(other.test[0].input + 0, None)))
    arc_set = build_small({**arc_tasks, "evaluation": [secret, *rest], "training": [partly, *others]})
    assert arc_set.test_tasks[0] is secret
    assert len(arc_set.test()) == len(arc_set.splits["test"]) - len(secret.test)
    assert names_of(arc_set, "context") == {(task_name(partly), "test", len(other.test))}


def test_tasks_that_do_not_fit_the_canvas_are_left_out(build_small, arc_tasks):
    arc_set = build_small(max_grid_size=11, validation_tasks=1)
    for subset, ids in arc_set.report["too_large"].items():
        for task in arc_tasks[subset]:
            sides = [side for pair in (*task.train, *task.test) for g in (pair.input, pair.output) for side in g.shape]
            assert (task.id in ids) == (max(sides) > 11) == (task_name(task) not in arc_set.names)
    assert arc_set.test().inputs.shape[1] == 121


def test_max_tasks_chooses_by_the_seed_and_a_smaller_choice_is_part_of_a_larger(build_small):
    few, more = build_small(max_tasks=3), build_small(max_tasks=5)
    assert len(few.tasks) == 9 and set(few.names) < set(more.names)
    assert few.names != build_small(max_tasks=3, seed=1).names
    assert set(few.names) < set(build_small().names)


def test_the_result_does_not_depend_on_workers_or_on_the_order_of_tasks(build_small, arc_tasks):
    one, three = build_small(), build_small(num_workers=3)
    shuffled = build_small({subset: tasks[::-1] for subset, tasks in reversed(arc_tasks.items())})
    for other in (three, shuffled):
        assert other.fingerprint == one.fingerprint
        np.testing.assert_array_equal(other.index.augmentation_of_row, one.index.augmentation_of_row)
        assert other.splits == one.splits and other.names == one.names


def test_workers_where_there_is_no_forkserver(build_small, monkeypatch):
    """As on Windows."""
    monkeypatch.setattr(arc_build, "get_all_start_methods", lambda: ["spawn"])
    assert arc_build._context().get_start_method() == "spawn"
    assert build_small(num_workers=2).fingerprint == build_small().fingerprint


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"protocol": "inductive"}, {"max_grid_size": 13}, {"num_augmentations": 3}]
)
def test_the_fingerprint_knows_what_was_built(build_small, change):
    assert build_small(**change).fingerprint != build_small().fingerprint


@pytest.fixture
def leaky(arc_tasks):
    """A training task whose first demonstration is an image of an evaluation test, second of a demonstration of it."""
    augmentation = ArcAugmentation.from_string("arc/110/0213456789")
    asked = arc_tasks["evaluation"][2]
    copies = tuple(
        Pair(augmentation.apply(p.input), augmentation.apply(p.output)) for p in (asked.test[0], asked.train[0])
    )
    own = arc_tasks["training"][0]
    return {
        **arc_tasks,
        "training": [*arc_tasks["training"], ArcTask("leak", "training", copies + own.train, own.test)],
    }


def test_leaks_are_refused_by_default(build_small, leaky):
    with pytest.raises(DataError, match=r"1 trained pairs leak; on_leak='drop'(.|\n)*answer: 1 test pairs"):
        build_small(leaky)


@pytest.mark.parametrize(("protocol", "offending"), [("transductive", 1), ("inductive", 2)])
def test_leaks_are_dropped_or_reported(build_small, leaky, protocol, offending):
    reported = build_small(leaky, protocol=protocol, on_leak="report")
    dropped = build_small(leaky, protocol=protocol, on_leak="drop")
    leaks = {("training/leak", "train", number) for number in range(offending)}
    assert leaks <= names_of(reported, "train")
    assert names_of(reported, "train") - names_of(dropped, "train") == leaks == names_of(dropped, "context") & leaks
    for arc_set, count in ((reported, 0), (dropped, offending)):
        assert arc_set.report["leaks"]["offending_pairs"] == offending
        assert arc_set.report["leaks"]["dropped_pairs"] == count
        assert arc_set.report["leaks"]["counts"]["answer"]["pairs"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "magic"}, "protocol='magic' is unknown; allowed: transductive, inductive"),
        ({"on_leak": "ignore"}, "on_leak='ignore' is unknown"),
        ({"subsets": ()}, "subsets=.. must be distinct names"),
        ({"subsets": ["training", "training"]}, "must be distinct names"),
        ({"subsets": ["training"]}, "test_subset='evaluation' is not in subsets=.*choose protocol='inductive'"),
        ({"subsets": ["evaluation"], "protocol": "inductive"}, "trains on nothing of test_subset='evaluation'"),
        ({"num_augmentations": -1}, "num_augmentations=-1 must be at least 0"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"max_tasks": 0}, "max_tasks=0 must be at least 1"),
        ({"max_grid_size": 31}, "max_grid_size=31 must be between 1 and 30"),
        ({"validation_tasks": 19}, "validation_tasks=19 is more than the 18 tasks"),
        ({"subsets": ["evaluation"], "validation_tasks": 9}, "no pair is left for the split 'test'.*fewer validation"),
        ({"subsets": ["evaluation", "training2"]}, "no tasks are given for subset 'training2', only for training"),
        ({"max_grid_size": 1}, "subset 'training' has no task that fits max_grid_size=1"),
        ({"num_workers": 0}, "num_workers=0 must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_told(build_small, options, message):
    with pytest.raises(DataError, match=message):
        build_small(**options)


def test_arc_1_itself_has_leaks_that_must_be_decided_about():
    """evaluation/070dd51e is training/40853293 mirrored: under the published protocol its answer is trained on."""
    tasks = {subset: load_tasks(subset) for subset in ("training", "evaluation")}
    options = {"subsets": ("training", "evaluation"), "num_augmentations": 0}
    with pytest.raises(DataError, match="2 trained pairs leak"):
        build_arc(tasks, ArcOptions(**options))
    arc_set = build_arc(tasks, ArcOptions(**options, on_leak="drop"))
    counts = {split: len(refs) for split, refs in arc_set.splits.items()}
    assert counts["test"] == 419 and counts["context"] == 2
    assert sum(counts.values()) == 1302 + 416 + 1363 + 419
    assert len(arc_set.index) == 801
