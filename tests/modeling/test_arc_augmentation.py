"""ARC augmentations: inverse, text and byte forms; draws without duplicates, against puzzles built grid by grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_builders.arc_tasks import ArcTask, Pair, load_tasks
from modeling_trm.arc_augmentation_trm import (
    ArcAugmentation,
    draw_augmentations,
    puzzle_keys,
    random_augmentations,
)
from modeling_trm.augmentation_trm import MazeAugmentation
from modeling_trm.puzzle_index_trm import IDENTITY

AUGMENTATIONS = st.builds(
    lambda dihedral, colours: ArcAugmentation(dihedral, (0, *colours)),
    st.integers(0, 7),
    st.permutations(range(1, 10)),
)
SIDES = st.integers(1, 30)


@pytest.fixture(scope="module")
def tasks():
    return {task.id: task for task in load_tasks("training") + load_tasks("evaluation")}


def grid(height, width, seed, colours=10):
    return np.random.default_rng(seed).integers(0, colours, (height, width), dtype=np.uint8)


def naive_puzzle(task, augmentation):
    """The puzzle as the public code compares it, without hashes: the sorted texts of all its pairs."""
    augmentation = ArcAugmentation.from_bytes(augmentation)
    return sorted(
        str([None if side is None else augmentation.apply(side).tolist() for side in (pair.input, pair.output)])
        for pair in (*task.train, *task.test)
    )


def naive_draws(task, count, seed):
    """The public code's loop: trial after trial, at most 5 * count, until `count` new puzzles are found."""
    kept, seen = [IDENTITY], {str(naive_puzzle(task, IDENTITY))}
    for trial in range(5 * count):
        augmentation = random_augmentations(task.id, np.array([trial]), seed)[0]
        puzzle = str(naive_puzzle(task, augmentation))
        if puzzle not in seen:
            seen.add(puzzle)
            kept.append(augmentation)
        if len(kept) == count + 1:
            break
    return np.stack(kept)


@given(AUGMENTATIONS, SIDES, SIDES, st.integers(0, 99))
def test_inverse_undoes(augmentation, height, width, seed):
    cells = grid(height, width, seed)
    before = cells.copy()
    moved = augmentation.apply(cells)
    np.testing.assert_array_equal(augmentation.inverse().apply(moved), cells)
    np.testing.assert_array_equal(augmentation.apply(augmentation.inverse().apply(cells)), cells)
    np.testing.assert_array_equal(cells, before)
    assert moved.dtype == cells.dtype
    assert augmentation.inverse().inverse() == augmentation
    # Several grids of one shape at once.
    np.testing.assert_array_equal(augmentation.apply(np.stack([cells, cells]))[1], moved)


@given(AUGMENTATIONS)
def test_text_and_bytes(augmentation):
    assert ArcAugmentation.from_string(str(augmentation)) == augmentation
    values = augmentation.to_bytes()
    assert (values.dtype, values.shape) == (np.dtype(np.uint8), (11,))
    assert ArcAugmentation.from_bytes(values) == augmentation


def test_the_form_of_the_text_and_the_order_of_the_maps():
    augmentation = ArcAugmentation.from_string("arc/101/0312456789")
    assert augmentation == ArcAugmentation(5, (0, 3, 1, 2, 4, 5, 6, 7, 8, 9))
    # Transposed first: [[0, 1], [2, 3]] becomes [[0, 2], [1, 3]]; then flipped left to right.
    assert augmentation.apply(np.array([[0, 1], [2, 3]])).tolist() == [[1, 0], [2, 3]]
    assert str(ArcAugmentation.identity()) == "arc/000/0123456789"
    np.testing.assert_array_equal(ArcAugmentation.identity().to_bytes(), IDENTITY)
    for number in range(8):
        cells = grid(3, 4, 0)
        expected = MazeAugmentation.from_number(number).apply(cells)
        np.testing.assert_array_equal(ArcAugmentation(number, tuple(range(10))).apply(cells), expected)


@pytest.mark.parametrize(
    "text",
    ["", "arc", "arc/000", "maze/000/0123456789", "arc/00/0123456789", "arc/002/0123456789", "arc/000/012345678x",
     "arc/000/0123456788", "arc/000/1023456789", "arc/000/012345678", "arc/000/0123456789/"],
)  # fmt: skip
def test_bad_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"no ARC augmentation|permutation of 0\.\.9 that keeps 0"):
        ArcAugmentation.from_string(text)


def test_bad_values_are_refused(tasks):
    with pytest.raises(ValueError, match=r"dihedral=8 must be one of 0\.\.7"):
        ArcAugmentation(8, tuple(range(10)))
    with pytest.raises(ValueError, match=r"has 11 bytes, not shape \(10,\)"):
        ArcAugmentation.from_bytes(np.arange(10, dtype=np.uint8))
    with pytest.raises(ValueError, match="count=-1 must not be negative"):
        draw_augmentations(tasks["007bbfb7"], -1, 0)
    with pytest.raises(ValueError, match="seed=-1 is not allowed; allowed: 0 to"):
        draw_augmentations(tasks["007bbfb7"], 1, -1)


# 007bbfb7 has more than are asked for; the others have few or symmetries, so that fewer than `count` puzzles exist.
@pytest.mark.parametrize("name", ["007bbfb7", "332efdb3", "6f8cd79b", "d0f5fe59", "0b17323b", "8be77c9e"])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_draws_equal_the_naive_loop(tasks, name, count):
    drawn = draw_augmentations(tasks[name], count, seed=3)
    np.testing.assert_array_equal(drawn, naive_draws(tasks[name], count, seed=3))
    assert drawn.dtype == np.uint8
    assert len({str(naive_puzzle(tasks[name], row)) for row in drawn}) == len(drawn) <= count + 1


def test_a_task_with_few_puzzles_gets_them_all():
    """One colour besides 0 and grids that no map changes: nine puzzles. One cell in a corner: four times as many."""
    cross = np.array([[0, 3, 0], [3, 3, 3], [0, 3, 0]], dtype=np.uint8)
    corner = np.array([[3, 0], [0, 0]], dtype=np.uint8)
    for cells, expected in ((cross, 9), (corner, 36), (np.zeros((4, 4), dtype=np.uint8), 1)):
        task = ArcTask("few", "made", (Pair(cells, cells),), (Pair(cells, None),))
        drawn = draw_augmentations(task, 200, seed=0)
        np.testing.assert_array_equal(drawn, naive_draws(task, 200, seed=0))
        assert len(drawn) == expected


def test_kept_colours_leave_the_dihedral_maps_that_differ(tasks):
    """For models with symbol fields: of each set of maps with the same puzzle the first, and no colour renamed."""
    cross = np.array([[0, 3, 0], [3, 3, 3], [0, 3, 0]], dtype=np.uint8)
    corner = np.array([[3, 0], [0, 0]], dtype=np.uint8)
    for cells, expected in ((cross, 1), (corner, 4)):
        task = ArcTask("few", "made", (Pair(cells, cells),), (Pair(cells, None),))
        assert len(draw_augmentations(task, 7, 0, keep_colours=True)) == expected
    task = tasks["007bbfb7"]
    drawn = draw_augmentations(task, 1000, 0, keep_colours=True)
    assert drawn[:, 0].tolist() == list(range(8)) and (drawn[:, 1:] == IDENTITY[1:]).all()
    assert len({str(naive_puzzle(task, row)) for row in drawn}) == 8
    np.testing.assert_array_equal(draw_augmentations(task, 3, 0, keep_colours=True), drawn[:4])


def test_draws_do_not_depend_on_count_and_differ_by_seed_and_task(tasks):
    task = tasks["00d62c1b"]
    drawn = draw_augmentations(task, 300, seed=1)
    assert len(drawn) == 301
    np.testing.assert_array_equal(drawn[0], IDENTITY)
    np.testing.assert_array_equal(draw_augmentations(task, 50, seed=1), drawn[:51])
    np.testing.assert_array_equal(draw_augmentations(task, 300, seed=1), drawn)
    assert (draw_augmentations(task, 300, seed=2) != drawn).any()
    renamed = ArcTask("another", task.subset, task.train, task.test)
    assert (draw_augmentations(renamed, 300, seed=1) != drawn).any()
    # The subset does not count: a task that two subsets share gets the same draws.
    moved = ArcTask(task.id, "training2", task.train, task.test)
    np.testing.assert_array_equal(draw_augmentations(moved, 300, seed=1), drawn)


def test_the_draws_are_pinned():
    """Data sets are built from them: a change here is a new version of the builder."""
    drawn = random_augmentations("007bbfb7", np.array([0, 1, 4999]), 0)
    assert [str(ArcAugmentation.from_bytes(row)) for row in drawn] == [
        "arc/010/0564179238",
        "arc/101/0127634895",
        "arc/010/0978213654",
    ]
    np.testing.assert_array_equal(random_augmentations("007bbfb7", np.array([4999]), 0)[0], drawn[2])


def test_draws_are_uniform():
    drawn = random_augmentations("any", np.arange(9000), 0)
    assert set(drawn[:, 1]) == {0}
    assert (np.sort(drawn[:, 1:], axis=1) == np.arange(10)).all()
    for values, choices in ((drawn[:, :1], range(8)), (drawn[:, 2:], range(1, 10))):
        expected = len(drawn) / len(choices)
        counts = np.stack([(values == choice).sum(axis=0) for choice in choices])
        assert np.abs(counts - expected).max() < 5 * expected**0.5


@settings(max_examples=20)
@given(st.data())
def test_keys_are_equal_exactly_where_the_puzzles_are(tasks, data):
    """Few of the 8 * 9! augmentations agree by chance, so the colours that change are kept few."""
    task = tasks[data.draw(st.sampled_from(sorted(tasks)))]
    swaps = data.draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3))
    rows = []
    for a, b in [(1, 1), *swaps]:
        colours = np.arange(10)
        colours[[a, b]] = colours[[b, a]]
        rows += [[number, *colours] for number in range(8)]
    augmentations = np.array(rows, dtype=np.uint8)
    keys = [key.tobytes() for key in puzzle_keys(task, augmentations)]
    puzzles = [str(naive_puzzle(task, row)) for row in augmentations]
    groups = [[values.index(value) for value in values] for values in (keys, puzzles)]
    assert groups[0] == groups[1]


def test_keys_see_what_a_puzzle_is():
    """Order of the pairs and of the parts does not count; which output goes with which input, and shapes, do."""

    def key(*pairs):
        return puzzle_keys(ArcTask("t", "made", pairs[:1], pairs[1:]), IDENTITY[None])[0].tobytes()

    a, b, c, d = (grid(3, 3, seed) for seed in range(4))
    assert key(Pair(a, b), Pair(c, d)) == key(Pair(c, d), Pair(a, b))
    different = [
        key(Pair(a, b), Pair(c, d)),
        key(Pair(a, d), Pair(c, b)),
        key(Pair(b, a), Pair(d, c)),
        key(Pair(a, b), Pair(a, b)),
        key(Pair(a, b), Pair(c, None)),
        key(Pair(a, b)),
        key(Pair(a.reshape(1, 9), b), Pair(c, d)),
        key(Pair(a.reshape(9, 1), b), Pair(c, d)),
        key(Pair(np.zeros((2, 3), np.uint8), b)),
        key(Pair(np.zeros((3, 2), np.uint8), b)),
        key(Pair(np.zeros((3, 3), np.uint8), b)),
    ]
    assert len(set(different)) == len(different)
