"""Grids, answers and metrics for people: coloured by rich on a terminal, plain text in a file or a pipe."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..processing_trm import Grid, GridProcessor
from .records import VALIDITY
from .solutions import describe_choice
from .sources import source_in_words

CELLS_TOLD = 4  # changed cells of a step that are named on its line, which then fits 80 columns
TRACE_LINES = 4  # of a puzzle: with name, answer and verdict three puzzles fit a screen of 24 lines
LINE_CELLS = 100  # cells of an answer that is told on a line
CHANGED = "bold black on green"
GIVEN = "bold"
UNKNOWN_TASK = "a guess: the model's puzzle table has no row for this task; trm adapt trains one"
MAZE_STYLES = {"#": "dim", "S": "bold yellow", "G": "bold yellow", "o": "bold cyan"}


def grid_text(processor: GridProcessor, grid: Grid | None, given: Any = "", changed: Iterable[int] = ()) -> Text:
    """The rendered grid; on a terminal clues (`given`) are bold, `changed` cells green, parts of a maze distinct."""
    if grid is None:
        return Text("no grid", style="italic")
    text = Text(processor.render(grid), no_wrap=True, overflow="ignore")
    marked = set(changed)
    for cell, offset in enumerate(_cell_offsets(processor, text.plain)):
        if cell in marked:
            style = CHANGED
        elif not isinstance(grid, str):
            style = ""
        elif processor.task == "maze":
            style = MAZE_STYLES.get(grid[cell], "")
        else:
            style = GIVEN if given and given[cell] == grid[cell] else ""
        if style:
            text.stylize(style, offset, offset + 1)
    return text


def print_solution(
    console: Console, processor: GridProcessor, solution: Mapping[str, Any], whole_trace: bool = False
) -> None:
    """The puzzle, the answer, the verdict, the choice; see `solutions`. With a trace what its steps change, briefly.

    Args:
        whole_trace: with a trace the puzzle, the grid after each step, and the answer.
    """
    puzzle = solution["puzzle"]
    console.print(Text(solution["name"], style="bold underline"), soft_wrap=True)
    if solution["trace"] and not whole_trace:
        _print_changes(console, processor, solution)
    else:
        console.print(grid_text(processor, puzzle, given=puzzle))
        for frame in solution["trace"]:
            _print_frame(console, processor, puzzle, frame)
        unsure = solution.get("certain") is False
        console.print(f"\n{_after(solution)}{'' if unsure else ':'}", soft_wrap=True)
        if not unsure:
            console.print(grid_text(processor, solution["answer"], given=puzzle))
        if solution["valid"] is not None:
            console.print(_verdict(solution), soft_wrap=True)
    if solution.get("puzzle_task", "") is None:
        console.print(UNKNOWN_TASK, soft_wrap=True)
    console.print()
    if solution["choice"] is not None:
        console.print(describe_choice(solution), soft_wrap=True)
        console.print()


def print_metrics(console: Console, metrics: dict[str, Any]) -> None:
    """A small table of the exact accuracies with their 95 % intervals, then the other figures on lines."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("puzzles")
    table.add_column("count", justify="right")
    table.add_column("solved", justify="right")
    table.add_column("95 % interval", justify="right")
    total = {
        "count": metrics["count"],
        "exact_accuracy": metrics["exact_accuracy"],
        "ci95": metrics["exact_accuracy_ci95"],
    }
    for name, group in [*groups(metrics), ("all", total)]:
        low, high = group["ci95"]
        style = "bold" if name == "all" else None
        table.add_row(
            Text(name), f"{group['count']:,}", f"{group['exact_accuracy']:.1%}", f"{low:.1%} to {high:.1%}", style=style
        )
    console.print(table)
    for line in _metric_lines(metrics):
        console.print(Text(line), soft_wrap=True)


def groups(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The figures of each source and each range of ratings, named; a rating that all puzzles share says nothing."""
    named = [(f"source {source_in_words(source)}", group) for source, group in metrics["by_source"].items()]
    ratings = metrics["by_rating"] if len(metrics["by_rating"]) > 1 else []
    return named + [(f"rating {rating_range(group)}", group) for group in ratings]


def rating_range(group: dict[str, Any]) -> str:
    """The ratings of one entry of `by_rating` in words."""
    return f"{group['min']}" if group["min"] == group["max"] else f"{group['min']} to {group['max']}"


def halting_point(metrics: dict[str, Any]) -> float:
    """The halt probability that the figures of halting are about."""
    return metrics["early_exit"] if isinstance(metrics["early_exit"], float) else 0.5


def _metric_lines(metrics: dict[str, Any]) -> Iterable[str]:
    halt = metrics["halt"]
    for name, words in VALIDITY.items():
        if name in metrics:
            low, high = metrics[f"{name}_ci95"]
            yield f"{words}: {metrics[name]:.1%} ({low:.1%} to {high:.1%})"
    if "baseline" in metrics:
        low, high = metrics["baseline"]["ci95"]
        yield f"{metrics['baseline']['name']}: {metrics['baseline']['exact_accuracy']:.1%} ({low:.1%} to {high:.1%})"
    if "relabelled" in metrics:
        renamed = metrics["relabelled"]
        low, high = renamed["ci95"]
        of_solved = "" if renamed["kept"] is None else f"; of what is solved as it is, {renamed['kept']:.1%}"
        yield f"digits renamed: {renamed['exact_accuracy']:.1%} ({low:.1%} to {high:.1%}){of_solved}"
    if metrics["cell_accuracy"] is not None:
        yield f"cells right: {metrics['cell_accuracy']:.1%}"
    yield (
        f"stopping at a halt probability above {halting_point(metrics):g}: {halt['exact_accuracy']:.1%} solved, "
        f"{metrics['mean_halting_step']:.2f} of {metrics['steps']} steps on average"
    )
    yield f"{metrics['seconds']:.1f} s, {metrics['puzzles_per_second']:,.0f} puzzles per second"
    if metrics["non_finite"]:
        yield f"WARNING: NaN or infinite halt logits on {metrics['non_finite']} puzzles: the model has diverged"


def _print_changes(console: Console, processor: GridProcessor, solution: Mapping[str, Any]) -> None:
    """The lines of the trace, the verdict, and the answer: a maze as it is drawn, others where they fit a line."""
    for line in _trace_lines(solution["trace"], processor.grid_shape[1]):
        console.print(Text(line, style="cyan"), soft_wrap=True)
    verdict = Text(_after(solution))
    console.print(verdict if solution["valid"] is None else verdict + ": " + _verdict(solution), soft_wrap=True)
    answer = solution["answer"]
    if processor.task == "maze":
        console.print(grid_text(processor, answer))
    elif isinstance(answer, str) and len(answer) <= LINE_CELLS:
        console.print(Text(answer), soft_wrap=True)


def _after(solution: Mapping[str, Any]) -> str:
    if solution.get("certain") is False:
        tried = f"{solution['attempts']} attempt{'' if solution['attempts'] == 1 else 's'}"
        return f"not sure: no answer with a certificate after {tried}"
    steps = f"{solution['steps']} supervision step{'' if solution['steps'] == 1 else 's'}"
    return f"answer after {steps}, halt probability {_probability(solution['halt_probability'])}"


def _verdict(solution: Mapping[str, Any]) -> Text:
    if solution["valid"]:
        return Text("a valid solution", style="bold green")
    return Text(f"NOT a valid solution: {solution['fault']}", style="bold red")


def _trace_lines(trace: Iterable[Mapping[str, Any]], width: int) -> Iterable[str]:
    """A step that changes a few cells is a line that names them; others, one after the other, are a line together.

    The first lines are kept, and the last one; what is between them is one line where there were too many.
    """
    runs: list[list[Mapping[str, Any]]] = []
    for count, group in groupby(trace, key=lambda frame: min(len(frame["changed"]), CELLS_TOLD + 1)):
        frames = list(group)
        runs += [frames] if count in (0, CELLS_TOLD + 1) else [[frame] for frame in frames]
    if len(runs) > TRACE_LINES:
        between = runs[TRACE_LINES - 2 : -1]
        runs = [*runs[: TRACE_LINES - 2], [frame for run in between for frame in run], runs[-1]]
    for run in runs:
        yield f"{_run_title(run)}{_changed_cells(run[0], width) if len(run) == 1 else ''}"


def _run_title(run: Sequence[Mapping[str, Any]]) -> str:
    """Of successive steps, the numbers of cells that each of them changes; of one, its own."""
    if len(run) == 1:
        return _frame_title(run[0])
    counts = [len(frame["changed"]) for frame in run]
    changed = f"{', '.join(map(str, counts))} cells" if any(counts) else "no cell"
    last = _probability(run[-1]["halt_probability"])
    return f"steps {run[0]['step']} to {run[-1]['step']}: {changed} changed, halt probability {last} at the end"


def _changed_cells(frame: Mapping[str, Any], width: int) -> str:
    """As ": r2c3=7 r9c1=4", row and column from 1; of many, or of an answer that is no grid of this width, nothing."""
    answer, changed = frame["answer"], frame["changed"]
    if not isinstance(answer, str) or not 0 < len(changed) <= CELLS_TOLD:
        return ""
    return ": " + " ".join(f"r{cell // width + 1}c{cell % width + 1}={answer[cell]}" for cell in changed)


def _frame_title(frame: Mapping[str, Any]) -> str:
    count = len(frame["changed"])
    cells = "no cell changed" if count == 0 else f"{count} cell{'' if count == 1 else 's'} changed"
    return f"step {frame['step']}: {cells}, halt probability {_probability(frame['halt_probability'])}"


def _print_frame(console: Console, processor: GridProcessor, puzzle: Grid, frame: Mapping[str, Any]) -> None:
    console.print()
    console.print(Text(_frame_title(frame), style="cyan"))
    if frame["changed"]:
        console.print(grid_text(processor, frame["answer"], given=puzzle, changed=frame["changed"]))


def _probability(value: float | None) -> str:
    return "undefined (NaN)" if value is None else f"{value:.3f}"


def _cell_offsets(processor: GridProcessor, rendered: str) -> list[int]:
    """Where each cell stands in the rendered text; a rendered Sudoku has spaces and box lines between its cells."""
    between = {"sudoku": " |-+\n", "arc": " \n"}.get(processor.task, "\n")
    return [offset for offset, character in enumerate(rendered) if character not in between]
