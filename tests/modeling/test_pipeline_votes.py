"""Votes of the pipeline: ranked as pass@K ranks them, every view undone, ARC's rows of the puzzle table.

Oracles: model.solve one view at a time, the evaluation's own views of ARC tasks, and a stand-in for the model that
answers with its input, for which every view undone is the puzzle.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import pipeline

from datasets_builders.arc_tasks import ArcTask, Pair
from modeling_trm import GridProcessor
from modeling_trm.arc_augmentation_trm import ArcAugmentation, draw_augmentations
from modeling_trm.metrics.pass_at_k.ranking import rank_candidates
from modeling_trm.processing_trm import colours_to_text
from modeling_trm.puzzle_index_trm import PuzzleIndex
from modeling_trm.reasoning_trm import SolveOutput
from modeling_trm.views_trm import draw_view
from modeling_trm.voting.views import ArcViews
from modeling_trm.voting_trm import rank_votes
from tests.modeling.conftest import ARC, GRID, MAZE, SUDOKU, WIDE_MAZE

SUDOKU_TEXT, MAZE_TEXT = "1.3.....2...4...", "#S# # # #   #G##"
COLOURS = [[1, 0, 0], [2, 3, 4]]
Make = Callable[..., Any]


PROBABILITIES = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0]) | st.floats(0, 1)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "ab", "B"]), PROBABILITIES), max_size=30))
@example([("b", 0.5), ("a", 0.5)])
@example([("b", 0.1), ("b", 0.2), ("b", 0.3), ("a", 0.3), ("a", 0.2), ("a", 0.1)])
def test_votes_are_ranked_as_pass_at_k_ranks_them(votes: list[tuple[str, float]]) -> None:
    answers, probabilities = [answer for answer, _ in votes], [probability for _, probability in votes]
    assert [tuple(c) for c in rank_votes(answers, probabilities)] == [
        tuple(c) for c in rank_candidates(answers, probabilities)
    ]


def test_a_probability_that_is_no_number_counts_as_zero() -> None:
    nan = float("nan")
    assert rank_votes(["a", "b", "b", "a"], [nan, 0.1, 0.1, 0.1]) == [("b", 2, 0.1), ("a", 2, 0.05)]


@pytest.mark.parametrize(
    ("processor", "puzzle", "views"),
    [(SUDOKU, SUDOKU_TEXT, 12), (MAZE, MAZE_TEXT, 8), (WIDE_MAZE, MAZE_TEXT, 4), (ARC, COLOURS, 12)],
    ids=["sudoku", "maze", "wide maze", "arc"],
)
def test_every_view_undone_is_the_puzzle(
    echo_pipeline: Make, processor: GridProcessor, puzzle: Any, views: int
) -> None:
    pipe, echo = echo_pipeline(processor)
    result = pipe(puzzle, views=12, seed=3)
    assert result["votes"] == [{"answer": puzzle, "votes": views, "halt_probability": 0.25}]
    assert result["answer"] == puzzle
    inputs = torch.cat(echo.input_ids)
    assert len(inputs) == views == len({tuple(row) for row in inputs.tolist()})
    assert torch.equal(inputs[0], processor.encode(puzzle))
    # The views of a puzzle depend on the seed and its number alone, and not on the puzzles beside it.
    _, echo.input_ids = pipe(puzzle, views=12, seed=4), []
    pipe([puzzle, puzzle], views=12, seed=3, batch_size=5)
    both = torch.cat(echo.input_ids)
    assert torch.equal(both[:views], inputs)
    assert torch.equal(both[views], inputs[0]) and torch.equal(both[views:], inputs) == (processor is not SUDOKU)


def test_other_seeds_draw_other_views(echo_pipeline: Make) -> None:
    for processor, puzzle in ((SUDOKU, SUDOKU_TEXT), (ARC, COLOURS)):
        pipe, echo = echo_pipeline(processor)
        pipe(puzzle, views=4, seed=1)
        pipe(puzzle, views=4, seed=2)
        first, second = echo.input_ids
        assert torch.equal(first[0], second[0])
        assert not torch.equal(first, second)


def test_votes_are_those_of_single_views(make_pipeline: Make) -> None:
    pipe = make_pipeline(SUDOKU)
    ids = SUDOKU.encode(SUDOKU_TEXT).numpy()
    answers, probabilities = [], []
    for view in (draw_view("sudoku", (4, 4), 5, 0, number) for number in range(6)):
        solved = pipe.model.solve(torch.from_numpy(view.apply(ids))[None], halt=True)
        answers.append(SUDOKU.decode(view.undo(solved.answers[0].numpy())))
        probabilities.append(float(solved.halt_probability))
    expected = rank_candidates(answers, probabilities)
    result = pipe(SUDOKU_TEXT, views=6, seed=5, halt=True, return_trace=True)
    assert [vote["answer"] for vote in result["votes"]] == [candidate.grid for candidate in expected]
    assert [vote["votes"] for vote in result["votes"]] == [candidate.votes for candidate in expected]
    torch.testing.assert_close(
        [vote["halt_probability"] for vote in result["votes"]], [c.score for c in expected], atol=1e-7, rtol=0
    )
    assert result["answer"] == expected[0].grid
    assert result["halt_probability"] == result["votes"][0]["halt_probability"]
    alone = pipe(SUDOKU_TEXT, halt=True, return_trace=True)  # steps and trace are those of the puzzle as given
    assert result["steps"] == alone["steps"]
    assert [frame["answer"] for frame in result["trace"]] == [frame["answer"] for frame in alone["trace"]]


def test_a_task_without_known_augmentations_does_not_vote(echo_pipeline: Make) -> None:
    pipe, echo = echo_pipeline(GRID)
    with pytest.raises(ValueError, match="views=2: task='grid' has no known augmentations; allowed: sudoku, maze, arc"):
        pipe("ab01" * 4, views=2, batch_size=1)
    assert not echo.input_ids


def test_no_grid_and_no_number(make_pipeline: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = make_pipeline(ARC)

    def solve(input_ids: torch.Tensor, **_: Any) -> SolveOutput:
        size = len(input_ids)
        return SolveOutput(torch.zeros_like(input_ids), torch.full((size,), torch.nan), torch.ones(size).long(), None)

    monkeypatch.setattr(pipe.model, "solve", solve)
    nothing = {"answer": None, "halt_probability": None, "steps": 1, "puzzle_task": None}
    assert pipe(COLOURS) == nothing
    assert pipe(COLOURS, views=3) == {**nothing, "views": 3, "votes": []}


# --- ARC and the puzzle table ---------------------------------------------------------------------------------------

TASK = ArcTask("a1", "evaluation", (Pair(np.array([[1, 2]]), np.array([[2, 1]])),), (Pair(np.array(COLOURS), None),))


def arc_index(first: int = 0) -> PuzzleIndex:
    """Two tasks; the rows of the first begin at its augmentation `first`, so that the identity is not always first."""
    rows = np.roll(draw_augmentations(TASK, 5, seed=1), -first, axis=0)
    identity = ArcAugmentation.identity().to_bytes()[None]
    return PuzzleIndex(
        ("evaluation/a1", "evaluation/other"),
        np.array([-1] + [0] * 6 + [1]),
        np.concatenate([identity, rows, identity]),
    )


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("num_views", [1, 3, 6, 50])
def test_rows_of_the_task_vote_as_in_the_evaluation(make_pipeline: Make, num_views: int, first: int) -> None:
    pipe = make_pipeline(ARC, "trm-attn", num_puzzles=8)
    pipe.model.set_puzzle_index(arc_index(first))
    views = ArcViews([TASK], pipe.model.puzzle_index, ARC, views=num_views)
    items = [(0, view) for view in range(views.views_of_input[0])]
    input_ids, puzzle_ids = views.batch(items)
    solved = pipe.model.solve(
        torch.from_numpy(input_ids).long(), puzzle_ids=torch.from_numpy(puzzle_ids), halt=True, return_trace=True
    )
    answers = [views.undo(0, view, solved.answers[view].numpy()) for _, view in items]
    expected = rank_candidates(answers, solved.halt_probability.tolist())
    result = pipe({"grid": COLOURS, "puzzle_task": "evaluation/a1"}, views=num_views, halt=True)
    assert colours_to_text(result["answer"]) == expected[0].grid
    if num_views > 1:
        assert [(colours_to_text(vote["answer"]), vote["votes"]) for vote in result["votes"]] == [
            (candidate.grid, candidate.votes) for candidate in expected
        ]
        assert sum(vote["votes"] for vote in result["votes"]) == min(num_views, 6)


def test_which_row_of_the_table_is_used(echo_pipeline: Make) -> None:
    pipe, echo = echo_pipeline(ARC)
    pipe.model._replace_table(torch.zeros(8, 32), arc_index(first=2))
    pipe([COLOURS, {"grid": COLOURS, "puzzle_task": "evaluation/other"}, {"grid": COLOURS}], views=1)
    assert echo.puzzle_ids == [0, 7, 0]
    echo.puzzle_ids = []
    told = pipe([COLOURS, {"grid": COLOURS, "puzzle_task": "other"}, {"grid": COLOURS}], views=1)  # by its id alone
    assert echo.puzzle_ids == [0, 7, 0]
    assert [result["puzzle_task"] for result in told] == [None, "evaluation/other", None]
    echo.puzzle_ids = []
    pipe([{"grid": COLOURS, "puzzle_task": "evaluation/a1"}, COLOURS], views=3)
    assert echo.puzzle_ids == [5, 1, 2, 0, 0, 0]  # the row without augmentation first
    with pytest.raises(ValueError, match=r"^task 'evaluation/a2' has no row .*; did you mean 'evaluation/a1'\?$"):
        pipe({"grid": COLOURS, "puzzle_task": "evaluation/a2"})


def test_answer_and_trace_of_a_task_that_has_augmented_rows_alone(make_pipeline: Make) -> None:
    turned = ArcAugmentation(5, (0, 2, 3, 4, 5, 6, 7, 8, 9, 1))
    rows = np.stack([ArcAugmentation.identity().to_bytes(), turned.to_bytes()])
    pipe = make_pipeline(ARC, "trm-attn", num_puzzles=2)
    pipe.model.set_puzzle_index(PuzzleIndex(("a",), np.array([-1, 0]), rows))
    moved = ARC(turned.apply(np.array(COLOURS)).tolist())["input_ids"]
    solved = pipe.model.solve(moved, puzzle_ids=torch.tensor([1]), return_trace=True, halt=False)
    expected = [turned.inverse().apply(np.array(ARC.decode(step.answers[0]))).tolist() for step in solved.trace]
    plain, result = pipe([COLOURS, {"grid": COLOURS, "puzzle_task": "a"}], halt=False, return_trace=True)
    assert [frame["answer"] for frame in result["trace"]] == expected
    assert result["answer"] == expected[-1]
    assert plain["answer"] != result["answer"]


def test_a_model_without_a_table_has_no_tasks(make_pipeline: Make) -> None:
    pipe = make_pipeline(ARC, "trm-attn", puzzle_prefix_len=0, num_puzzles=1)
    assert pipe(COLOURS)["answer"] is not None and "puzzle_task" not in pipe(COLOURS)
    with pytest.raises(ValueError, match="puzzle 1: puzzle_task='a': the model has no puzzle table"):
        pipe([{"grid": COLOURS, "puzzle_task": "a"}])


def test_drawn_augmentations_give_distinct_grids(echo_pipeline: Make) -> None:
    pipe, echo = echo_pipeline(ARC)
    pipe(COLOURS, views=40)
    inputs = torch.cat(echo.input_ids)
    assert len(inputs) == len({tuple(row) for row in inputs.tolist()}) == 40
    echo.input_ids = []
    pipe(COLOURS, views=10)
    assert torch.equal(torch.cat(echo.input_ids), inputs[:10])
    echo.input_ids = []
    pipe([[0]], views=9)  # no augmentation changes it
    assert len(torch.cat(echo.input_ids)) == 1


def test_an_oblong_canvas_has_no_transposed_views(echo_pipeline: Make) -> None:
    pipe, echo = echo_pipeline(GridProcessor("arc", grid_shape=(2, 8)))
    grid = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 0]]
    result = pipe(grid, views=30)
    assert 1 < len(torch.cat(echo.input_ids)) < 30
    assert [vote["answer"] for vote in result["votes"]] == [grid]


def test_part_of_the_table_can_be_asked_for(make_pipeline: Make, tmp_path: Path) -> None:
    pipe = make_pipeline(ARC, "trm-attn", num_puzzles=8)
    pipe.model.set_puzzle_index(arc_index())
    pipe.model.save_pretrained(tmp_path)
    ARC.save_pretrained(tmp_path)
    part: Any = pipeline(
        "grid-reasoning", model=str(tmp_path), device="cpu", model_kwargs={"puzzle_tasks": ["evaluation/other"]}
    )
    assert part.model.puzzle_index.tasks == ("evaluation/other",)
    puzzle = {"grid": COLOURS, "puzzle_task": "evaluation/other"}
    assert part(puzzle) == pipe(puzzle)
