"""What the pipeline answered to puzzles, ready to be shown and written: beside the puzzle, and judged by its rules.

A solution is a dict, JSON-ready; grids are strings, written as the puzzle is, of ARC lists of rows:
    name, puzzle, answer, halt_probability, steps    as asked and answered; see pipeline_trm
    trace    [{step, answer, changed, halt_probability}]: changed are the positions that differ from the step before
             (first: from the puzzle); empty where no trace was asked for
    choice   among what the answer was chosen: {views, trajectories, selection, votes}, None where there was no choice.
             votes are of the views, or of the trajectories of a single one; selection is how one trajectory was taken
    certain, attempts    with a certificate: whether there is one, else there is no answer; how often it was tried
    puzzle_task    of ARC with a puzzle table: the task whose rows were used, None where the model knows none
    valid    whether the answer obeys the rules, None where none are known. fault: what is wrong with it
"""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets_builders.validation import PuzzleError, check_maze, check_sudoku

from ..processing_trm import GridProcessor
from ..puzzle_input_trm import Puzzle
from ..reasoning_config_trm import ReasoningConfig

UNKNOWN_CELL = "?"  # shown where the model answers padding; the pipeline's `unknown`
BY = {"halt": "halt logit", "vote": "votes", "residual": "residual", "valid": "the puzzle's rules"}


def solution_of(
    processor: GridProcessor, puzzle: Puzzle, result: Mapping[str, Any], config: ReasoningConfig
) -> dict[str, Any]:
    """See the module's docstring.

    Args:
        result: the pipeline's, with `unknown` UNKNOWN_CELL. config: with which it was made.
    """
    given = processor.decode(puzzle.input_ids)
    shown, answer = given, result["answer"]
    if puzzle.written is not None:
        shown, answer = puzzle.as_written(given, processor), puzzle.as_read(answer, processor)
    told = {name: result[name] for name in ("certain", "attempts", "puzzle_task") if name in result}
    unsure = told.get("certain") is False
    fault = "" if unsure else find_fault(processor, given, answer)
    return {
        "name": puzzle.name,
        "puzzle": shown,
        **{name: result[name] for name in ("answer", "halt_probability", "steps")},
        "trace": _with_changes(shown, result.get("trace", [])),
        "choice": _choice(result, config),
        **told,
        "valid": None if fault == "" else fault is None,
        "fault": fault or None,
    }


def find_fault(processor: GridProcessor, puzzle: Any, answer: Any) -> str | None:
    """What is wrong with the answer by the rules of the puzzle alone; None for a right one, "" without known rules."""
    if answer is None:
        return "the model answers no grid"
    missing = answer.count(UNKNOWN_CELL)
    if missing:
        return f"{missing} cell{'' if missing == 1 else 's'} without an answer"
    try:
        if processor.task == "sudoku":
            check_sudoku(puzzle, answer)
        elif processor.task == "maze":
            check_maze(puzzle, answer, processor.grid_shape)
        else:
            return ""
    except PuzzleError as error:
        return str(error)
    return None


def describe_choice(solution: Mapping[str, Any]) -> str:
    """Among what the answer was chosen, and how many gave it, on one line."""
    choice = solution["choice"]
    among = "" if choice["selection"] is None else f"{choice['trajectories']} trajectories by {BY[choice['selection']]}"
    if choice["views"] > 1:
        among = f"{choice['views']} views by votes" + (f", each the choice among {among}" if among else "")
    agreeing = sum(vote["votes"] for vote in choice["votes"] if vote["answer"] == solution["answer"])
    count = choice["views"] if choice["views"] > 1 else choice["trajectories"]
    return f"chosen among {among}; {agreeing} of {count} gave this answer, {len(choice['votes'])} distinct"


def _choice(result: Mapping[str, Any], config: ReasoningConfig) -> dict[str, Any] | None:
    if "votes" not in result:
        return None
    return {
        "views": result["views"],
        "trajectories": config.num_trajectories,
        "selection": config.selection if config.num_trajectories > 1 else None,
        "votes": result["votes"],
    }


def _with_changes(given: Any, trace: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    frames, before = [], _cells(given)
    for frame in trace:
        now = _cells(frame["answer"])
        same_shape = len(before) == len(now)  # of ARC: an answer of another shape is another grid altogether
        changed = [place for place, cell in enumerate(now) if not same_shape or cell != before[place]]
        frames.append({**frame, "changed": changed})
        before = now
    return frames


def _cells(grid: Any) -> list[Any]:
    """Row by row; none of no grid."""
    if grid is None:
        return []
    return list(grid) if isinstance(grid, str) else [cell for row in grid for cell in row]
