"""Solve puzzles with a trained checkpoint: a string, a file or stdin in, the answer and whether it obeys the rules out.

examples:
  trm solve --model MODEL 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79
  trm solve --model MODEL puzzles.txt --trace        one puzzle a line, or 9 lines of 9 (a maze: 30 of 30)
  trm solve --model MODEL - --json < puzzles.txt
  trm solve --model MODEL puzzles.txt --max-steps 64 --no-halt --output answers.json
  trm solve --model MODEL puzzles.txt --views 8      relabelled views of each puzzle are solved and vote
  trm solve --model MODEL puzzles.txt --num-trajectories 8 --noise-std 0.3 --selection vote

exit code: 0 when every puzzle was answered (right or wrong), 2 when one was malformed or contradictory, or on another
error; the others are still answered.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .options import (
    CommandParser,
    add_device,
    add_engine,
    add_max_steps,
    add_model,
    add_seed,
    add_views,
    require_at_least,
)
from .search_options import add_search_options, check_search, search_options

if TYPE_CHECKING:  # PyTorch takes seconds to import: --help and wrong arguments must not wait for it
    from .. import GridProcessor
    from ..evaluation.solving import PuzzleText, Solution


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("solve", __doc__)
    parser.add_argument("puzzles", nargs="+", metavar="PUZZLE", help="a puzzle, a file of puzzles, or - for stdin")
    add_model(parser)
    add_max_steps(parser)
    parser.add_argument(
        "--halt",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="stop at the first step that the model believes to be right (default), or take every step",
    )
    add_views(parser, "none vote")
    add_seed(parser)
    parser.add_argument("--trace", action="store_true", help="show the grid after each supervision step")
    parser.add_argument("--json", action="store_true", help="print JSON instead of grids")
    parser.add_argument("--output", metavar="FILE", help="write the JSON to this file as well")
    add_device(parser)
    add_engine(parser)
    add_search_options(parser)
    arguments = parser.parse_intermixed_args(argv)  # puzzles may stand before and after the options
    require_at_least(parser, arguments, 1, "max_steps", "views")
    arguments.views = arguments.views or 1
    check_search(parser, arguments)
    if arguments.trace and arguments.num_trajectories > 1:
        parser.error("--trace is for a single trajectory, not for --num-trajectories above 1")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..evaluation.solving import read_puzzles, solve_grids
    from ..utils.cli import USER_ERROR, user_errors
    from ..utils.files import write_json
    from ..utils.loading import CheckpointError, choose_device, load_model, load_processor

    with user_errors(OSError, ValueError):
        device = choose_device(arguments.device)
        processor = load_processor(arguments.model)
        if processor.task == "arc":
            raise CheckpointError(
                f"checkpoint {arguments.model!r} solves ARC tasks; trm solve reads Sudoku, mazes and text grids"
            )
        if arguments.views > 1 and processor.task not in ("sudoku", "maze"):
            raise CheckpointError(f"--views {arguments.views}: puzzles of task {processor.task!r} have no other views")
        search = search_options(arguments, processor.task, processor.grid_shape)
        puzzles = read_puzzles(arguments.puzzles, processor, sys.stdin)
    problems = [find_problem(processor, puzzle) for puzzle in puzzles]
    for puzzle, problem in zip(puzzles, problems, strict=True):
        if problem is not None:
            print(f"error: {puzzle.name}: {problem}", file=sys.stderr)
    solvable = [puzzle for puzzle, problem in zip(puzzles, problems, strict=True) if problem is None]
    solutions: list[Solution] = []
    if solvable:
        with user_errors(ValueError):
            model = load_model(arguments.model, device)
            solutions = solve_grids(
                model,
                processor,
                [puzzle.text for puzzle in solvable],
                max_steps=arguments.max_steps,
                halt=arguments.halt,
                trace=arguments.trace,
                views=arguments.views,
                seed=arguments.seed,
                search=search,
                engine=arguments.engine,
            )
    verdicts = [find_fault(processor, solution) for solution in solutions]
    results = as_json(puzzles, problems, solutions, verdicts)
    if arguments.output is not None:
        with user_errors(OSError):
            write_json(arguments.output, results)
    show(arguments.json, processor, solvable, solutions, verdicts, results)
    return USER_ERROR if len(solvable) < len(puzzles) else 0


def find_problem(processor: "GridProcessor", puzzle: "PuzzleText") -> str | None:
    """What makes this no puzzle for the model: layout, characters, clues that contradict; None for a good one."""
    from datasets_builders.validation import check_clues

    if puzzle.error is not None:
        return puzzle.error
    try:
        processor.encode(puzzle.text)
        if processor.task == "sudoku":
            check_clues(puzzle.text)
    except ValueError as error:
        return str(error)
    if processor.task == "maze":
        for character, expected in (("S", 1), ("G", 1), ("o", 0)):
            count = puzzle.text.count(character)
            if count != expected:
                return f"the maze has {count} cells {character!r}, expected {expected}"
    return None


def find_fault(processor: "GridProcessor", solution: "Solution") -> str | None:
    """What is wrong with the answer by the rules of the puzzle alone; None for a right one, "" without known rules."""
    from datasets_builders.validation import PuzzleError, check_maze, check_sudoku

    from ..evaluation.solving import UNKNOWN_CELL

    missing = solution.answer.count(UNKNOWN_CELL)
    if missing:
        return f"{missing} cell{'' if missing == 1 else 's'} without an answer"
    try:
        if processor.task == "sudoku":
            check_sudoku(solution.puzzle, solution.answer)
        elif processor.task == "maze":
            check_maze(processor.render(solution.puzzle), solution.answer)
        else:
            return ""
    except PuzzleError as error:
        return str(error)
    return None


def as_json(
    puzzles: "list[PuzzleText]", problems: list[str | None], solutions: "list[Solution]", verdicts: list[str | None]
) -> list[dict[str, Any]]:
    """One object a puzzle, in the order given; `valid` is null where no rules are known."""
    from dataclasses import asdict

    solved = iter(zip(solutions, verdicts, strict=True))
    results: list[dict[str, Any]] = []
    for puzzle, problem in zip(puzzles, problems, strict=True):
        if problem is not None:
            results.append({"name": puzzle.name, "puzzle": puzzle.text, "error": problem})
            continue
        solution, verdict = next(solved)
        valid = None if verdict == "" else verdict is None
        result = {"name": puzzle.name, **asdict(solution), "valid": valid, "fault": verdict or None}
        if solution.choice is not None:
            result["choice"]["votes"] = [candidate._asdict() for candidate in solution.choice.votes]
        results.append(result)
    return results


def show(
    json_wanted: bool,
    processor: "GridProcessor",
    puzzles: "list[PuzzleText]",
    solutions: "list[Solution]",
    verdicts: list[str | None],
    results: list[dict[str, Any]],
) -> None:
    import json

    from rich.console import Console

    from ..evaluation.display import print_solution

    if json_wanted:
        print(json.dumps(results, indent=2, allow_nan=False))
        return
    console = Console(highlight=False)
    for puzzle, solution, verdict in zip(puzzles, solutions, verdicts, strict=True):
        print_solution(console, processor, puzzle.name, solution, verdict)
        if solution.choice is not None:
            console.print(describe_choice(solution), soft_wrap=True)
            console.print()


def describe_choice(solution: "Solution") -> str:
    """Among what the answer was chosen, and how many gave it, on one line."""
    choice = solution.choice
    assert choice is not None
    by = {"halt": "halt logit", "vote": "votes", "residual": "residual", "valid": "the puzzle's rules"}
    trajectories = "" if choice.selection is None else f"{choice.trajectories} trajectories by {by[choice.selection]}"
    among = trajectories
    if choice.views > 1:
        among = f"{choice.views} views by votes" + (f", each the choice among {trajectories}" if trajectories else "")
    agreeing = sum(candidate.votes for candidate in choice.votes if candidate.answer == solution.answer)
    count = choice.views if choice.views > 1 else choice.trajectories
    return f"chosen among {among}; {agreeing} of {count} gave this answer, {len(choice.votes)} distinct"
