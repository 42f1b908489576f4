"""The training stream: a pure function of (seed, index), batch equal to values, the mix of sources, the curriculum."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_builders.features import load_puzzles
from datasets_builders.mazes import are_shortest_paths
from datasets_builders.sampling import TrainingStream
from datasets_builders.validation import check_tokens
from modeling_trm.randomness_trm import GOLDEN_GAMMA, mix, random_bits, subset_rows

SUDOKU = load_puzzles("sudoku", "validation")
MAZE = load_puzzles("maze", "validation", subset=20)


def assert_same_rows(rows, others):
    for name in ("inputs", "labels", "puzzle_ids"):
        np.testing.assert_array_equal(rows[name], others[name])


@settings(max_examples=20)
@given(st.integers(0, 2**40), st.lists(st.integers(0, 10_000), min_size=1, max_size=20), st.sampled_from([0.0, 0.4]))
def test_rows_do_not_depend_on_the_batch(seed, indices, reveal):
    stream = TrainingStream(SUDOKU, seed=seed)
    batch = stream.rows(np.array(indices), reveal)
    single = [TrainingStream(SUDOKU, seed=seed).rows(np.array([index]), reveal) for index in indices]
    assert_same_rows(batch, {name: np.concatenate([row[name] for row in single]) for name in batch})
    assert batch["inputs"].dtype == batch["labels"].dtype == np.uint8
    assert batch["puzzle_ids"].dtype == np.int64


def test_rows_are_the_augmented_puzzles():
    stream = TrainingStream(SUDOKU, seed=7)
    indices = np.arange(1490, 1510)  # over the end of an epoch
    rows = stream.rows(indices)
    for place, (index, number) in enumerate(zip(indices, stream.puzzle_numbers(indices), strict=True)):
        augmentation = stream.augmentation(int(index))
        np.testing.assert_array_equal(rows["inputs"][place], augmentation.apply(SUDOKU.inputs[number]))
        np.testing.assert_array_equal(rows["labels"][place], augmentation.apply(SUDOKU.labels[number]))
        np.testing.assert_array_equal(augmentation.inverse().apply(rows["inputs"][place]), SUDOKU.inputs[number])
    assert check_tokens(SUDOKU.processor, rows["inputs"], rows["labels"]) == {}


def test_an_epoch_takes_every_puzzle_once_and_epochs_differ():
    stream = TrainingStream(SUDOKU, seed=0)
    first, second = (stream.puzzle_numbers(np.arange(start, start + 1500)) for start in (0, 1500))
    assert sorted(first) == sorted(second) == list(range(1500))
    assert (first != second).mean() > 0.9
    other = TrainingStream(SUDOKU, seed=1).puzzle_numbers(np.arange(1500))
    assert (first != other).mean() > 0.9


def test_the_mixer_is_splitmix64():
    """First outputs of the published generator for seed 0 (its state grows by the golden gamma)."""
    states = np.arange(1, 4, dtype=np.uint64) * GOLDEN_GAMMA
    assert [hex(value) for value in mix(states).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def test_the_stream_is_pinned():
    """These values must never change: a run resumed under a newer version has to see the same rows."""
    assert random_bits(0, np.array([0, 1]), 3, 2).tolist() == PINNED_BITS
    assert TrainingStream(SUDOKU, seed=42).puzzle_numbers(np.arange(5)).tolist() == PINNED_NUMBERS
    assert str(TrainingStream(SUDOKU, seed=42).augmentation(123)) == PINNED_AUGMENTATION
    assert subset_rows(np.arange(20), 5, seed=0).tolist() == PINNED_SUBSET


PINNED_BITS = [[18398703412132867444, 12023888277915545477], [2174119644958491508, 14889367633689853139]]
PINNED_NUMBERS = [106, 807, 197, 789, 740]
PINNED_AUGMENTATION = "sudoku/1/354012768/867543120/451872306"
PINNED_SUBSET = [0, 4, 8, 9, 11]


def test_source_weights_set_the_mix():
    weights = {"gen_easy": 3.0, "gen_unbiased": 1.0, "gen_vicinity_hard": 0.0}
    stream = TrainingStream(SUDOKU, seed=0, source_weights=weights)
    numbers = stream.puzzle_numbers(np.arange(4000))
    share = (SUDOKU.sources[numbers] == "gen_easy").mean()
    assert abs(share - 0.75) < 0.04
    assert not (SUDOKU.sources[numbers] == "gen_vicinity_hard").any()
    np.testing.assert_array_equal(stream.puzzle_numbers(np.arange(100, 200)), numbers[100:200])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"gen_esay": 1.0}, r"names \['gen_esay'\], which the puzzle set lacks; it has \['gen_easy', 'gen_unbiased'"),
        ({"gen_easy": 0.0}, "one of them must be above 0"),
        ({"gen_easy": 2.0, "gen_unbiased": -1.0}, "'gen_unbiased' is -1.0; allowed: finite numbers from 0"),
        ({"gen_easy": float("nan")}, "'gen_easy' is nan; allowed: finite numbers from 0"),
        ({"gen_easy": float("inf")}, "'gen_easy' is inf; allowed: finite numbers from 0"),
        ({"gen_easy": None}, "'gen_easy' is None; allowed: finite numbers from 0"),
        ({"gen_easy": [1]}, r"'gen_easy' is \[1\]; allowed: finite numbers from 0"),
    ],
)
def test_bad_source_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        TrainingStream(SUDOKU, seed=0, source_weights=weights)


@pytest.mark.parametrize("reveal", [0.1, 0.5, 1.0])
def test_reveal_fills_in_up_to_that_share_with_the_answer(reveal):
    stream = TrainingStream(SUDOKU, seed=5)
    indices = np.arange(512)
    plain, rows = stream.rows(indices), stream.rows(indices, reveal)
    filled = (plain["inputs"] == 1) & (rows["inputs"] != 1)
    np.testing.assert_array_equal(rows["inputs"][filled], rows["labels"][filled])
    np.testing.assert_array_equal(rows["inputs"][~filled], plain["inputs"][~filled])
    np.testing.assert_array_equal(rows["labels"], plain["labels"])
    shares = filled.sum(axis=1) / (plain["inputs"] == 1).sum(axis=1)
    one_cell = 0.5 / 30  # rounding: no puzzle has fewer blanks
    assert shares.max() <= reveal + one_cell
    # Uniform from 0 to reveal: the quartiles, within five standard errors of 512 draws.
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.5, 0.75]) / reveal, [0.25, 0.5, 0.75], atol=0.11 + one_cell)


def test_reveal_grows_in_place():
    """A cell revealed at one share stays revealed at every greater one."""
    stream = TrainingStream(SUDOKU, seed=5)
    few, many = (stream.rows(np.arange(32), reveal)["inputs"] != 1 for reveal in (0.3, 0.6))
    assert (few <= many).all() and few.sum() < many.sum()


def test_reveal_is_checked():
    with pytest.raises(ValueError, match=r"reveal=1\.5 must be between 0 and 1"):
        TrainingStream(SUDOKU, seed=0).rows(np.arange(2), 1.5)
    with pytest.raises(ValueError, match="for Sudoku only; the puzzles are of task 'maze'"):
        TrainingStream(MAZE, seed=0).rows(np.arange(2), 0.5)


def test_augmented_mazes_have_derived_answers():
    stream = TrainingStream(MAZE, seed=0)
    indices = np.arange(100)
    rows = stream.rows(indices)
    mazes, answers = (rows[name].reshape(-1, 30, 30) for name in ("inputs", "labels"))
    assert are_shortest_paths(mazes, answers).all()
    assert {stream.augmentation(int(index)).number for index in indices} == set(range(8))
    for index, number, maze in zip(indices, stream.puzzle_numbers(indices), mazes, strict=True):
        turned = stream.augmentation(int(index)).apply(MAZE.inputs[number].reshape(30, 30))
        np.testing.assert_array_equal(maze, turned)


def test_mazes_with_answers_of_another_tie_break_are_told():
    others = load_puzzles("maze", "validation", subset=20)
    others.labels[0] = others.inputs[0]
    with pytest.warns(UserWarning, match="1 of 20 mazes have another shortest path as their answer"):
        TrainingStream(others, seed=0).rows(np.arange(4))


def test_without_augmentation_the_rows_are_the_puzzles():
    for puzzles in (SUDOKU, MAZE):
        stream = TrainingStream(puzzles, seed=3, augment=False)
        numbers = stream.puzzle_numbers(np.arange(15))
        rows = stream.rows(np.arange(15))
        np.testing.assert_array_equal(rows["inputs"], puzzles.inputs[numbers])
        np.testing.assert_array_equal(rows["labels"], puzzles.labels[numbers])
        assert stream.augmentation(3) is None


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="empty"):
        TrainingStream(SUDOKU.select(np.array([], dtype=int)), seed=0)


def test_sampling_needs_no_data_library():
    code = "import sys, datasets_builders.sampling; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert not loaded & {"datasets", "pyarrow", "pandas"}
