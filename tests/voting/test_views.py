"""Views: there and back is the identity, the crop follows the published rule, and the model's own table says what runs.

`naive_crop` tries every rectangle from the top left, the rule as it is written: the largest one without a token that is
no colour; in the order of their heights, the first of the largest ones.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_builders.arc_tasks import ArcTask, Pair, load_tasks
from datasets_builders.features import PuzzleSet, load_puzzles
from modeling_trm import GridProcessor
from modeling_trm.arc_augmentation_trm import ArcAugmentation, draw_augmentations
from modeling_trm.processing_trm import colours_to_text, crop_colours
from modeling_trm.puzzle_index_trm import PuzzleIndex
from modeling_trm.voting.collect import locate_items
from modeling_trm.voting.folder import grid_hash
from modeling_trm.voting.views import ArcViews, PuzzleViews, protocol_of

ARC = GridProcessor("arc")


@cache
def arc_tasks() -> list[ArcTask]:
    return load_tasks("evaluation")


def index_of(tasks: list[ArcTask], count: int, shuffled: bool = False) -> PuzzleIndex:
    """A table as training makes it: the blank row, then the augmentations of every task."""
    parts = [draw_augmentations(task, count, seed=3) for task in tasks]
    if shuffled:
        parts = [part[::-1] for part in parts]
    numbers = np.repeat(np.arange(len(tasks)), [len(part) for part in parts])
    return PuzzleIndex(
        tuple(f"{task.subset}/{task.id}" for task in tasks),
        np.concatenate([[-1], numbers]),
        np.concatenate([ArcAugmentation.identity().to_bytes()[None], *parts]),
    )


def naive_crop(tokens_HW: np.ndarray) -> np.ndarray:
    best = tokens_HW[:0, :0]
    for height in range(1, tokens_HW.shape[0] + 1):
        for width in range(1, tokens_HW.shape[1] + 1):
            part = tokens_HW[:height, :width]
            if part.min() >= 2 and part.max() <= 11 and part.size > best.size:
                best = part
    return best - 2


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.3), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_crop_of_wrong_borders_follows_the_rule(seed: int, share: float, shape: tuple[int, int]) -> None:
    random = np.random.RandomState(seed)
    tokens_HW = random.randint(2, 12, shape).astype(np.uint8)
    holes = random.rand(*shape) < share
    tokens_HW[holes] = random.randint(0, 2, holes.sum())
    found, expected = crop_colours(tokens_HW), naive_crop(tokens_HW)
    assert found.size == expected.size
    assert not found.size or np.array_equal(found, expected)
    decoded = GridProcessor("arc", grid_shape=shape).decode(tokens_HW.reshape(-1))
    assert decoded == (found.tolist() if found.size else None)


@settings(max_examples=60)
@given(st.integers(0, 399), st.integers(0, 7), st.permutations(range(1, 10)))
def test_undo_of_an_augmented_answer_is_the_answer(number: int, dihedral: int, colours: list[int]) -> None:
    """Real tasks, every dihedral map, permutations of the colours: the augmented output is undone to the output."""
    task = arc_tasks()[number]
    augmentation = ArcAugmentation(dihedral, (0, *colours))
    name = f"{task.subset}/{task.id}"
    rows = np.stack([ArcAugmentation.identity().to_bytes()] * 2 + [augmentation.to_bytes()])
    views = ArcViews([task], PuzzleIndex((name,), np.array([-1, 0, 0]), rows), ARC)
    for pair_number, pair in enumerate(task.test):
        answer_L = ARC.encode(augmentation.apply(pair.output).tolist()).numpy().astype(np.uint8)
        assert views.undo(pair_number, 1, answer_L) == colours_to_text(pair.output)
        input_ids, puzzle_ids = views.batch([(pair_number, 1), (pair_number, 0)])
        assert input_ids.dtype == np.uint8 and puzzle_ids.tolist() == [2, 1]
        assert np.array_equal(input_ids[0], ARC.encode(augmentation.apply(pair.input).tolist()))
        assert np.array_equal(input_ids[1], ARC.encode(pair.input.tolist()))
        assert views.undo(pair_number, 1, input_ids[0]) == views.inputs[pair_number].question


def test_answers_that_are_no_grid() -> None:
    views = ArcViews(arc_tasks()[:1], None, ARC, views=3)
    for token in (0, 1):
        assert views.undo(0, 2, np.full(900, token, dtype=np.uint8)) == ""


def test_views_are_the_rows_of_the_models_own_table() -> None:
    tasks = arc_tasks()[:4]
    index = index_of(tasks[:3], count=6, shuffled=True)
    views = ArcViews(tasks[:3], index, ARC)
    assert views.protocol == "transductive"
    assert [item.task_id for item in views.inputs] == [f"evaluation/{task.id}" for task in tasks[:3] for _ in task.test]
    for number, item in enumerate(views.inputs):
        rows = index.rows_of(item.task_id)
        used = [int(views.batch([(number, view)])[1][0]) for view in range(views.views_of_input[number])]
        assert sorted(used) == rows.tolist()
        assert index.augmentation_of_row[used[0]].tolist() == ArcAugmentation.identity().to_bytes().tolist()
    few = ArcViews(tasks[:3], index, ARC, views=2)
    assert set(few.views_of_input) == {2}
    assert len({views.fingerprint, few.fingerprint, ArcViews(tasks[:2], index, ARC).fingerprint}) == 3
    part, _ = index.select([item.task_id for item in views.inputs])
    assert ArcViews(tasks[:3], part, ARC).fingerprint == views.fingerprint


def test_a_task_of_a_file_has_the_rows_of_its_id() -> None:
    tasks = arc_tasks()[:2]
    index = index_of(tasks, 3)
    views, moved = (ArcViews(some, index, ARC) for some in (tasks, [replace(task, subset="test") for task in tasks]))
    assert moved.views_of_input.tolist() == views.views_of_input.tolist()
    for number in range(len(views.inputs)):
        items = [(number, view) for view in range(views.views_of_input[number])]
        for ours, theirs in zip(moved.batch(items), views.batch(items)):
            assert np.array_equal(ours, theirs)


def test_tasks_without_rows_run_with_the_blank_row_under_drawn_augmentations() -> None:
    tasks = arc_tasks()[:3]
    for index in (None, PuzzleIndex.blank()):
        views = ArcViews(tasks, index, ARC, views=5, seed=1)
        assert views.protocol == "unstated"
        assert set(views.views_of_input) == {5}
        assert views.batch([(0, 4), (1, 0)])[1].tolist() == [0, 0]
    assert views.fingerprint != ArcViews(tasks, None, ARC, views=5, seed=2).fingerprint
    mixed = ArcViews(tasks, index_of(tasks[:1], 4), ARC, views=3)
    assert mixed.protocol == "mixed: 1 of 3 tasks are in the puzzle table"
    assert ArcViews(tasks, None, ARC, views=1, protocol="transductive").protocol == "transductive"


def test_the_protocol_is_what_the_table_can_tell() -> None:
    tasks = arc_tasks()[:4]
    names = [f"{task.subset}/{task.id}" for task in tasks[:2]]
    known, others = index_of(tasks[:2], 2), index_of(tasks[2:], 2)
    assert protocol_of(names, known) == "transductive"
    assert protocol_of(names, others) == "inductive"
    assert protocol_of([names[0], "evaluation/x"], known) == "mixed: 1 of 2 tasks are in the puzzle table"
    # The same id in another subset is the same task (ARC-2 holds most of ARC-1, a file has any subset).
    moved = [name.replace(tasks[0].subset, "training2") for name in names]
    assert protocol_of(moved, known) == "transductive"
    # Rows that nobody described, or no rows.
    for index in (None, PuzzleIndex.blank(), PuzzleIndex.numbered(5)):
        assert protocol_of(names, index) == "unstated"


def test_unknown_answers_and_what_is_refused() -> None:
    grid = np.ones((3, 4), dtype=np.uint8)
    secret = ArcTask("x", "test", (Pair(grid, grid),), (Pair(grid, None),))
    assert ArcViews([secret], None, ARC, views=1).inputs[0].reference is None
    with pytest.raises(ValueError, match=r"task 'test/x', test 1: the grid is 3 x 4, at most 3 x 3"):
        ArcViews([secret], None, GridProcessor("arc", grid_shape=(3, 3)), views=1)
    with pytest.raises(ValueError, match="'test/x' is given twice"):
        ArcViews([secret, secret], None, ARC, views=1)
    for tasks in ([], [replace(secret, test=())]):
        with pytest.raises(ValueError, match="no arc task with a test to evaluate; a list of pairs"):
            ArcViews(tasks, None, ARC)
    with pytest.raises(ValueError, match="views=0 is not allowed; allowed: whole numbers from 1"):
        ArcViews([secret], None, ARC, views=0)


@pytest.mark.parametrize("task", ["sudoku", "maze"])
def test_puzzles_come_back(task: str) -> None:
    """Every view of questions and answers is undone to their text; view 0 is the puzzle itself."""
    puzzles = load_puzzles(task, "test").select(np.arange(3))
    views = PuzzleViews(puzzles, 10, seed=2)
    assert set(views.views_of_input) == {8 if task == "maze" else 10}
    labels = PuzzleViews(PuzzleSet(task, puzzles.labels, puzzles.labels, *columns(puzzles)), 10, seed=2)
    for number, item in enumerate(views.inputs):
        assert item.task_id.endswith(f"/{number}") and item.pair == 0
        items = [(number, view) for view in range(views.views_of_input[number])]
        (questions, puzzle_ids), (answers, _) = views.batch(items), labels.batch(items)
        assert puzzle_ids.tolist() == [0] * len(items)
        assert np.array_equal(questions[0], puzzles.inputs[number])
        assert len({grid_hash(str(ids.tolist())) for ids in questions}) == len(items)
        for view in range(len(items)):
            assert views.undo(number, view, questions[view]) == item.question
            assert views.undo(number, view, answers[view]) == item.reference


def columns(puzzles: PuzzleSet) -> tuple:
    return puzzles.sources, puzzles.ratings, puzzles.processor


def test_puzzle_views_do_not_depend_on_their_number_and_answers_of_padding_are_no_grid() -> None:
    puzzles = load_puzzles("sudoku", "test").select(np.arange(2))
    few, many = PuzzleViews(puzzles, 2, seed=1), PuzzleViews(puzzles, 9, seed=1)
    assert np.array_equal(few.batch([(1, 1)])[0], many.batch([(1, 1)])[0])
    assert len({few.fingerprint, many.fingerprint, PuzzleViews(puzzles, 2, seed=2).fingerprint}) == 3
    assert few.undo(0, 1, np.zeros(81, dtype=np.uint8)) == ""


def test_oblong_mazes_and_unknown_symmetries() -> None:
    ids = np.array([[3, 2, 4, 1, 1, 1]], dtype=np.uint8)
    oblong = PuzzleSet("maze", ids, ids, np.array(["a"]), np.array([0]), GridProcessor("maze", grid_shape=(2, 3)))
    views = PuzzleViews(oblong, 8, seed=0)
    assert views.views_of_input.tolist() == [4]
    batch, _ = views.batch([(0, view) for view in range(4)])
    assert [views.undo(0, view, batch[view]) for view in range(4)] == [views.inputs[0].question] * 4
    own = PuzzleSet("grid", *[ids] * 2, *columns(oblong)[:2], GridProcessor("grid", grid_shape=(2, 3), alphabet="abcd"))
    with pytest.raises(ValueError, match="'grid' has no known augmentations; allowed: sudoku, maze"):
        PuzzleViews(own, 2)
    with pytest.raises(ValueError, match="empty"):
        PuzzleViews(oblong.select(np.array([], dtype=int)), 2)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_items_come_view_by_view(views_of_input: list[int], data: st.DataObject) -> None:
    expected = [(i, v) for v in range(max(views_of_input)) for i, count in enumerate(views_of_input) if count > v]
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    assert locate_items(np.array(views_of_input), range(start, stop)) == expected[start:stop]
