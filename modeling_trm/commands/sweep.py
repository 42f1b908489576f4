"""Accuracy against compute at test time: steps, trajectories, and how one of them is chosen, as JSON, table and plot.

examples:
  trm sweep --model MODEL --noise-std 0.3 --output runs/sweep
  trm sweep --model MODEL --steps 16 32 64 --trajectories 1 4 16 --random-start \
      --max-puzzles 1000 --verifier --output runs/sweep-starts
  trm sweep --model MODEL --noise-std 0.3 --noise-on z_L --output runs/sweep-maze
  trm sweep --model MODEL --views 1 4 16 --output runs/sweep-views

"plain" is one trajectory of the puzzle as it is, without noise. The other rows choose among the first K trajectories,
which noise makes differ, or (--views) relabelling: trajectory k then solves the k-th relabelled view of the puzzle, the
first the puzzle itself, and its answer is undone. They choose by the halt logit, by votes, by the fixed-point residual,
or (--verifier) by the rules of the puzzle, which the model does not know; "any" counts a puzzle that some trajectory
solved, which no rule of choice can exceed. One run of the largest setting serves all rows.

Writes OUTPUT/sweep.json and OUTPUT/plots/sweep.png.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .options import (
    CommandParser,
    add_compute,
    add_model,
    add_output,
    add_puzzles,
    autocast,
    load_checkpoint,
    load_chosen_puzzles,
    print_written,
    provenance,
    require_at_least,
)
from .search_options import add_noise_options, check_noise

WIDTHS = (1, 2, 4, 8)  # of --trajectories or --views where none are given


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("sweep", __doc__)
    add_model(parser)
    add_output(parser, "sweep.json and plots/")
    add_puzzles(parser, max_puzzles=200, tasks=("sudoku", "maze"))
    parser.add_argument("--steps", type=int, nargs="+", default=(8, 16, 32), metavar="N", help="(default: 8 16 32)")
    parser.add_argument("--trajectories", type=int, nargs="+", metavar="K", help="(default: 1 2 4 8)")
    breadth = parser.add_argument_group("breadth", "what makes the trajectories differ: noise, or relabelling")
    add_noise_options(breadth)
    breadth.add_argument(
        "--views",
        type=int,
        nargs="*",
        metavar="N",
        help="so many views instead: of a Sudoku any number, of a maze 8, not square 4 (no N: those of --trajectories)",
    )
    parser.add_argument("--verifier", action="store_true", help="also choose by the rules of the puzzle")
    add_compute(parser)
    arguments = parser.parse_args(argv)
    require_at_least(parser, arguments, 1, "max_puzzles", "batch_size")
    by_views = arguments.views is not None
    if arguments.views == []:
        arguments.views, arguments.trajectories = arguments.trajectories or WIDTHS, None
    arguments.noise = check_noise(parser, arguments)
    is_random = bool(arguments.noise.get("noise_std") or arguments.noise.get("random_start"))
    if by_views and (is_random or arguments.trajectories):
        parser.error("--views is a breadth of its own: leave out --trajectories, --noise-std and --random-start")
    if not by_views and not is_random:
        parser.error("all trajectories would be the same one: give --noise-std above 0, --random-start or --views")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..evaluation.engine import computed_with
    from ..evaluation.sweep import Sweep, run_sweep
    from ..evaluation.sweep_plots import plot_sweep
    from ..utils.cli import user_errors
    from ..utils.files import alone_in, write_json
    from ..verifiers_trm import verifier_for

    with user_errors(OSError, ValueError), alone_in(Path(arguments.output)):
        sweep = Sweep(
            arguments.steps,
            trajectories=() if arguments.views else arguments.trajectories or WIDTHS,
            views=arguments.views or (),
            seed=arguments.seed,
            selections=("halt", "vote", "residual", *(["valid"] if arguments.verifier else [])),
            **arguments.noise,
        )
        model, processor = load_checkpoint(arguments)
        puzzles = load_chosen_puzzles(arguments, processor)
        verifier = verifier_for(puzzles.task, puzzles.processor.grid_shape) if arguments.verifier else None
        with autocast(arguments, model.device):
            rows = run_sweep(
                model, puzzles, sweep, verifier=verifier, batch_size=arguments.batch_size, engine=arguments.engine
            )
            computed = computed_with(model, arguments.engine)
        report = {
            **provenance("sweep", argv, puzzles, arguments.split, model.device),
            "model": arguments.model,
            **computed,
            "breadth": sweep.breadth,
            "seed": sweep.seed,
            "rows": rows,
        }
        print(markdown_table(rows, sweep.breadth))
        output = Path(arguments.output)
        title = f"{puzzles.task.capitalize()}: {len(puzzles):,} puzzles, compute at test time"
        picture = plot_sweep(rows, output / "plots" / "sweep.png", title, sweep.breadth)
        written = [write_json(output / "sweep.json", report), picture]
    print()
    print_written(written)
    return 0


def markdown_table(rows: list[dict[str, Any]], breadth: str) -> str:
    lines = [f"| chosen by | steps | trajectories ({breadth}) | solved | 95 % interval |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        low, high = (100 * bound for bound in row["ci95"])
        share = f"{100 * row['exact_accuracy']:.1f} % | {low:.1f} to {high:.1f}"
        lines.append(f"| {row['selection']} | {row['steps']} | {row['trajectories']} | {share} |")
    return "\n".join(lines)
