"""Views as token ids: those that vote in `PuzzleViews`, and the way back."""

import numpy as np
import pytest

from datasets_builders.features import PuzzleSet, load_puzzles
from datasets_builders.validation import check_sudoku
from modeling_trm.evaluation.relabelling import Relabelling
from modeling_trm.voting.views import PuzzleViews

SEED, COUNT = 5, 6


@pytest.fixture(params=["sudoku", "maze"])
def puzzles(request: pytest.FixtureRequest) -> PuzzleSet:
    return load_puzzles(request.param, "test").select(np.arange(COUNT))


def relabelling_of(puzzles: PuzzleSet) -> Relabelling:
    return Relabelling(puzzles.task, tuple(puzzles.processor.grid_shape), SEED)


def test_views_are_those_that_vote(puzzles: PuzzleSet) -> None:
    voting, relabelling = PuzzleViews(puzzles, 8, SEED), relabelling_of(puzzles)
    for number in range(COUNT):
        for view in range(8):
            moved = relabelling.apply(number, view, puzzles.inputs[number])
            assert np.array_equal(moved, voting.batch([(number, view)])[0][0])
            answer = relabelling.apply(number, view, puzzles.labels[number])
            back = relabelling.undo(number, view, answer)
            assert np.array_equal(back, puzzles.labels[number])
            assert puzzles.processor.decode(back) == voting.undo(number, view, answer)


def test_there_and_back_of_any_ids_and_of_many_at_once(puzzles: PuzzleSet) -> None:
    relabelling = relabelling_of(puzzles)
    ids = np.random.RandomState(0).randint(0, puzzles.processor.vocab_size, (2, 3, puzzles.inputs.shape[1]))
    for view in range(8):
        moved = relabelling.apply(4, view, ids)
        assert moved.dtype == ids.dtype and moved.flags.c_contiguous
        assert np.array_equal(moved[1, 2], relabelling.apply(4, view, ids[1, 2]))
        assert np.array_equal(relabelling.undo(4, view, moved), ids)
        assert np.array_equal(moved, ids) == (view == 0)


def test_a_relabelled_sudoku_is_a_sudoku_and_views_differ() -> None:
    puzzles = load_puzzles("sudoku", "test").select(np.arange(2))
    relabelling, decode = relabelling_of(puzzles), puzzles.processor.decode
    seen = set()
    for number in range(2):
        for view in range(20):
            pair = [decode(relabelling.apply(number, view, ids[number])) for ids in (puzzles.inputs, puzzles.labels)]
            check_sudoku(*pair)
            seen.add(pair[0])
    assert len(seen) == 40


def test_how_many_views_there_are() -> None:
    assert Relabelling("sudoku", (9, 9)).most is None
    assert Relabelling("maze", (30, 30)).most == 8
    assert Relabelling("maze", (4, 5)).most == 4
    with pytest.raises(ValueError, match="task='arc' has no known augmentations; allowed: sudoku, maze"):
        Relabelling("arc", (30, 30))
