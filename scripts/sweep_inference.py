"""Accuracy against compute at test time: steps, trajectories, and how one of them is chosen, as JSON, table and plot.

examples:
  python scripts/sweep_inference.py --model DIR --task sudoku --noise-std 0.3 --output runs/sweep
  python scripts/sweep_inference.py --model DIR --task sudoku --steps 16 32 64 --trajectories 1 4 16 --random-start \
      --max-puzzles 1000 --verifier --output runs/sweep-starts
  python scripts/sweep_inference.py --model DIR --task maze --noise-std 0.3 --noise-on z_L --output runs/sweep-maze
  python scripts/sweep_inference.py --model DIR --task sudoku --trajectories 1 4 16 --views --output runs/sweep-views

"plain" is one trajectory of the puzzle as it is, without noise. The other rows choose among the first K trajectories,
which noise makes differ, or (--views) relabelling: trajectory k then solves the k-th relabelled view of the puzzle, the
first the puzzle itself, and its answer is undone. They choose by the halt logit, by votes, by the fixed-point residual,
or (--verifier) by the rules of the puzzle, which the model does not know; "any" counts a puzzle that some trajectory
solved, which no rule of choice can exceed. One run of the largest setting serves all rows.

Writes OUTPUT/sweep.json and OUTPUT/plots/sweep.png.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    from scripts.search_options import add_engine_option, add_noise_options, check_noise
except ImportError:  # run as a file: its folder, and not the repository, is where Python looks
    from search_options import add_engine_option, add_noise_options, check_noise  # type: ignore[import-not-found, no-redef]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="folder of a checkpoint, or its id on the Hub")
    parser.add_argument("--task", required=True, choices=("sudoku", "maze"))
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for sweep.json and plots/")
    parser.add_argument("--data", metavar="DIR_OR_FILE", help="csv, parquet or folder (default: the shipped sample)")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="(default: test)")
    parser.add_argument("--max-puzzles", type=int, default=200, metavar="N", help="(default: 200)")
    parser.add_argument("--steps", type=int, nargs="+", default=(8, 16, 32), metavar="N", help="(default: 8 16 32)")
    parser.add_argument(
        "--trajectories", type=int, nargs="+", default=(1, 2, 4, 8), metavar="K", help="(default: 1 2 4 8)"
    )
    breadth = parser.add_argument_group("breadth", "what makes the trajectories differ: noise, or relabelling")
    add_noise_options(breadth)
    breadth.add_argument(
        "--views", action="store_true", help="relabelled views: of a Sudoku any number, of a maze 8 (not square: 4)"
    )
    parser.add_argument("--verifier", action="store_true", help="also choose by the rules of the puzzle")
    parser.add_argument("--seed", type=int, default=0, help="of --max-puzzles, noise, views (default: 0)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="trajectories at a time (default: 64)")
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="bfloat16: autocast (default: float32)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, the GPU where there is one)")
    add_engine_option(parser)
    arguments = parser.parse_args(argv)
    for name in ("max_puzzles", "batch_size"):
        if vars(arguments)[name] < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {vars(arguments)[name]}")
    check_noise(parser, arguments)
    is_random = arguments.random_start or arguments.noise_std > 0
    if arguments.views and is_random:
        parser.error("--views is a breadth of its own: leave out --noise-std and --random-start")
    if not arguments.views and not is_random:
        parser.error("all trajectories would be the same one: give --noise-std above 0, --random-start or --views")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    import torch

    from datasets_builders.features import load_puzzles
    from modeling_trm.evaluation.engine import engine_name, precision
    from modeling_trm.evaluation.runner import choose_subset
    from modeling_trm.evaluation.sweep import Sweep, run_sweep
    from modeling_trm.evaluation.sweep_plots import plot_sweep
    from modeling_trm.utils.cli import command_line, user_errors
    from modeling_trm.utils.files import write_json
    from modeling_trm.utils.loading import choose_device, load_model
    from modeling_trm.utils.machine import describe_machine, library_versions
    from modeling_trm.verifiers_trm import verifier_for

    with user_errors(OSError, ValueError):
        sweep = Sweep(
            arguments.steps,
            arguments.trajectories,
            arguments.noise_std,
            arguments.noise_on,
            arguments.random_start,
            arguments.views,
            arguments.seed,
            ("halt", "vote", "residual", *(["valid"] if arguments.verifier else [])),
        )
        device = choose_device(arguments.device)
        model = load_model(arguments.model, device)
        puzzles = load_puzzles(arguments.task, arguments.split, **where(arguments.data))
        puzzles = choose_subset(puzzles, arguments.max_puzzles, arguments.seed)
        verifier = verifier_for(arguments.task, puzzles.processor.grid_shape) if arguments.verifier else None
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
            rows = run_sweep(
                model, puzzles, sweep, verifier=verifier, batch_size=arguments.batch_size, engine=arguments.engine
            )
            engine, computed_in = engine_name(model, arguments.engine), precision(model, arguments.engine)
        report = {
            "command": command_line("sweep_inference.py", sys.argv[1:] if argv is None else argv),
            "model": arguments.model,
            "dataset": puzzles.origin,
            "split": arguments.split,
            "fingerprint": puzzles.fingerprint,
            "precision": computed_in,
            "engine": engine,
            "breadth": sweep.breadth,
            "seed": sweep.seed,
            "hardware": describe_machine(device),
            "versions": library_versions(),
            "rows": rows,
        }
        print(markdown_table(rows, sweep.breadth))
        output = Path(arguments.output)
        title = f"{arguments.task.capitalize()}: {len(puzzles):,} puzzles, compute at test time"
        picture = plot_sweep(rows, output / "plots" / "sweep.png", title, sweep.breadth)
        written = [write_json(output / "sweep.json", report), picture]
    print("\n".join(["", "written:", *(f"  {path}" for path in written)]))
    return 0


def where(data: str | None) -> dict[str, Any]:
    """As `load_puzzles` takes it; None is the shipped sample."""
    if data is None:
        return {}
    return {"data_dir" if Path(data).is_dir() else "data_files": data}


def markdown_table(rows: list[dict[str, Any]], breadth: str) -> str:
    lines = [f"| chosen by | steps | trajectories ({breadth}) | solved | 95 % interval |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        low, high = (100 * bound for bound in row["ci95"])
        share = f"{100 * row['exact_accuracy']:.1f} % | {low:.1f} to {high:.1f}"
        lines.append(f"| {row['selection']} | {row['steps']} | {row['trajectories']} | {share} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
