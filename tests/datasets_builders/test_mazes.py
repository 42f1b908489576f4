"""Maze distances and answers against a naive breadth-first search; the answer after a symmetry; what is accepted."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_builders.features import load_puzzles
from datasets_builders.mazes import (
    GOAL,
    OPEN,
    PATH,
    START,
    UNREACHABLE,
    WALL,
    are_shortest_paths,
    distances_to_goal,
    solve_mazes,
)
from datasets_builders.validation import DataError, PuzzleError, check_maze, maze_path_is_valid_and_shortest
from modeling_trm.augmentation_trm import MazeAugmentation

ORDER = ((-1, 0), (1, 0), (0, -1), (0, 1))


def naive_distances(maze):
    height, width = maze.shape
    distances = np.full(maze.shape, UNREACHABLE)
    goal = tuple(np.argwhere(maze == GOAL)[0])
    distances[goal] = 0
    queue = deque([goal])
    while queue:
        r, c = queue.popleft()
        for dr, dc in ORDER:
            cell = (r + dr, c + dc)
            inside = 0 <= cell[0] < height and 0 <= cell[1] < width
            if inside and maze[cell] != WALL and distances[cell] == UNREACHABLE:
                distances[cell] = distances[r, c] + 1
                queue.append(cell)
    return distances


def naive_answer(maze):
    distances, answer = naive_distances(maze), maze.copy()
    cell = tuple(np.argwhere(maze == START)[0])
    while distances[cell] > 1:
        around = [(cell[0] + dr, cell[1] + dc) for dr, dc in ORDER]
        inside = [n for n in around if 0 <= n[0] < maze.shape[0] and 0 <= n[1] < maze.shape[1]]
        cell = next(n for n in inside if distances[n] == distances[cell] - 1)
        answer[cell] = PATH
    return answer


@st.composite
def maze_batches(draw):
    """A few mazes of one shape; not all of them have a way from S to G."""
    num, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mazes = np.where(rng.random((num, height * width)) < 0.35, WALL, OPEN).astype(np.uint8)
    for maze in mazes:
        start, goal = rng.choice(height * width, size=2, replace=False)
        maze[start], maze[goal] = START, GOAL
    return mazes.reshape(num, height, width)


@given(maze_batches())
def test_distances_and_answers_are_those_of_a_naive_search(mazes):
    before = mazes.copy()
    np.testing.assert_array_equal(distances_to_goal(mazes), np.stack([naive_distances(maze) for maze in mazes]))
    answers = solve_mazes(mazes)
    np.testing.assert_array_equal(mazes, before)
    reachable = np.array([naive_distances(maze)[maze == START][0] > 0 for maze in mazes])
    for maze, answer in zip(mazes[reachable], answers[reachable], strict=True):
        np.testing.assert_array_equal(answer, naive_answer(maze))
    np.testing.assert_array_equal(are_shortest_paths(mazes, answers), reachable)


@given(maze_batches(), st.integers(0, 7))
def test_a_turned_answer_stays_a_shortest_path(mazes, number):
    """...although it is, as a rule, not the tie-broken one, which is why answers are derived anew."""
    turn = MazeAugmentation.from_number(number).apply
    np.testing.assert_array_equal(
        are_shortest_paths(turn(mazes), turn(solve_mazes(mazes))), are_shortest_paths(mazes, solve_mazes(mazes))
    )


def test_shipped_answers_follow_the_stated_tie_break():
    puzzles = load_puzzles("maze", "validation", validate="all")
    mazes = puzzles.inputs.reshape(-1, 30, 30)
    np.testing.assert_array_equal(solve_mazes(mazes).reshape(len(puzzles), -1), puzzles.labels)
    np.testing.assert_array_equal(distances_to_goal(mazes)[mazes == START], puzzles.ratings)


SQUARE = "S #   #G "  # S . # / . . . / # G .


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("So# o #G ", None),
        ("S #oo #G ", None),
        ("S # o #G ", "1 path cells"),  # not connected
        ("So#oo #G ", "3 path cells"),  # a detour cell
        ("So# oo#Go", "4 path cells"),
        ("So# o ##G", "not the maze of the question at row 3, column 2"),
        ("So# o  G ", "not the maze of the question at row 3, column 1"),
        ("So# o #G", r"the answer: has 8 cells, expected 9 \(3 x 3\)"),
        ("So# x #G ", "the answer: row 2, column 2: 'x' is not allowed"),
    ],
)
def test_valid_and_shortest(answer, reason):
    assert maze_path_is_valid_and_shortest(SQUARE, answer) == (reason is None)
    if reason is not None:
        with pytest.raises(PuzzleError, match=reason):
            check_maze(SQUARE, answer)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("S#G      ".replace("  ", "##"), "no path leads from S to G"),
        ("S   S   G", "2 cells 'S', expected 1"),
        ("S        ", "0 cells 'G', expected 1"),
        ("So  o   G", "2 cells 'o', expected 0"),
    ],
)
def test_bad_mazes_are_named(question, reason):
    with pytest.raises(PuzzleError, match=reason):
        check_maze(question, question)


def test_mazes_need_not_be_square():
    check_maze("S  \n# G\n", "Soo\n# G\n")
    check_maze("S  # G", "Soo# G", grid_shape=(2, 3))
    assert maze_path_is_valid_and_shortest("S  # G", "Soo# G", grid_shape=(2, 3))
    # Guessing a shape would call every answer wrong; so would an answer that is only "not valid".
    with pytest.raises(DataError, match=r"6 cells in one line is no square; give grid_shape=\(height, width\)"):
        maze_path_is_valid_and_shortest("S  # G", "Soo# G")
