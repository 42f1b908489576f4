"""Measure all that a card states about a checkpoint, in passes that can be stopped and resumed, and write it there.

examples:
  trm measure-card --model model_cards/tr-mamba2mlpt-sudoku --engine int8 --output runs/card
  trm measure-card --model DIR --data sample my.parquet --halting-puzzles 1000 --output runs/card
  trm measure-card --model DIR --steps 64 --steps-puzzles 300 --views-puzzles 0 --output runs/card

Four passes over each data set, each with a number of puzzles of its own (0 leaves it out): "steps" takes all --steps
and gives the accuracy after each of them; "halting" stops a puzzle at a halt probability above --halt, at --halt-steps
at the latest; "views" lets relabelled views of a puzzle vote, "trajectories" chooses among noisy ones, and both stop at
the halt or after --steps. A command that was stopped goes on when it is given again with the same --output, also with
more passes; the card has the figures of the passes asked for last.

Writes OUTPUT/measured.json, the outcome of every puzzle below OUTPUT/ENTRY/PASS, and the figures into metrics.json,
plots/ and README.md of the checkpoint's folder: ENTRY is "test" for the shipped sample, else the file's name. Exit code
0 when the card was written.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import (
    CommandParser,
    add_batch_size,
    add_device,
    add_engine,
    add_model,
    add_output,
    add_seed,
    given,
    require_at_least,
    tell_trained_on,
)
from .search_options import LATENTS, probability

if TYPE_CHECKING:  # PyTorch takes seconds to import: --help and wrong arguments must not wait for it
    from datasets_builders.features import PuzzleSet

SAMPLE = "sample"
PUZZLES = {"steps": 300, "halting": 1000, "views": 100, "trajectories": 100}  # of each pass


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("measure-card", __doc__)
    add_model(parser)
    add_output(parser, "what every pass found; resumed from there")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[SAMPLE],
        metavar="FILE",
        help="csv or parquet; sample: the shipped test split",
    )
    for name, count in PUZZLES.items():
        parser.add_argument(
            f"--{name}-puzzles", type=int, default=count, metavar="N", help=f"of the pass {name} (default: %(default)s)"
        )
    parser.add_argument("--steps", type=int, default=16, metavar="N", help="of each walk (default: %(default)s)")
    parser.add_argument(
        "--halt", type=probability, default=0.95, metavar="P", help="stop above it (default: %(default)s)"
    )
    parser.add_argument(
        "--halt-steps", type=int, default=64, metavar="N", help="of the pass halting (default: %(default)s)"
    )
    parser.add_argument("--views", type=int, nargs="+", default=(8, 32), metavar="K", help="(default: 8 32)")
    parser.add_argument("--trajectories", type=int, nargs="+", default=(8,), metavar="K", help="(default: 8)")
    parser.add_argument("--noise-std", type=float, default=0.1, metavar="X", help="(default: %(default)s)")
    parser.add_argument("--noise-on", default="z_H", choices=LATENTS, help="(default: %(default)s)")
    add_seed(parser)
    add_batch_size(parser, 32)
    add_device(parser)
    add_engine(parser)
    arguments = parser.parse_args(argv)
    require_at_least(parser, arguments, 1, "batch_size")
    entries = list(map(entry_of, arguments.data))
    if twice := [entry for entry in entries if entries.count(entry) > 1]:
        parser.error(f"--data: {twice[0]!r} would be the card's name of several of these; rename one file")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..cards.measure import measure_card
    from ..cards.protocol import Protocol
    from ..cards.update import CardUpdate
    from ..utils.cli import command_line, user_errors
    from ..utils.files import alone_in, write_json
    from ..utils.loading import choose_device, load_model, load_processor

    with user_errors(OSError, ValueError), alone_in(Path(arguments.output)):
        protocol = Protocol(
            puzzles={name: vars(arguments)[f"{name}_puzzles"] for name in PUZZLES},
            steps=arguments.steps,
            halt=arguments.halt,
            halt_steps=arguments.halt_steps,
            views=tuple(arguments.views),
            trajectories=tuple(arguments.trajectories),
            noise_std=arguments.noise_std,
            noise_on=arguments.noise_on,
            seed=arguments.seed,
        )
        updates = {
            source: CardUpdate.begin(arguments.model, entry_of(source), may_replace=True) for source in arguments.data
        }
        task = load_processor(arguments.model).task
        model = load_model(arguments.model, choose_device(arguments.device))
        sets = {source: load_data(task, source) for source in arguments.data}
        for puzzles in sets.values():
            tell_trained_on(arguments.model, puzzles)
        report: dict[str, Any] = {}
        for source, puzzles in sets.items():
            entry = entry_of(source)
            print(f"{entry}: {puzzles.origin}, {len(puzzles):,} puzzles", flush=True)
            figures, plots = measure_card(
                model,
                puzzles,
                protocol,
                Path(arguments.output) / entry,
                dataset=puzzles.origin,
                command=command_line("measure-card", given(argv)),
                batch_size=arguments.batch_size,
                engine=arguments.engine,
            )
            report[entry] = figures
            write_json(Path(arguments.output) / "measured.json", report)
            for row in figures["ways"]:
                low, high = (100 * bound for bound in row["ci95"])
                print(f"  {row['way']}: {row['exact_accuracy']:.1%} ({low:.1f} to {high:.1f}) of {row['count']:,}")
            for path in updates[source].write_plain(figures, plots):
                print(f"  {path}")
    return 0


def entry_of(source: str) -> str:
    return "test" if source == SAMPLE else Path(source).stem


def load_data(task: str, source: str) -> "PuzzleSet":
    from datasets_builders.features import load_puzzles

    return load_puzzles(task, "test", data_files=None if source == SAMPLE else source)
