"""Views as values: there and back, drawn by (seed, puzzle, number) alone, the same ones for whoever draws them."""

import numpy as np
import pytest

from datasets_builders.features import PuzzleSet, load_puzzles
from datasets_builders.validation import check_sudoku
from modeling_trm import GridProcessor
from modeling_trm.arc_augmentation_trm import ArcAugmentation, draw_augmentations
from modeling_trm.arc_task_trm import ArcTask, Pair
from modeling_trm.views_trm import View, answer_text, arc_augmentations, arc_view, check_views, draw_view, most_views
from modeling_trm.voting.views import ArcViews, PuzzleViews

SEED, COUNT = 5, 6
COLOURS = np.array([[1, 0, 0], [2, 3, 4]], dtype=np.uint8)


@pytest.fixture(params=["sudoku", "maze"])
def puzzles(request: pytest.FixtureRequest) -> PuzzleSet:
    return load_puzzles(request.param, "test").select(np.arange(COUNT))


def draw(puzzles: PuzzleSet, number: int, view: int) -> View:
    return draw_view(puzzles.task, puzzles.processor.grid_shape, SEED, number, view)


def test_they_are_those_that_vote(puzzles: PuzzleSet) -> None:
    voting = PuzzleViews(puzzles, 8, SEED)
    for number in range(COUNT):
        for view in range(8):
            drawn = draw(puzzles, number, view)
            assert np.array_equal(drawn.apply(puzzles.inputs[number]), voting.batch([(number, view)])[0][0])
            answer = drawn.apply(puzzles.labels[number])
            back = drawn.undo(answer)
            assert np.array_equal(back, puzzles.labels[number])
            assert puzzles.processor.decode(back) == voting.undo(number, view, answer)


def test_those_of_the_pipeline_are_those_of_an_evaluation(echo_pipeline) -> None:
    """Of puzzles in the same order, with the same seed."""
    processor = GridProcessor("sudoku", grid_shape=(4, 4))
    pipe, echo = echo_pipeline(processor)
    texts = ["1.3.....2...4...", "4...3......1...2", "..2....1.3......"]
    pipe(texts, views=5, seed=SEED)
    ids = processor(texts)["input_ids"].numpy().astype(np.uint8)
    puzzles = PuzzleSet("sudoku", ids, ids, np.array(["a"] * 3), np.zeros(3, dtype=int), processor)
    voting, _ = PuzzleViews(puzzles, 5, SEED).batch([(number, view) for number in range(3) for view in range(5)])
    assert np.array_equal(np.concatenate(echo.input_ids), voting)


def test_there_and_back_of_any_ids_and_of_many_at_once(puzzles: PuzzleSet) -> None:
    ids = np.random.RandomState(0).randint(0, puzzles.processor.vocab_size, (2, 3, puzzles.inputs.shape[1]))
    for number in range(8):
        view = draw(puzzles, 4, number)
        moved = view.apply(ids)
        assert moved.dtype == ids.dtype and moved.flags.c_contiguous
        assert np.array_equal(moved[1, 2], view.apply(ids[1, 2]))
        assert np.array_equal(view.undo(moved), ids)
        assert np.array_equal(moved, ids) == (number == 0)


def test_a_relabelled_sudoku_is_a_sudoku_and_views_differ() -> None:
    puzzles = load_puzzles("sudoku", "test").select(np.arange(2))
    decode, seen = puzzles.processor.decode, set()
    for number in range(2):
        for view in range(20):
            pair = [decode(draw(puzzles, number, view).apply(ids[number])) for ids in (puzzles.inputs, puzzles.labels)]
            check_sudoku(*pair)
            seen.add(pair[0])
    assert len(seen) == 40


def test_how_many_views_there_are() -> None:
    assert most_views("sudoku", (9, 9), 1000) == 1000
    assert [most_views("maze", (30, 30), views) for views in (3, 9)] == [3, 8]
    assert most_views("maze", (4, 5), 9) == 4
    check_views("grid", 1)
    with pytest.raises(ValueError, match="views=2: task='grid' has no known augmentations; allowed: sudoku, maze, arc"):
        check_views("grid", 2)
    with pytest.raises(ValueError, match="views=0 is not allowed; allowed: whole numbers from 1"):
        check_views("maze", 0)


def test_the_string_form_gives_the_view_again(puzzles: PuzzleSet) -> None:
    shape = tuple(puzzles.processor.grid_shape)
    views = [draw(puzzles, 2, number) for number in range(6)]
    views.append(arc_view(shape, 3, ArcAugmentation(5, (0, 2, 3, 4, 5, 6, 7, 8, 9, 1)).to_bytes()))
    texts = [str(view) for view in views]
    assert len(set(texts)) == 7 and texts[0] == "as it is"
    assert [View.from_string(text, shape, view.puzzle_row) for text, view in zip(texts, views)] == views
    with pytest.raises(ValueError, match="'chess/1' is no view; allowed: 'as it is', sudoku"):
        View.from_string("chess/1", shape)


def test_arc_answers_come_back_cropped_and_what_is_no_grid_stays_none() -> None:
    processor = GridProcessor("arc", grid_shape=(4, 5))
    view = arc_view((4, 5), 7, ArcAugmentation(5, (0, 2, 3, 4, 5, 6, 7, 8, 9, 1)).to_bytes())
    ids = processor.encode(COLOURS.tolist()).numpy().astype(np.uint8)
    moved = view.apply(ids)
    assert view.puzzle_row == 7 and moved.dtype == np.uint8
    assert processor.decode(moved) == view.augmentation.apply(COLOURS).tolist()
    assert np.array_equal(view.undo(moved), ids)
    for nothing in (0, 1):
        assert answer_text(processor, view.undo(np.full(20, nothing))) == ""
    wide = processor.encode([[1] * 5]).numpy()  # undone it is 5 x 1, which the canvas does not hold
    assert answer_text(processor, view.undo(wide)) == ""
    with pytest.raises(ValueError, match="a 5 x 1 grid does not fit"):
        view.apply(wide)


def test_a_task_without_rows_is_drawn_as_the_evaluation_draws_it() -> None:
    task = ArcTask("a1", "evaluation", (Pair(np.array([[1, 2]]), np.array([[2, 1]])),), (Pair(COLOURS, None),))
    rows, augmentations = arc_augmentations(task, "evaluation/a1", None, (30, 30), 9, seed=4)
    assert set(rows) == {0} and np.array_equal(augmentations, draw_augmentations(task, 8, seed=4))
    voting = ArcViews([task], None, GridProcessor("arc"), views=9, seed=4)
    views = [arc_view((30, 30), 0, row) for row in augmentations]
    ids = GridProcessor("arc").encode(COLOURS.tolist()).numpy()
    assert np.array_equal(np.stack([view.apply(ids) for view in views]), voting.batch([(0, v) for v in range(9)])[0])
