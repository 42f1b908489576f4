"""Generated mazes: start, goal and a path of the asked length, by a search of its own, and the shipped ones."""

from collections import deque

import pytest

from datasets_builders.families import maze_families
from datasets_builders.features import load_puzzles
from datasets_builders.maze_generation import generate_mazes
from datasets_builders.mazes import are_shortest_paths


def moves(maze: str, width: int) -> int:
    """From S to G, by breadth-first search over characters."""
    seen, queue = {maze.index("S")}, deque([(maze.index("S"), 0)])
    while queue:
        at, steps = queue.popleft()
        if maze[at] == "G":
            return steps
        beside = [at - width, at + width, *([at - 1] if at % width else []), *([at + 1] if (at + 1) % width else [])]
        for cell in beside:
            if 0 <= cell < len(maze) and maze[cell] != "#" and cell not in seen:
                seen.add(cell)
                queue.append((cell, steps + 1))
    raise AssertionError("no path")


@pytest.mark.parametrize("grid_shape", [(6, 6), (5, 9)])
def test_every_maze_has_one_start_and_goal_as_far_apart_as_asked(grid_shape: tuple[int, int]) -> None:
    mazes = generate_mazes(grid_shape, 40, more_than=7, seed=2)
    for inputs, rating in zip(mazes.inputs, mazes.ratings, strict=True):
        maze = mazes.processor.decode(inputs)
        assert (maze.count("S"), maze.count("G")) == (1, 1)
        assert moves(maze, grid_shape[1]) == rating > 7
    assert are_shortest_paths(*(of.reshape(-1, *grid_shape) for of in (mazes.inputs, mazes.labels))).all()
    assert 0.2 < (mazes.inputs == 1).mean() < 0.5
    again, other = (generate_mazes(grid_shape, 40, more_than=7, seed=seed) for seed in (2, 3))
    assert (again.inputs == mazes.inputs).all() and (other.inputs != mazes.inputs).any(axis=1).all()


def test_a_path_longer_than_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"more_than=9: of 1000 mazes of \(2, 2\) cells 0 have so long a path"):
        generate_mazes((2, 2), 1, more_than=9)


def test_the_shipped_mazes_of_other_sizes_are_no_images_of_each_other() -> None:
    splits = {split: load_puzzles("maze", split, grid_shape=(10, 10)) for split in ("train", "validation", "test")}
    families = [set(maze_families(puzzles.inputs.reshape(-1, 10, 10))) for puzzles in splits.values()]
    assert len(set.union(*families)) == sum(map(len, splits.values())) == 4300
    for side in (15, 20):
        puzzles = load_puzzles("maze", "test", grid_shape=(side, side))
        assert puzzles.processor.grid_shape == [side, side] and len(puzzles) == 100
        assert are_shortest_paths(*(of.reshape(-1, side, side) for of in (puzzles.inputs, puzzles.labels))).all()
        assert puzzles.ratings.min() > 2 * side
