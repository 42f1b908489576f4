"""Solutions: traces and choices agree with model.solve; rules judge; grids are drawn for terminals."""

import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from modeling_trm import GridProcessor, GridReasoningPipeline, ReasoningConfig
from modeling_trm.evaluation.display import CHANGED, grid_text, print_solution
from modeling_trm.evaluation.solutions import UNKNOWN_CELL, find_fault, solution_of
from modeling_trm.puzzle_input_trm import read_puzzle

SUDOKU = GridProcessor("sudoku", grid_shape=(4, 4))
MAZE = GridProcessor("maze", grid_shape=(3, 5))
PUZZLE = "1..4..1..1..4..1"
OTHER = "2..4..1..1..4..."
FULL = "1234341221434321"


def solve(model, grids: list[str], *, seed: int = 0, trace: bool = False, **options: Any) -> list[dict[str, Any]]:
    """As the command does it."""
    puzzles = [read_puzzle(grid, SUDOKU) for grid in grids]
    pipe = GridReasoningPipeline(model=model, feature_extractor=SUDOKU)
    batch_size = options.pop("batch_size", 2)
    results = pipe(puzzles, seed=seed, return_trace=trace, unknown=UNKNOWN_CELL, batch_size=batch_size, **options)
    config = ReasoningConfig().updated(**options)
    return [solution_of(SUDOKU, puzzle, result, config) for puzzle, result in zip(puzzles, results, strict=True)]


@pytest.mark.parametrize("halt", [False, True])
def test_solutions_equal_model_solve(tiny_model, halt: bool) -> None:
    model = tiny_model("trm-attn", blank_token_id=1, num_puzzles=1).double().eval()
    grids = [PUZZLE, OTHER, "." * 16, PUZZLE[::-1], FULL]
    solutions = solve(model, grids, max_steps=4, halt=halt, trace=True)
    assert [solution["puzzle"] for solution in solutions] == grids
    assert solutions[4]["answer"] == grids[4] and solutions[4]["valid"]  # given cells are kept
    for grid, solution in zip(grids, solutions, strict=True):
        solved = model.solve(SUDOKU(grid).input_ids, max_steps=4, halt=halt, return_trace=True)
        assert solution["answer"].replace("?", ".") == SUDOKU.decode(solved.answers[0].clamp(min=1))
        assert solution["steps"] == solved.steps[0] == len(solution["trace"])
        assert solution["halt_probability"] == pytest.approx(solved.halt_probability[0].item(), abs=1e-9)
        before = grid
        for step, (frame, taken) in enumerate(zip(solution["trace"], solved.trace, strict=True), start=1):
            assert frame["step"] == step
            assert frame["halt_probability"] == pytest.approx(taken.halt_probability[0].item(), abs=1e-9)
            assert frame["changed"] == [i for i in range(16) if before[i] != frame["answer"][i]]
            before = frame["answer"]
        assert before == solution["answer"]
    assert solve(model, grids[:1], halt=halt)[0]["trace"] == []


@pytest.mark.parametrize("selection", ["halt", "vote"])
def test_trajectories_equal_model_solve_and_all_answers_are_counted(tiny_model, selection: str) -> None:
    model = answering(tiny_model)
    grids = [PUZZLE, OTHER, "." * 16, FULL]
    how = {
        "num_trajectories": 3,
        "noise_std": 0.8,
        "selection": selection,
        "max_batch": 2,
        "max_steps": 3,
        "halt": True,
    }
    solutions = solve(model, grids, batch_size=4, seed=3, **how)
    solved = model.solve(SUDOKU(grids).input_ids, generator=torch.Generator().manual_seed(3), **how)
    for number, solution in enumerate(solutions):
        assert solution["answer"] == SUDOKU.decode(solved.answers[number])
        choice = solution["choice"]
        assert (choice["views"], choice["trajectories"], choice["selection"]) == (1, 3, selection)
        texts = [SUDOKU.decode(answer_L) for answer_L in solved.trajectories.answers[number]]
        assert {one["answer"]: one["votes"] for one in choice["votes"]} == {text: texts.count(text) for text in texts}
        if selection == "vote":
            assert choice["votes"][0]["answer"] == solution["answer"]
    assert len(solutions[2]["choice"]["votes"]) > 1  # else nothing was to be chosen


def test_views_vote_and_the_trace_is_of_the_puzzle_as_it_is(tiny_model) -> None:
    model = answering(tiny_model)
    grids = [PUZZLE, OTHER, "." * 16]
    options = {"max_steps": 3, "halt": False}
    solutions = solve(model, grids, trace=True, views=4, seed=5, batch_size=3, **options)
    for grid, solution in zip(grids, solutions, strict=True):
        assert solution["choice"]["views"] == 4 and solution["choice"]["selection"] is None
        assert solution["answer"] == solution["choice"]["votes"][0]["answer"]
        assert solution["puzzle"] == grid and len(solution["trace"]) == 3
        (alone,) = solve(model, [grid], trace=True, **options)
        assert [frame["answer"] for frame in solution["trace"]] == [frame["answer"] for frame in alone["trace"]]
        assert alone["choice"] is None
    assert max(len(solution["choice"]["votes"]) for solution in solutions) > 1  # else nothing was to be chosen


def test_answers_that_are_no_grid_are_shown_and_no_votes(tiny_model) -> None:
    model = tiny_model("trm-attn", num_puzzles=1)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # padding everywhere
    for how in ({"views": 3}, {"num_trajectories": 3, "noise_std": 1.0}):
        (solution,) = solve(model, [PUZZLE], **how)
        assert solution["answer"] == "?" * 16 and solution["choice"]["votes"] == []
        assert solution["fault"] == "16 cells without an answer" and solution["valid"] is False
    pipe = GridReasoningPipeline(model=model, feature_extractor=SUDOKU)
    assert pipe(PUZZLE)["answer"] is None  # where nobody asked to see it


def test_maze_answers_are_judged_by_the_rules() -> None:
    processor = GridProcessor("maze", grid_shape=(4, 5))
    puzzle = "######S  ##  G######"
    right = ["######Soo##  G######", "######S  ##ooG######", "######So ## oG######"]  # three ways, all shortest
    wrong = ["######S  ##  G######", "######So ##  G######", "######Soo##ooG######", "######S  #o  G######"]
    for answer in right + wrong:
        fault = find_fault(processor, puzzle, answer)
        assert (fault is None) == (answer in right), (answer, fault)


def test_arc_solutions_are_rows_and_have_no_rules(tiny_model) -> None:
    processor = GridProcessor("arc", grid_shape=(4, 4))
    model = tiny_model("trm-attn", vocab_size=12, num_puzzles=1).eval()
    with torch.no_grad():
        model.lm_head.weight[:2] = model.lm_head.weight[2:4].mean(0)
    puzzle = read_puzzle([[1, 2], [3, 4]], processor)
    result = GridReasoningPipeline(model=model, feature_extractor=processor)(puzzle, return_trace=True, max_steps=2)
    solution = solution_of(processor, puzzle, result, ReasoningConfig())
    assert solution["puzzle"] == [[1, 2], [3, 4]] and solution["valid"] is None and solution["fault"] is None
    assert np.shape(solution["answer"]) == (4, 4) and solution["trace"][0]["changed"] == list(range(16))
    stream = io.StringIO()
    print_solution(Console(file=stream, width=60), processor, solution)
    # The second step may change some too; then both are told of on one line.
    assert re.search(r"16(, \d+)? cells", stream.getvalue()) and "1 2\n3 4\n" not in stream.getvalue()
    print_solution(Console(file=stream, width=60), processor, solution, whole_trace=True)
    assert "1 2\n3 4\n" in stream.getvalue()


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
    (solution,) = solve(model, [PUZZLE], trace=True)
    assert solution["halt_probability"] is None
    assert solution["trace"][0]["halt_probability"] is None


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


def printed(fault: str | None, valid: bool | None, terminal: bool, whole_trace: bool = False, idle: int = 1) -> str:
    answer = "1234" + PUZZLE[4:]
    frames = [
        {"step": 1, "answer": answer, "changed": [1, 2], "halt_probability": 0.125},
        *({"step": 2 + i, "answer": answer, "changed": [], "halt_probability": None} for i in range(idle)),
    ]
    solution = {"name": "puzzle 1", "puzzle": PUZZLE, "answer": answer, "halt_probability": 0.25, "steps": 2}
    solution |= {"trace": frames, "choice": None, "valid": valid, "fault": fault}
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, color_system="standard" if terminal else None, width=60)
    print_solution(console, SUDOKU, solution, whole_trace)
    return stream.getvalue()


def test_printed_solution() -> None:
    plain = printed("row 1 of it " * 10, False, terminal=False, whole_trace=True)
    assert "\x1b" not in plain
    assert plain.startswith(f"puzzle 1\n{SUDOKU.render(PUZZLE)}\n")
    assert "step 1: 2 cells changed, halt probability 0.125\n" in plain
    assert "step 2: no cell changed, halt probability undefined (NaN)" in plain
    assert "\nanswer after 2 supervision steps, halt probability 0.250:\n" in plain
    assert f"NOT a valid solution: {'row 1 of it ' * 10}\n" in plain
    assert "a valid solution\n" in printed(None, True, terminal=False, whole_trace=True).splitlines(keepends=True)
    for whole_trace in (False, True):
        assert "valid" not in printed(None, None, terminal=False, whole_trace=whole_trace)
    coloured = printed(None, True, terminal=True, whole_trace=True)
    assert "\x1b[1;30;42m2" in coloured


def test_a_trace_tells_what_changes_and_grids_only_where_asked() -> None:
    grid = SUDOKU.render("1234" + PUZZLE[4:])
    brief, whole = (printed(None, True, terminal=False, whole_trace=choice, idle=5) for choice in (False, True))
    assert brief.splitlines() == [
        "puzzle 1",
        "step 1: 2 cells changed, halt probability 0.125: r1c2=2 r1c3=3",
        "steps 2 to 6: no cell changed, halt probability undefined (NaN) at the end",
        "answer after 2 supervision steps, halt probability 0.250: a valid solution",
        "1234" + PUZZLE[4:],
        "",
    ]
    assert "NOT a valid solution: why" in printed("why", False, terminal=False)
    assert whole.count(grid) == 2  # after step 1, and the answer
    assert "step 1: 2 cells changed, halt probability 0.125\n" in whole and "step 6: no cell changed" in whole


@given(st.lists(st.integers(0, 16), min_size=1, max_size=40))
def test_three_puzzles_with_their_traces_fit_a_screen(counts: list[int]) -> None:
    """Whatever their steps change: every step stands in one line, in order, and there are few."""
    frames = [
        {"step": step, "answer": FULL, "changed": list(range(count)), "halt_probability": 0.5}
        for step, count in enumerate(counts, start=1)
    ]
    solution = {"name": "puzzle 1", "puzzle": PUZZLE, "answer": FULL, "halt_probability": 0.5, "steps": len(counts)}
    solution |= {"trace": frames, "choice": None, "valid": True, "fault": None}
    stream = io.StringIO()
    print_solution(Console(file=stream, width=80), SUDOKU, solution)
    lines = stream.getvalue().splitlines()
    assert 3 * len(lines) <= 24
    told = [re.match(r"steps? (\d+)(?: to (\d+))?: (.*) changed", line) for line in lines]
    found = [(int(match[1]), int(match[2] or match[1]), match[3]) for match in told if match]
    assert [first for first, *_ in found] == [1, *(last + 1 for _, last, _ in found[:-1])]
    assert found[-1][1] == len(counts)
    for first, last, words in found:
        of_these = counts[first - 1 : last]
        assert [int(number) for number in re.findall(r"\d+", words)] == (of_these if any(of_these) else [])
    assert all(len(line) <= 80 for line in lines if line.startswith("step "))
