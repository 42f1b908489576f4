"""Solve puzzles with a trained checkpoint: a string, a file or stdin in, the answer and whether it obeys the rules out.

examples:
  trm solve --model MODEL 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79
  trm solve --model MODEL puzzles.txt                one puzzle a line, or 9 lines of 9; or csv, parquet, ...
  trm solve --model MODEL puzzles.txt --trace        what each step changes; --trace all: the grid after each step
  trm solve --model MODEL table.csv --columns question=start
  trm solve --model MODEL - --json < puzzles.txt
  trm solve --model MODEL puzzles.txt --max-steps 64 --halt 0.95 --output answers.json
  trm solve --model MODEL puzzles.txt --views 8      relabelled views of each puzzle are solved and vote
  trm solve --model MODEL puzzles.txt --num-trajectories 8 --noise-std 0.3 --selection vote
  trm solve --model MODEL puzzles.txt --views 8 --certificate rules       "not sure" instead of a wrong answer
  trm solve --model MODEL large.txt                  Sudokus of another size, where the model answers it; --side 16
  trm solve --model MODEL task.json                  arc: the tests of a task, or of a file of challenges

Steps, halting and views are the checkpoint's own (its reasoning_config.json) where no option says otherwise.

exit code: 0 when every puzzle was answered (right or wrong), 2 when one was malformed or contradictory, or on another
error; the others are still answered.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .options import (
    CommandParser,
    add_device,
    add_engine,
    add_max_steps,
    add_model,
    add_output_file,
    add_reading,
    add_seed,
    add_side,
    add_views,
    given,
    reading,
    refuse_reading,
)
from .search_options import (
    add_certificate_option,
    add_halt_option,
    add_search_options,
    check_reasoning,
    reasoning_options,
)

MAX_NAMED = 20  # wrong puzzles told one by one
CHANGES, ALL = "changes", "all"  # what --trace shows

if TYPE_CHECKING:  # PyTorch takes seconds to import: --help and wrong arguments must not wait for it
    import torch

    from .. import GridProcessor
    from ..puzzle_files_trm import NoPuzzle
    from ..puzzle_input_trm import Puzzle


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("solve", __doc__)
    parser.add_argument("puzzles", nargs="+", metavar="PUZZLE", help="a puzzle, a file of puzzles, or - for stdin")
    add_model(parser)
    add_reading(parser)
    add_side(parser)
    add_max_steps(parser)
    add_halt_option(parser, default=None)
    add_views(parser, "the checkpoint's own, usually 1")
    add_seed(parser)
    parser.add_argument(
        "--trace",
        nargs="?",
        const=CHANGES,
        choices=(CHANGES, ALL),
        metavar=ALL,
        help="show what each supervision step changes, on a few lines; all: the whole grid after each step",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of grids")
    add_output_file(parser, "write the JSON to this file as well")
    add_device(parser)
    add_engine(parser)
    add_search_options(parser)
    add_certificate_option(parser)
    parser.set_defaults(engine=None)  # the checkpoint's own
    arguments = parser.parse_intermixed_args(with_trace(given(argv)))  # puzzles may stand before and after the options
    config = check_reasoning(parser, arguments)
    if arguments.trace and config.num_trajectories > 1:
        parser.error("--trace is for a single trajectory, not for --num-trajectories above 1")
    return arguments


def with_trace(words: Sequence[str]) -> list[str]:
    """The arguments with the value of --trace joined to it: a puzzle that stands behind it is none."""
    joined: list[str] = []
    for word in words:
        if joined[-1:] == ["--trace"]:
            joined[-1] = f"--trace={ALL if word == ALL else CHANGES}"
            if word == ALL:
                continue
        joined.append(word)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..puzzle_files_trm import NoPuzzle
    from ..utils.cli import USER_ERROR, user_errors
    from ..utils.files import write_json
    from ..utils.loading import choose_device, load_processor
    from ..utils.outputs import refuse_source

    with user_errors(OSError, ValueError):
        if arguments.output is not None:
            refuse_source(arguments.output, arguments.puzzles)
        device = choose_device(arguments.device)
        found, processor, note = read_given(arguments, load_processor(arguments.model, arguments.side))
        wrong = [one for one in found if isinstance(one, NoPuzzle)]
        for one in wrong[:MAX_NAMED]:
            print(f"error: {one.name}: {one.error}", file=sys.stderr)
        if len(wrong) > MAX_NAMED:
            print(f"error: {len(wrong) - MAX_NAMED} more of {len(found)} puzzles are wrong", file=sys.stderr)
        if note is not None:
            print(f"note: {note}", file=sys.stderr)
        puzzles = [one for one in found if not isinstance(one, NoPuzzle)]
        solutions = solve(arguments, processor, puzzles, device) if puzzles else []
        solved = iter(solutions)
        results = [
            {"name": one.name, "puzzle": one.text, "error": one.error} if isinstance(one, NoPuzzle) else next(solved)
            for one in found
        ]
        if arguments.output is not None:
            write_json(arguments.output, results)
    show(results if arguments.json else None, processor, solutions, arguments.trace == ALL)
    return USER_ERROR if wrong else 0


def read_given(
    arguments: argparse.Namespace, own: "GridProcessor"
) -> "tuple[list[Puzzle | NoPuzzle], GridProcessor, str | None]":
    """What was given; the processor that read it, in the size of the puzzles; a note of `read_in_their_size`."""
    from ..puzzle_files_trm import read_arguments
    from ..utils.sizes import read_in_their_size, written_for

    if own.task == "arc":
        refuse_reading(arguments)
    if "-" in arguments.puzzles and sys.stdin is None:
        raise ValueError("stdin: is closed")
    stdin = sys.stdin.buffer.read() if "-" in arguments.puzzles else b""
    notes, how = list[str](), reading(arguments)

    def read(processor: "GridProcessor") -> "list[Puzzle | NoPuzzle]":
        return read_arguments(arguments.puzzles, processor, io.BytesIO(stdin), **how, tell=notes.append)

    told = own if arguments.side is not None else written_for(own, arguments.characters)
    result = (read(told), told, None) if told else read_in_their_size(read, own, arguments.model)
    for line in dict.fromkeys(notes):
        print(line, file=sys.stderr)
    return result


def solve(
    arguments: argparse.Namespace, processor: "GridProcessor", puzzles: "Sequence[Puzzle]", device: "torch.device"
) -> list[dict[str, Any]]:
    """The pipeline's answers, judged."""
    from ..evaluation.solutions import UNKNOWN_CELL, solution_of
    from ..pipeline_trm import GridReasoningPipeline
    from ..utils.loading import load_model

    model = load_model(arguments.model, device)
    config = model.reasoning_config.updated(**reasoning_options(arguments))
    pipe = GridReasoningPipeline(model=model, feature_extractor=processor, device=device)
    results = pipe(
        list(puzzles),
        reasoning_config=config,
        seed=arguments.seed,
        return_trace=arguments.trace is not None,
        unknown=UNKNOWN_CELL,
    )
    return [solution_of(processor, puzzle, result, config) for puzzle, result in zip(puzzles, results, strict=True)]


def show(
    results: list[dict[str, Any]] | None,
    processor: "GridProcessor",
    solutions: list[dict[str, Any]],
    whole_trace: bool,
) -> None:
    """JSON of `results` where it is wanted, else the solutions for people."""
    import json

    from rich.console import Console

    from ..evaluation.display import print_solution

    if results is not None:
        print(json.dumps(results, indent=2, allow_nan=False))
        return
    console = Console(highlight=False)
    for solution in solutions:
        print_solution(console, processor, solution, whole_trace)
