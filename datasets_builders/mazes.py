"""Shortest paths of many mazes at once: distances by breadth-first search, and the answer's tie-break.

A 30 x 30 maze of this kind has about 10^6.7 shortest paths. The one that is the answer steps from S to the first
neighbour, in the order up, down, left, right, that is nearer to G. That order is directional, so a rotated or mirrored
maze gets its answer from here, never by rotating the answer.

Shapes: N mazes, H height, W width. Token ids as in GridProcessor("maze").
"""

import numpy as np

WALL, OPEN, START, GOAL, PATH = 1, 2, 3, 4, 5
UNREACHABLE = -1
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right


def distances_to_goal(mazes_NHW: np.ndarray) -> np.ndarray:
    """int16 [N, H, W]: moves from each cell to the goal; UNREACHABLE for walls and cells cut off.

    A cell marked as path counts as open, so that a question and its answer have the same distances.
    """
    num, height, width = mazes_NHW.shape
    # One row and one column of walls behind every maze: a step over any edge, in flat indices, lands on one of them
    # (from the first cells of all, index -1 and the like, on those of the last maze).
    shape = (num, height + 1, width + 1)
    free = np.zeros(shape, dtype=bool)
    free[:, :height, :width] = mazes_NHW != WALL
    goals = np.zeros(shape, dtype=bool)
    goals[:, :height, :width] = mazes_NHW == GOAL
    distances = np.full(shape, UNREACHABLE, dtype=np.int16)
    free_flat, distances_flat = free.reshape(-1), distances.reshape(-1)
    frontier = np.flatnonzero(goals)
    distance = 0
    while frontier.size:
        distances_flat[frontier] = distance
        free_flat[frontier] = False
        distance += 1
        reached = []
        for row_step, column_step in STEPS:
            neighbours = frontier + row_step * (width + 1) + column_step
            reached.append(neighbours[free_flat[neighbours]])
            free_flat[reached[-1]] = False
        frontier = np.concatenate(reached)
    return distances[:, :height, :width]


def trace_paths(mazes_NHW: np.ndarray, distances_NHW: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W]: the answers, each maze with its tie-broken shortest path marked.

    A maze whose goal cannot be reached comes back without a path; `distances` says which.
    """
    num, height, width = mazes_NHW.shape
    answers = np.where(mazes_NHW == PATH, OPEN, mazes_NHW).astype(np.uint8)
    padded = np.full((num, height + 2, width + 2), UNREACHABLE, dtype=np.int16)
    padded[:, 1:-1, 1:-1] = distances_NHW
    maze, row, column = np.nonzero(answers == START)
    step_rows, step_columns = (np.array(values) for values in zip(*STEPS, strict=True))
    while True:
        distance = padded[maze, row + 1, column + 1]
        going = distance > 1
        if not going.any():
            return answers
        maze, row, column, distance = maze[going], row[going], column[going], distance[going]
        around = padded[maze[:, None], row[:, None] + 1 + step_rows, column[:, None] + 1 + step_columns]
        choice = np.argmax(around == distance[:, None] - 1, axis=1)
        row, column = row + step_rows[choice], column + step_columns[choice]
        answers[maze, row, column] = PATH


def solve_mazes(mazes_NHW: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W]: the tie-broken answers of mazes (paths already marked are ignored)."""
    return trace_paths(mazes_NHW, distances_to_goal(mazes_NHW))


def are_shortest_paths(mazes_NHW: np.ndarray, answers_NHW: np.ndarray) -> np.ndarray:
    """bool [N]: the answer is its maze with open cells marked, and the marked cells are a shortest path from S to G.

    A set of `d - 1` cells that connects two cells `d` moves apart is a path between them, and a shortest one.
    """
    marked = (mazes_NHW == OPEN) & (answers_NHW == PATH)
    same_maze = (marked | (mazes_NHW == answers_NHW)).all(axis=(1, 2))
    start = mazes_NHW == START
    shortest_N = np.where(start, distances_to_goal(mazes_NHW), 0).sum(axis=(1, 2))
    only_path = np.where(marked | start | (mazes_NHW == GOAL), mazes_NHW, WALL)
    along_path_N = np.where(start, distances_to_goal(only_path), 0).sum(axis=(1, 2))
    right_length = marked.sum(axis=(1, 2)) == shortest_N - 1
    one_start_and_goal = (start.sum(axis=(1, 2)) == 1) & ((mazes_NHW == GOAL).sum(axis=(1, 2)) == 1)
    return same_maze & right_length & (along_path_N == shortest_N) & (shortest_N > 0) & one_start_and_goal
