"""The `datasets` builder of mazes: the shipped sample, Maze-30x30-Hard (dataset="hub"), or mazes of your own."""

from datasets_builders.puzzle_builder import PuzzleBuilder


class Maze(PuzzleBuilder):
    """Mazes of one shape; see PuzzleBuilder for the arguments."""

    TASK = "maze"
    DESCRIPTION = "Mazes: '#' wall, ' ' open, 'S' start, 'G' goal; the answer marks a shortest path with 'o'."
