"""The verifiers, against the data builders' own checks of text, on shipped puzzles and on answers made wrong."""

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets_builders.features import PuzzleSet, load_puzzles
from datasets_builders.validation import PuzzleError, check_sudoku
from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.verifiers_trm import RULES, maze_path_connects, sudoku_is_solved, verifier_for
from tests.conftest import IMAGE

COUNT = 40


def shipped(task: str) -> tuple[PuzzleSet, Tensor, Tensor]:
    puzzles = load_puzzles(task, "test").select(np.arange(COUNT))
    return puzzles, torch.tensor(puzzles.inputs).long(), torch.tensor(puzzles.labels).long()


@pytest.mark.parametrize("task", RULES)
def test_labels_are_accepted_and_puzzles_are_not(task: str) -> None:
    puzzles, inputs, labels = shipped(task)
    verify = verifier_for(task, puzzles.processor.grid_shape)
    assert verify(inputs, labels).all()
    assert not verify(inputs, inputs).any()
    assert not verify(inputs.roll(1, dims=0), labels).any()  # the answer to another puzzle
    assert verify(inputs[:0], labels[:0]).shape == (0,)


def test_sudokus_that_were_made_wrong_in_every_way() -> None:
    puzzles, inputs, labels = shipped("sudoku")
    generator = np.random.default_rng(0)
    processor, answers = puzzles.processor, labels.clone()
    for row in range(COUNT):
        cell, other = generator.choice(81, 2, replace=False)
        kind = row % 4
        if kind == 0:  # another digit
            answers[row, cell] = 2 + (answers[row, cell] - 2 + generator.integers(1, 9)) % 9
        elif kind == 1:  # two cells change places
            answers[row, [cell, other]] = answers[row, [other, cell]]
        elif kind == 2:  # a blank or padding is left
            answers[row, cell] = generator.integers(2)

    def follows_the_rules(question: str, answer: str | None) -> bool:
        try:
            check_sudoku(question, answer or "")
        except PuzzleError:
            return False
        return True

    expected = [follows_the_rules(processor.decode(q), processor.decode(a)) for q, a in zip(inputs, answers)]
    assert sudoku_is_solved(inputs, answers, (9, 9)).tolist() == expected
    assert COUNT // 4 <= sum(expected) < COUNT // 2


def test_a_sudoku_whose_clues_were_changed() -> None:
    """Digits renamed: the grid is a Sudoku, but another one."""
    _, inputs, labels = shipped("sudoku")
    renamed = torch.where(labels == 2, 3, torch.where(labels == 3, 2, labels))
    assert sudoku_is_solved(renamed, renamed, (9, 9)).all()
    has_clue = ((inputs == 2) | (inputs == 3)).any(1)
    assert sudoku_is_solved(inputs, renamed, (9, 9)).tolist() == (~has_clue).tolist()


def test_a_latin_square_with_wrong_boxes() -> None:
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    latin = ((rows + columns) % 9 + 2).reshape(1, -1)
    assert not sudoku_is_solved(torch.ones_like(latin), latin, (9, 9)).any()


@pytest.mark.parametrize("side", [4, 16])
def test_other_sizes(side: int) -> None:
    box = int(side**0.5)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    solved = ((rows * box + rows // box + columns) % side + 2).reshape(1, -1)
    assert sudoku_is_solved(torch.ones_like(solved), solved, (side, side)).all()
    assert not sudoku_is_solved(torch.ones_like(solved), solved.roll(1), (side, side)).any()


MAZE = """
S  #
## #
   G
"""


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ("Soo#\n##o#\n  oG", True),
        ("S  #\n## #\n   G", False),  # no path
        ("Soo#\n## #\n  oG", False),  # a gap
        ("Soo#\n##o#\n ooG", False),  # a branch
        ("Sooo\n##oo\n  oG", False),  # through a wall
        ("Soo#\n##o#\n  oS", False),  # the goal is gone
        ("Soo#\n##o#\n  o ", False),
        ("ooo#\n##o#\n  oG", False),
    ],
)
def test_mazes_by_hand(answer: str, valid: bool) -> None:
    processor = GridProcessor("maze", grid_shape=(3, 4))
    inputs, answers = (processor.encode(text)[None] for text in (MAZE.strip("\n"), answer))
    assert maze_path_connects(inputs, answers, (3, 4)).tolist() == [valid]


def test_a_loop_beside_the_path_is_no_path() -> None:
    processor = GridProcessor("maze", grid_shape=(5, 7))
    maze = "S      \n# #####\n       \n       \nG      "
    line = "So     \n#o#####\n o     \n o     \nGo     "
    loop = "So     \n#o#####\n o ooo \n o o o \nGo ooo "
    inputs, good, bad = (processor.encode(text)[None] for text in (maze, line, loop))
    assert maze_path_connects(inputs, good, (5, 7)).all()
    assert not maze_path_connects(inputs, bad, (5, 7)).any()


def test_start_beside_the_goal() -> None:
    processor = GridProcessor("maze", grid_shape=(1, 3))
    inputs = processor.encode("SG ")[None]
    assert maze_path_connects(inputs, inputs, (1, 3)).all()


def test_a_task_without_rules() -> None:
    with pytest.raises(ValueError, match="task='arc' has no known rules to verify answers by; allowed: sudoku, maze"):
        verifier_for("arc", (30, 30))


def test_solve_with_the_rules_finds_what_any_trajectory_found() -> None:
    model = TRMForGridReasoning.from_pretrained(IMAGE).eval()
    _, inputs, labels = shipped("sudoku")
    solved = model.solve(
        inputs[:24],
        max_steps=6,
        num_trajectories=3,
        noise_std=0.5,
        selection="valid",
        verifier=verifier_for("sudoku", (9, 9)),
        generator=torch.Generator().manual_seed(0),
    )
    right = (solved.trajectories.answers == labels[:24, None]).all(-1).any(1)  # a Sudoku has one solution
    assert 0 < right.sum() < 24
    assert torch.equal((solved.answers == labels[:24]).all(-1), right)
