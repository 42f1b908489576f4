"""The `datasets` builder of Sudoku: the shipped sample, Sudoku-Extreme (dataset="hub"), or puzzles of your own."""

from datasets_builders.puzzle_builder import PuzzleBuilder


class Sudoku(PuzzleBuilder):
    """9 x 9 Sudoku (and 4 x 4, 16 x 16, 25 x 25 from files); see PuzzleBuilder for the arguments."""

    TASK = "sudoku"
    DESCRIPTION = "Sudoku puzzles: question and answer row by row, '.' for a blank."
