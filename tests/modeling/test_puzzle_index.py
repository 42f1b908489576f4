"""PuzzleIndex against lists of names, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_trm.puzzle_index_trm import IDENTITY, PuzzleIndex, bare_id
from tests.oracles.puzzle_table import make_index

ROWS = {"a": 3, "b": 1, "c": 2}


def test_blank_index_is_one_identity_row() -> None:
    index = PuzzleIndex.blank()
    assert (len(index), index.tasks, index.task_of_row.tolist()) == (1, (), [-1])
    assert index.augmentation_of_row.tolist() == [[0, *range(10)]]
    assert PuzzleIndex.numbered(1).fingerprint == index.fingerprint


def test_numbered_index_names_rows_by_their_number() -> None:
    index = PuzzleIndex.numbered(12)
    assert [index.rows_of(str(row)).tolist() for row in range(1, 12)] == [[row] for row in range(1, 12)]


counts = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 4), max_size=6)


@given(counts, st.data())
def test_index_against_lists(rows_of_task: dict[str, int], data: st.DataObject) -> None:
    index = make_index(rows_of_task)
    names = [None if number < 0 else index.tasks[number] for number in index.task_of_row]
    for task in rows_of_task:
        assert task in index
        assert index.rows_of(task).tolist() == [row for row, name in enumerate(names) if name == task]
        assert index.rows_of(task).dtype == np.int64
    wanted = data.draw(st.lists(st.sampled_from(sorted(rows_of_task)))) if rows_of_task else []
    selected, rows = index.select(wanted)
    assert rows.tolist() == [row for row, name in enumerate(names) if name is None or name in wanted]
    assert selected.tasks == tuple(task for task in index.tasks if task in wanted)
    assert [None if n < 0 else selected.tasks[n] for n in selected.task_of_row] == [names[row] for row in rows]
    assert np.array_equal(selected.augmentation_of_row, index.augmentation_of_row[rows])
    rest, _ = index.select(task for task in index.tasks if task not in wanted)
    joined = selected.joined(rest)
    assert len(joined) == len(index)
    assert joined.select(wanted)[0].fingerprint == selected.fingerprint


def test_fingerprint_covers_every_field() -> None:
    one = make_index(ROWS)
    assert one.fingerprint == make_index(ROWS).fingerprint
    others = [
        PuzzleIndex(("a", "b", "d"), one.task_of_row, one.augmentation_of_row),
        PuzzleIndex(one.tasks, [-1, *one.task_of_row[:0:-1]], one.augmentation_of_row),
        make_index(ROWS, seed=1),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_task_is_found_by_its_name_or_else_by_its_id() -> None:
    index = make_index({"training/a": 1, "evaluation/a": 1, "b": 2})
    names = ("evaluation/a", "test/a", "a", "test/b", "b", "training/c", "c")
    assert [index.name_of(name) for name in names] == ["evaluation/a", "training/a", "training/a", "b", "b", None, None]
    assert PuzzleIndex.numbered(4).name_of("test/2") is None  # rows that nobody has described
    assert [bare_id(name) for name in ("training/a", "a")] == ["a", "a"]


def test_index_does_not_change() -> None:
    index = make_index(ROWS)
    for array in (index.task_of_row, index.augmentation_of_row, index.rows_of("a")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def identity_rows(count: int) -> np.ndarray:
    return np.tile(IDENTITY, (count, 1))


@pytest.mark.parametrize(
    ("tasks", "task_of_row", "augmentation_of_row", "named"),
    [
        (("a", "a"), [-1, 0], identity_rows(2), "tasks holds 'a' twice"),
        (("",), [-1, 0], identity_rows(2), "tasks holds ''"),
        ("ab", [-1, 0, 1], identity_rows(3), "tasks='ab' is one name"),
        ((), [], identity_rows(0), r"task_of_row\[0\] must be -1"),
        (("a",), [0, 0], identity_rows(2), r"task_of_row\[0\] must be -1"),
        (("a",), [-1, 0, -1], identity_rows(3), r"task_of_row\[2\] is -1; allowed: 0..0"),
        (("a",), [-1, 0, 1], identity_rows(3), r"task_of_row\[2\] is 1; allowed: 0..0"),
        (("a", "b"), [-1, 0, 0], identity_rows(3), "no row to the task 'b'"),
        (("a",), [-1, 2**40], identity_rows(2), "task_of_row holds -1..1099511627776"),
        (("a",), [-1.0, 0.0], identity_rows(2), "task_of_row is float64"),
        (("a",), [-1, 0], identity_rows(3), r"augmentation_of_row has shape \[3, 11\]; allowed: \[2, 11\]"),
        (("a",), [-1, 0], identity_rows(2)[:, :10], r"augmentation_of_row has shape \[2, 10\]"),
        (("a",), [-1, 0], identity_rows(2).astype(int) + 256, "augmentation_of_row holds 256..265; allowed: 0..255"),
        (("a",), [-1, 0], identity_rows(2)[:, ::-1], r"augmentation_of_row\[0\] is .* allowed: the identity"),
        (("a",), [-1, 0], np.array([IDENTITY, [8, *range(10)]]), r"augmentation_of_row\[1\] is \[8, "),
        (("a",), [-1, 0], np.array([IDENTITY, [0, 0, *range(9)]]), r"augmentation_of_row\[1\] is \[0, 0, 0, "),
        (("a",), [-1, 0], np.array([IDENTITY, [0, *range(1, 11)]]), r"augmentation_of_row\[1\] is \[0, 1, "),
        (("a",), [-1, 0], np.array([IDENTITY, [0, *range(9), 255]]), "permutation of the colours 0..9"),
    ],
)
def test_bad_index_is_refused(tasks: Any, task_of_row: Any, augmentation_of_row: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        PuzzleIndex(tasks, np.array(task_of_row, dtype=None if task_of_row else int), augmentation_of_row)


def test_unknown_and_shared_tasks_are_named() -> None:
    index = make_index({"00576224": 2, "007bbfb7": 1})
    with pytest.raises(ValueError, match=r"'00576225' has no row .* did you mean '00576224'\?"):
        index.rows_of("00576225")
    with pytest.raises(ValueError, match="2 tasks are in the puzzle table already: '007bbfb7', '00576224'"):
        index.joined(make_index({"x": 1, "007bbfb7": 1, "00576224": 1}))
    with pytest.raises(ValueError, match="tasks='007bbfb7' is one name"):
        index.select("007bbfb7")
