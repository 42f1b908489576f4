"""Evaluate a checkpoint on puzzles: exact accuracy with its interval after every supervision step, as JSON and plots.

examples:
  python scripts/eval_puzzles.py --model DIR --task sudoku --output runs/evaluation            the shipped sample
  python scripts/eval_puzzles.py --model DIR --task sudoku --data my.parquet --output runs/evaluation
  python scripts/eval_puzzles.py --model DIR --task maze --data hub --max-puzzles 200 --output runs/evaluation
  python scripts/eval_puzzles.py --model org/name --task sudoku --halt --max-steps 64 --output runs/evaluation

Writes OUTPUT/metrics.json and OUTPUT/plots/*.png. Exit code 0 only when the evaluation was completed and written.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # PyTorch takes seconds to import: --help and wrong arguments must not wait for it
    from datasets_builders.features import PuzzleSet
    from modeling_trm import GridProcessor


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="folder of a checkpoint, or its id on the Hub")
    parser.add_argument("--task", required=True, choices=("sudoku", "maze", "grid"))
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for metrics.json and plots/")
    parser.add_argument(
        "--data",
        metavar="DIR_OR_FILE",
        help="csv or parquet file, folder, id of a data set on the Hub, or hub for the published one "
        "(default: the sample that comes with the package)",
    )
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="(default: test)")
    parser.add_argument("--max-puzzles", type=int, metavar="N", help="at most N puzzles, every source in proportion")
    parser.add_argument("--seed", type=int, default=0, help="of the choice made by --max-puzzles (default: 0)")
    parser.add_argument("--max-steps", type=int, metavar="N", help="supervision steps (default: as in training)")
    parser.add_argument(
        "--halt", action="store_true", help="stop each puzzle when the model wants to: fast, fewer curves"
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="puzzles at a time (default: 64)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, the GPU where there is one)")
    parser.add_argument("--on-bad-row", default="error", choices=("error", "skip"), help="(default: error)")
    arguments = parser.parse_args(argv)
    for name in ("max_puzzles", "max_steps", "batch_size"):
        value = vars(arguments)[name]
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from rich.console import Console

    from datasets_builders.validation import maze_path_is_valid_and_shortest
    from modeling_trm.evaluation.cli import command_line, user_errors
    from modeling_trm.evaluation.display import print_metrics
    from modeling_trm.evaluation.files import write_json
    from modeling_trm.evaluation.loading import choose_device, load_model, load_processor
    from modeling_trm.evaluation.machine import describe_machine, library_versions
    from modeling_trm.evaluation.plots import write_plots
    from modeling_trm.evaluation.runner import check_model_fits, choose_subset, evaluate_puzzles

    with user_errors(OSError, ValueError):
        device = choose_device(arguments.device)
        processor = load_processor(arguments.model)
        puzzles = load_data(arguments, processor)
        if arguments.max_puzzles is not None:
            puzzles = choose_subset(puzzles, arguments.max_puzzles, arguments.seed)
        grid_shape = tuple(processor.grid_shape)
        is_maze = arguments.task == "maze"
        score_valid = partial(maze_path_is_valid_and_shortest, grid_shape=grid_shape) if is_maze else None
        model = load_model(arguments.model, device)
        check_model_fits(model, puzzles)
    metrics = evaluate_puzzles(
        model,
        puzzles,
        max_steps=arguments.max_steps,
        halt=arguments.halt,
        batch_size=arguments.batch_size,
        score_valid=score_valid,
    )
    metrics |= {
        "command": command_line("eval_puzzles.py", sys.argv[1:] if argv is None else argv),
        "dataset": puzzles.origin,
        "split": arguments.split,
        "skipped_rows": [str(row) for row in puzzles.bad_rows],
    }
    report = {
        "model": arguments.model,
        "hardware": describe_machine(device),
        "versions": library_versions(),
        "evaluations": {arguments.split: metrics},
    }
    print_metrics(Console(highlight=False), metrics)
    output = Path(arguments.output)
    with user_errors(OSError):
        plots = write_plots(output / "plots", report["evaluations"])
        written = write_json(output / "metrics.json", report)
    print("\n".join(["written:", *(f"  {path}" for path in [written, *plots])]))
    return 0


def load_data(arguments: argparse.Namespace, processor: "GridProcessor") -> "PuzzleSet":
    """The puzzles that --data and --split mean; a "grid" task takes its shape and alphabet from the checkpoint."""
    from datasets_builders.features import load_puzzles

    if processor.task != arguments.task:
        raise ValueError(
            f"checkpoint {arguments.model!r} was made for task {processor.task!r}, not for --task {arguments.task!r}"
        )
    source: dict[str, Any] = {}
    if arguments.data is not None:
        path = Path(arguments.data)
        if path.is_dir():
            source["data_dir"] = path
        elif path.is_file():
            source["data_files"] = path
        elif arguments.data == "hub" or (arguments.data.count("/") == 1 and not path.suffix):
            source["dataset"] = arguments.data
        else:
            raise ValueError(
                f"--data {arguments.data!r}: no such file or folder (and not a Hub id of the form org/name)"
            )
    if arguments.task == "grid":
        source |= {"grid_shape": tuple(processor.grid_shape), "alphabet": processor.alphabet}
    return load_puzzles(arguments.task, arguments.split, on_bad_row=arguments.on_bad_row, **source)


if __name__ == "__main__":
    sys.exit(main())
