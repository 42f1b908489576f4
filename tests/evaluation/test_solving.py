"""Puzzles are read from strings, files and stdin; traces agree with model.solve; grids are drawn for terminals."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from modeling_trm import GridProcessor, GridReasoningPipeline
from modeling_trm.evaluation.display import CHANGED, grid_text, print_solution
from modeling_trm.evaluation.solving import Solution, read_puzzles, solve_grids

SUDOKU = GridProcessor("sudoku", grid_shape=(4, 4))
MAZE = GridProcessor("maze", grid_shape=(3, 5))
PUZZLE = "1..4..1..1..4..1"
OTHER = "2..4..1..1..4..."


def texts(source: str, processor: GridProcessor = SUDOKU) -> list[tuple[str, str, str | None]]:
    return [(puzzle.name, puzzle.text, puzzle.error) for puzzle in read_puzzles(["-"], processor, io.StringIO(source))]


def test_a_typed_puzzle() -> None:
    (puzzle,) = read_puzzles([PUZZLE], SUDOKU, io.StringIO())
    assert (puzzle.name, puzzle.text, puzzle.error) == ("puzzle 1", PUZZLE, None)


@pytest.mark.parametrize("typed", ["1..4", "puzzles.txt", PUZZLE * 20])
def test_a_typed_puzzle_of_another_length_may_be_a_misspelt_file(typed: str) -> None:
    (puzzle,) = read_puzzles([typed], SUDOKU, io.StringIO())
    assert puzzle.error is not None
    assert "cells, expected 16 (4 x 4), and is no file either" in puzzle.error
    assert len(puzzle.error) < 200


def test_one_puzzle_a_line() -> None:
    assert texts(f"{PUZZLE}\n\n  {OTHER}\r\n1234\n") == [
        ("stdin, line 1", PUZZLE, None),
        ("stdin, line 3", OTHER, None),
        ("stdin, line 4", "1234", None),  # the processor will say that it is too short
    ]


def test_rows_as_rendered() -> None:
    rendered = f"{SUDOKU.render(PUZZLE)}\n\n{SUDOKU.render(OTHER)}\n"
    found = texts(rendered)
    assert [text.replace("\n", "") for _, text, _ in found] == [PUZZLE, OTHER]
    assert [name for name, _, _ in found] == ["stdin, lines 1 to 5", "stdin, lines 7 to 11"]


def test_maze_rows_keep_their_spaces() -> None:
    first, second = "#####\n#S G#\n     ", "     \n S G \n#####"
    for source in (f"{first}\n\n{second}\n", f"{first}\n{second}"):
        assert [text for _, text, _ in texts(source, MAZE)] == [first, second]


def test_ragged_rows_name_the_line() -> None:
    ((name, _, error),) = texts("#####\n#S G\n#####\n", MAZE)
    assert (name, error) == ("stdin, lines 1 to 3", "line 2 has 4 characters, expected 5")


def test_files_and_empty_input(tmp_path: Path) -> None:
    path = tmp_path / "puzzles.txt"
    path.write_text(f"{PUZZLE}\n{OTHER}\n", encoding="utf-8")
    found = read_puzzles([str(path), PUZZLE, "-"], SUDOKU, io.StringIO("\n \n"))
    assert [puzzle.text for puzzle in found[:3]] == [PUZZLE, OTHER, PUZZLE]
    assert [puzzle.name for puzzle in found] == [f"{path}, line 1", f"{path}, line 2", "puzzle 2", "stdin"]
    assert found[3].error == "holds no puzzle"


@pytest.mark.parametrize("halt", [False, True])
def test_solutions_equal_model_solve(tiny_model, halt: bool) -> None:
    model = tiny_model("trm-attn", blank_token_id=1, num_puzzles=1).double().eval()
    grids = [PUZZLE, OTHER, "." * 16, PUZZLE[::-1], "1234341221434321"]
    solutions = solve_grids(model, SUDOKU, grids, max_steps=4, halt=halt, trace=True, batch_size=2)
    assert [solution.puzzle for solution in solutions] == grids
    assert solutions[4].answer == grids[4]  # given cells are kept
    for grid, solution in zip(grids, solutions, strict=True):
        solved = model.solve(SUDOKU(grid).input_ids, max_steps=4, halt=halt, return_trace=True)
        assert solution.answer.replace("?", ".") == (SUDOKU.decode(solved.answers[0].clamp(min=1)))
        assert solution.steps == solved.steps[0] == len(solution.trace)
        assert solution.halt_probability == pytest.approx(solved.halt_probability[0].item(), abs=1e-9)
        before = grid
        for step, (frame, taken) in enumerate(zip(solution.trace, solved.trace, strict=True), start=1):
            assert frame.step == step
            assert frame.halt_probability == pytest.approx(taken.halt_probability[0].item(), abs=1e-9)
            assert frame.changed == [i for i in range(16) if before[i] != frame.answer[i]]
            before = frame.answer
        assert before == solution.answer
    assert solve_grids(model, SUDOKU, grids[:1], halt=halt)[0].trace == []


def search(seed: int = 3) -> dict:
    return {"num_trajectories": 3, "noise_std": 0.8, "generator": torch.Generator().manual_seed(seed)}


@pytest.mark.parametrize("selection", ["halt", "vote"])
def test_trajectories_equal_model_solve_and_all_answers_are_counted(tiny_model, selection: str) -> None:
    model = answering(tiny_model)
    grids = [PUZZLE, OTHER, "." * 16, "1234341221434321"]
    chosen = {"selection": selection, "max_batch": 2}
    solutions = solve_grids(model, SUDOKU, grids, max_steps=3, batch_size=2, search={**search(), **chosen})
    solved = model.solve(SUDOKU(grids).input_ids, max_steps=3, halt=True, **search(), **chosen)
    for number, solution in enumerate(solutions):
        assert solution.answer == SUDOKU.decode(solved.answers[number])
        assert (solution.choice.views, solution.choice.trajectories, solution.choice.selection) == (1, 3, selection)
        texts = [SUDOKU.decode(answer_L) for answer_L in solved.trajectories.answers[number]]
        assert {one.answer: one.votes for one in solution.choice.votes} == {text: texts.count(text) for text in texts}
        if selection == "vote":
            assert solution.choice.votes[0].answer == solution.answer
    assert len(solutions[2].choice.votes) > 1  # else nothing was to be chosen


def test_views_are_solved_undone_and_vote_as_in_the_pipeline(tiny_model) -> None:
    model = answering(tiny_model)
    grids = [PUZZLE, OTHER, "." * 16]
    options = {"max_steps": 3, "halt": False}
    solutions = solve_grids(model, SUDOKU, grids, trace=True, views=4, seed=5, batch_size=3, **options)
    solver = GridReasoningPipeline(model=model, feature_extractor=SUDOKU)
    for grid, solution, result in zip(grids, solutions, solver(grids, views=4, seed=5, **options), strict=True):
        assert (solution.answer, solution.steps) == (result["answer"], result["steps"])
        assert [one.answer for one in solution.choice.votes] == [one["answer"] for one in result["votes"]]
        assert [one.votes for one in solution.choice.votes] == [one["votes"] for one in result["votes"]]
        assert solution.halt_probability == pytest.approx(result["halt_probability"])
        assert solution.puzzle == grid and len(solution.trace) == 3  # of the puzzle as it is
        (alone,) = solve_grids(model, SUDOKU, [grid], trace=True, **options)
        assert [frame.answer for frame in solution.trace] == [frame.answer for frame in alone.trace]
        assert alone.choice is None
    assert max(len(solution.choice.votes) for solution in solutions) > 1  # else nothing was to be chosen


def test_views_that_answer_no_grid_leave_the_own_answer(tiny_model) -> None:
    model = tiny_model("trm-attn", num_puzzles=1)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # padding everywhere
    (solution,) = solve_grids(model, SUDOKU, [PUZZLE], views=3)
    assert solution.answer == "?" * 16 and solution.choice.votes == []


def answering(tiny_model):
    """A model, in float64, that answers digits alone: the mean of several logits is never the largest."""
    model = tiny_model("trm-attn", blank_token_id=1, num_puzzles=1).double().eval()
    with torch.no_grad():
        model.lm_head.weight[:2] = model.lm_head.weight[2:].mean(0)
    return model


def test_a_diverged_model_has_no_probability(tiny_model) -> None:
    model = tiny_model("trm-attn", num_puzzles=1)
    with torch.no_grad():
        model.q_head.bias.fill_(float("nan"))
    (solution,) = solve_grids(model, SUDOKU, [PUZZLE], trace=True)
    assert solution.halt_probability is None
    assert solution.trace[0].halt_probability is None


def test_changed_cells_and_clues_are_marked_where_they_stand() -> None:
    answer = "1234341221434321"
    text = grid_text(SUDOKU, answer, given=PUZZLE, changed=[1, 15])
    assert text.plain == SUDOKU.render(answer)
    marked = {style: [] for style in (CHANGED, "bold")}
    for span in text.spans:
        marked[str(span.style)].append(text.plain[span.start : span.end])
    assert marked[CHANGED] == ["2", "1"]
    assert marked["bold"] == [c for c, given in zip(answer, PUZZLE, strict=True) if c == given][:-1]
    maze = grid_text(MAZE, "######SoG######", changed=[7])
    assert [str(span.style) for span in maze.spans if maze.plain[span.start] == "o"] == [CHANGED]


def printed(verdict: str | None, terminal: bool) -> str:
    frames = solve_frames()
    solution = Solution(PUZZLE, frames[-1].answer, 0.25, 2, frames)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, color_system="standard" if terminal else None, width=60)
    print_solution(console, SUDOKU, "puzzle 1", solution, verdict)
    return stream.getvalue()


def solve_frames() -> list:
    from modeling_trm.evaluation.solving import Frame

    return [Frame(1, "1234" + PUZZLE[4:], [1, 2], 0.125), Frame(2, "1234" + PUZZLE[4:], [], None)]


def test_printed_solution() -> None:
    plain = printed("row 1 of it " * 10, terminal=False)
    assert "\x1b" not in plain
    assert plain.startswith(f"puzzle 1\n{SUDOKU.render(PUZZLE)}\n")
    assert "step 1: 2 cells changed, halt probability 0.125" in plain
    assert "step 2: no cell changed, halt probability undefined (NaN)" in plain
    assert "answer after 2 supervision steps, halt probability 0.250:" in plain
    assert f"NOT a valid solution: {'row 1 of it ' * 10}\n" in plain
    assert "a valid solution\n" in printed(None, terminal=False).splitlines(keepends=True)
    assert "valid" not in printed("", terminal=False)
    coloured = printed(None, terminal=True)
    assert "\x1b[1;30;42m2" in coloured
