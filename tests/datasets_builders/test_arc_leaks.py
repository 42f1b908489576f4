"""Canonical keys against all images of a pair; leaks of each kind on made-up tasks, and those of the real sets."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_builders.arc_leaks import Leak, TrainedPair, canonical_key, find_leaks
from datasets_builders.arc_tasks import ArcTask, Pair, load_tasks
from modeling_trm.arc_augmentation_trm import ArcAugmentation

AUGMENTATIONS = st.builds(
    lambda dihedral, colours: ArcAugmentation(dihedral, (0, *colours)),
    st.integers(0, 7),
    st.permutations(range(1, 10)),
)
MIRRORED = ArcAugmentation.from_string("arc/001/0123456789")
TURNED = ArcAugmentation.from_string("arc/110/0987654321")


def grid(seed, height=5, width=6, colours=10):
    return np.random.default_rng(seed).integers(0, colours, (height, width), dtype=np.uint8)


def pair(seed, answer_seed=None):
    return Pair(grid(seed), grid(1000 + (seed if answer_seed is None else answer_seed), 4, 4))


def image(augmentation, item):
    return Pair(augmentation.apply(item.input), None if item.output is None else augmentation.apply(item.output))


def make(name, train, test, subset="evaluation"):
    return ArcTask(name, subset, tuple(train), tuple(test))


def trained_on(*tasks, tests=False):
    """All demonstrations of the tasks, and their tests if asked."""
    for task in tasks:
        yield from ((task, number, False) for number in range(len(task.train)))
        yield from ((task, number, True) for number in range(len(task.test) if tests else 0))


@given(AUGMENTATIONS, st.integers(1, 6), st.integers(1, 6), st.integers(1, 10), st.integers(0, 99))
def test_all_images_have_one_key(augmentation, height, width, colours, seed):
    item = Pair(grid(seed, height, width, colours), grid(seed + 1, width, 3, colours))
    assert canonical_key(image(augmentation, item)) == canonical_key(item)
    assert canonical_key(augmentation.apply(item.input)) == canonical_key(item.input)
    assert len(canonical_key(item)) == 16


def test_keys_are_equal_exactly_for_images():
    """All grids of 2 x 2 and 1 x 3 with colours 0, 1, 2: equal keys if and only if one of the images agrees."""
    cells = [np.array(c, np.uint8).reshape(2, 2) for c in itertools.product(range(3), repeat=4)]
    cells += [np.array([c], np.uint8) for c in itertools.product(range(3), repeat=3)]
    swapped = [ArcAugmentation(d, (0, *c, *range(3, 10))) for d in range(8) for c in ((1, 2), (2, 1))]
    # Colours 1 and 2 may also become others, which no grid here has; a grid with one of them is covered by the swap.
    classes = [min(str(augmentation.apply(c).tolist()) for augmentation in swapped) for c in cells]
    keys = [canonical_key(c) for c in cells]
    assert [keys.index(key) for key in keys] == [classes.index(name) for name in classes]


def test_what_a_pair_key_tells_apart():
    a, b = grid(0, 3, 3), grid(1, 3, 3)
    different = [
        canonical_key(Pair(a, b)),
        canonical_key(Pair(b, a)),
        canonical_key(Pair(a, MIRRORED.apply(b))),
        canonical_key(Pair(a, a)),
        canonical_key(a),
        canonical_key(np.concatenate([a, b])),
        canonical_key(Pair(a, b.reshape(1, 9))),
        canonical_key(np.where(a == 0, 1, np.where(a == 1, 0, a)).astype(np.uint8)),  # 0 is no colour like the others
    ]
    assert len(set(different)) == len(different)
    with pytest.raises(ValueError, match="no output"):
        canonical_key(Pair(a, None))


def test_no_leak():
    held = make("a", [pair(1), pair(2)], [pair(3)])
    other = make("b", [pair(4)], [pair(5)], "training")
    report = find_leaks(trained_on(held, other), [held])
    assert report.findings == report.by_design == ()
    assert (report.held_out_tasks, report.held_out_tests, report.trained_pairs) == (1, 1, 3)
    assert report.summary() == (
        "answer: 0 test pairs are trained on, in 0 of 1 held-out tasks\n"
        "input: 0 test inputs are trained on with another output, in 0 of 1 held-out tasks\n"
        "demonstration: 0 demonstrations are trained on under another task, in 0 of 1 held-out tasks"
    )


def test_an_answer_that_is_trained_on_as_an_image_under_another_task():
    held = make("a", [pair(1)], [pair(2), pair(3)])
    other = make("b", [pair(4), image(TURNED, pair(3))], [image(MIRRORED, pair(3))], "training")
    report = find_leaks(trained_on(held, other, tests=False), [held])
    assert report.findings == (Leak("answer", "evaluation", "a", 2, "training", "b", 2, False),)
    report = find_leaks([*trained_on(held), *trained_on(other, tests=True)], [held])
    assert report.counts == {
        "answer": {"tasks": 1, "pairs": 1, "findings": 2},
        "input": {"tasks": 0, "pairs": 0, "findings": 0},
        "demonstration": {"tasks": 0, "pairs": 0, "findings": 0},
    }
    first, *_ = report.summary().splitlines()
    assert first == (
        "answer: 1 test pairs are trained on, in 1 of 1 held-out tasks; e.g. evaluation/a test 2 = training/b train 2"
    )
    assert str(report.of_kind("answer")[1]) == "evaluation/a test 2 = training/b test 1"
    assert TrainedPair(other, 0, True).name == "training/b test 1"


def test_a_test_pair_that_is_itself_trained_on():
    held = make("a", [pair(1)], [pair(2)])
    report = find_leaks(trained_on(held, tests=True), [held])
    assert report.findings == (Leak("answer", "evaluation", "a", 1, "evaluation", "a", 1, True),)


def test_an_input_that_is_trained_on_with_another_output():
    held = make("a", [pair(1)], [pair(2)])
    other = make("b", [image(TURNED, pair(2, answer_seed=7))], [pair(5)], "concept")
    report = find_leaks(trained_on(held, other), [held])
    assert report.findings == (Leak("input", "evaluation", "a", 1, "concept", "b", 1, False),)


def test_a_shared_demonstration():
    held = make("a", [pair(1), pair(2)], [pair(3)])
    other = make("b", [pair(4)], [image(TURNED, pair(2))], "training")
    same_id = make("a", [pair(1)], [pair(6)], "training2")
    report = find_leaks([*trained_on(held), *trained_on(other, same_id, tests=True)], [held])
    assert report.findings == (
        Leak("demonstration", "evaluation", "a", 1, "training2", "a", 1, False),
        Leak("demonstration", "evaluation", "a", 2, "training", "b", 1, True),
    )
    assert str(report.findings[1]) == "evaluation/a train 2 = training/b test 1"


def test_what_a_task_demonstrates_itself_is_by_design():
    """Three demonstrations: one like another, one an image of the test, one with the second test's input."""
    held = make("a", [pair(1), image(MIRRORED, pair(1)), image(TURNED, pair(2)), pair(3, 9)], [pair(2), pair(3)])
    report = find_leaks(trained_on(held), [held])
    assert report.findings == ()
    assert report.by_design == (
        Leak("answer", "evaluation", "a", 1, "evaluation", "a", 3, False),
        Leak("input", "evaluation", "a", 2, "evaluation", "a", 4, False),
    )
    assert report.summary().splitlines()[-1] == (
        "by design: 2 tests have a like demonstration of their own task, in 1 of 1 held-out tasks; "
        "e.g. evaluation/a test 1 = evaluation/a train 3"
    )


def test_unknown_answers_are_compared_by_their_input():
    held = make("a", [pair(1)], [Pair(pair(2).input, None)])
    other = make("b", [pair(2)], [Pair(pair(2).input, None)], "training")
    report = find_leaks([*trained_on(held), *trained_on(other, tests=True)], [held])
    assert [leak.kind for leak in report.findings] == ["input", "input"]


def test_report_as_json():
    held = make("a", [pair(1)], [pair(2)])
    report = find_leaks(trained_on(held, make("b", [pair(2)], [pair(5)], "training")), [held])
    content = json.loads(json.dumps(report.to_dict()))
    assert content["counts"] == report.counts
    assert [Leak(**finding) for finding in content["findings"]] == list(report.findings)
    assert content["by_design"] == []
    assert (content["held_out_tasks"], content["held_out_tests"], content["trained_pairs"]) == (1, 1, 2)


@pytest.fixture(scope="module")
def real():
    return {subset: load_tasks(subset) for subset in ("training", "evaluation", "evaluation2")}


def test_leaks_of_arc_1_as_published(real):
    """Two evaluation tasks have an image of their test among the training tasks; see 40853293 and caa06a1f."""
    trained = [*trained_on(*real["evaluation"]), *trained_on(*real["training"], tests=True)]
    report = find_leaks(trained, real["evaluation"])
    assert [str(leak) for leak in report.of_kind("answer")] == [
        "evaluation/070dd51e test 1 = training/40853293 test 1",
        "evaluation/50a16a69 test 1 = training/caa06a1f train 3",
    ]
    assert {leak.task for leak in report.of_kind("demonstration")} == {"070dd51e", "50a16a69"}
    # The images are images: a search over all that the colours in question allow.
    tasks = {task.id: task for subset in ("training", "evaluation") for task in real[subset]}
    for leak in report.of_kind("answer"):
        held, entry = tasks[leak.task].test[leak.pair - 1], tasks[leak.trained_task]
        other = (entry.test if leak.trained_is_test else entry.train)[leak.trained_pair - 1]
        assert any(is_image(dihedral, held, other) for dihedral in range(8))


def is_image(dihedral, item, other):
    """Whether the map takes the pair to the other one but for a renaming of colours that keeps 0."""
    moved = image(ArcAugmentation(dihedral, tuple(range(10))), item)
    if (moved.input.shape, moved.output.shape) != (other.input.shape, other.output.shape):
        return False
    cells = np.concatenate([moved.input.ravel(), moved.output.ravel()]).tolist()
    others = np.concatenate([other.input.ravel(), other.output.ravel()]).tolist()
    renamed = set(zip(cells, others, strict=True)) | {(0, 0)}
    return len(renamed) == len({a for a, _ in renamed}) == len({b for _, b in renamed})


def test_arc_2_evaluation_takes_up_six_tasks_of_arc_1(real):
    report = find_leaks(trained_on(*real["evaluation"], tests=True), real["evaluation2"])
    assert report.counts["answer"] == {"tasks": 6, "pairs": 6, "findings": 6}
    assert all(leak.task == leak.trained_task for leak in report.of_kind("answer"))
    assert report.counts["demonstration"] == {"tasks": 7, "pairs": 24, "findings": 24}
    assert report.counts["input"] == {"tasks": 0, "pairs": 0, "findings": 0}
