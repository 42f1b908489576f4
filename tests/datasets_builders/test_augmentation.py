"""Augmentations: inverse, string form, what they keep, and that a batch draw equals the drawn values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_builders.validation import check_sudoku
from modeling_trm.augmentation_trm import Dihedral, MazeAugmentation, SudokuAugmentation, SudokuDraws, draw_dihedral
from modeling_trm.processing_trm import GridProcessor

SIDES = st.sampled_from([4, 9, 16])
SEEDS = st.integers(0, 2**63 - 1)
INDICES = st.integers(0, 2**62)


def solved(side):
    """A solved Sudoku as token ids: rows shifted by the box side, bands by one."""
    box = math.isqrt(side)
    rows, columns = np.indices((side, side))
    return ((rows * box + rows // box + columns) % side + 2).reshape(-1).astype(np.uint8)


def with_blanks(ids, seed):
    return np.where(np.random.default_rng(seed).random(ids.shape) < 0.5, np.uint8(1), ids)


@given(SEEDS, INDICES, SIDES)
def test_inverse_undoes_a_sudoku_augmentation(seed, index, side):
    augmentation = SudokuAugmentation.draw(seed, index, side)
    ids = with_blanks(solved(side), index % 1000)
    before = ids.copy()
    np.testing.assert_array_equal(augmentation.inverse().apply(augmentation.apply(ids)), ids)
    np.testing.assert_array_equal(augmentation.apply(augmentation.inverse().apply(ids)), ids)
    np.testing.assert_array_equal(ids, before)
    assert augmentation.inverse().inverse() == augmentation


@given(SEEDS, INDICES, SIDES)
def test_the_answer_of_a_transformed_sudoku_is_right(seed, index, side):
    augmentation = SudokuAugmentation.draw(seed, index, side)
    answer = solved(side)
    question = with_blanks(answer, index % 1000)
    processor = GridProcessor("sudoku", grid_shape=(side, side))
    texts = [processor.decode(augmentation.apply(ids)) for ids in (question, answer)]
    check_sudoku(*texts)
    assert texts[0].count(".") == (question == 1).sum()


@given(SEEDS, INDICES, SIDES)
def test_sudoku_string_form(seed, index, side):
    augmentation = SudokuAugmentation.draw(seed, index, side)
    assert SudokuAugmentation.from_string(str(augmentation)) == augmentation


@given(SEEDS, st.lists(INDICES, min_size=1, max_size=8), SIDES)
def test_sudoku_batch_equals_values(seed, indices, side):
    ids = np.stack([with_blanks(solved(side), i) for i in range(len(indices))])
    batch = SudokuDraws.draw(seed, np.array(indices), side).apply(ids)
    values = [SudokuAugmentation.draw(seed, i, side).apply(row) for i, row in zip(indices, ids, strict=True)]
    np.testing.assert_array_equal(batch, np.stack(values))
    assert batch.dtype == ids.dtype


def test_sudoku_draws_are_uniform():
    """Each digit, row and column lands everywhere equally often, and half of the grids are transposed."""
    draws = SudokuDraws.draw(0, np.arange(9000))
    for field in (draws.digits, draws.rows, draws.columns):
        counts = np.stack([(field == value).sum(axis=0) for value in range(9)])
        assert np.abs(counts - 1000).max() < 160  # five standard deviations
    assert abs(draws.transpose.mean() - 0.5) < 0.03


def test_padding_and_blank_stay():
    augmentation = SudokuAugmentation.draw(3, 4)
    assert set(augmentation.apply(np.zeros(81, dtype=np.uint8))) == {0}
    assert set(augmentation.apply(np.ones((2, 81), dtype=np.int64)).ravel()) == {1}


@pytest.mark.parametrize(
    "text",
    [
        "sudoku/0/012345678/012345678",
        "sudoku/2/012345678/012345678/012345678",
        "sudoku/0/012345678/012345678/01234567!",
        "sudoku/0/312045678/012345678/012345678",  # takes the first band apart
        "sudoku/0/012345678/012345678/112345678",  # no permutation
        "maze/000",
    ],
)
def test_bad_sudoku_strings_are_refused(text):
    with pytest.raises(ValueError, match=r"sudoku|Sudoku|permutation"):
        SudokuAugmentation.from_string(text)


@given(st.integers(0, 7), st.integers(1, 6), st.integers(1, 6))
def test_maze_inverse_and_string_form(number, height, width):
    augmentation = MazeAugmentation.from_number(number)
    grid = np.arange(height * width).reshape(height, width)
    np.testing.assert_array_equal(augmentation.inverse().apply(augmentation.apply(grid)), grid)
    assert MazeAugmentation.from_string(str(augmentation)) == augmentation
    assert augmentation.number == number


@pytest.mark.parametrize("number", range(8))
def test_dihedral_maps_are_those_of_mazes(number):
    dihedral, maze = Dihedral.from_number(number), MazeAugmentation.from_number(number)
    grid = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(dihedral.apply(grid), maze.apply(grid))
    np.testing.assert_array_equal(dihedral.inverse().apply(dihedral.apply(grid)), grid)
    assert (type(dihedral.inverse()), type(maze.inverse())) == (Dihedral, MazeAugmentation)
    assert dihedral.number == number


@pytest.mark.parametrize("number", [-1, 8])
def test_there_are_eight_dihedral_maps(number):
    with pytest.raises(ValueError, match=rf"dihedral map {number} must be one of 0\.\.7"):
        Dihedral.from_number(number)


def test_the_eight_maze_augmentations_differ():
    grid = np.arange(9).reshape(3, 3)
    assert len({MazeAugmentation.from_number(n).apply(grid).tobytes() for n in range(8)}) == 8
    assert set(draw_dihedral(0, np.arange(200)).tolist()) == set(range(8))
    assert set(draw_dihedral(0, np.arange(200), square=False).tolist()) == set(range(4))
    assert MazeAugmentation.draw(5, 6).number == draw_dihedral(5, np.array([6]))[0]
    with pytest.raises(ValueError, match="no maze augmentation"):
        MazeAugmentation.from_string("maze/012")
