"""Compare models on the same puzzles: accuracy, cost, agreement, and what only one of them solves.

examples:
  python scripts/compare.py --models runs/attention runs/hybrid --task sudoku --output runs/compared
  python scripts/compare.py --models A B C --names attention hybrid mlp-t --task maze --max-puzzles 1000 \
      --max-steps 32 --output runs/compared-maze
  python scripts/compare.py --models A B --task sudoku --votes 32 --max-puzzles 200 --output runs/compared-votes

The models take turns, batch by batch, so that their seconds can be compared. McNemar's exact test says whether the
difference of two models may be chance. --votes N solves each puzzle in N views (Sudoku relabelled, mazes turned) and
adds pass@K and coverage.

Writes OUTPUT/comparison.json, OUTPUT/comparison.md and OUTPUT/plots/*.png.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", required=True, nargs="+", metavar="DIR", help="folders of checkpoints, or ids on the Hub; 2 or more"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the models (default: their folders' names)")
    parser.add_argument("--task", required=True, choices=("sudoku", "maze"))
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the comparison")
    parser.add_argument("--data", metavar="DIR_OR_FILE", help="csv, parquet or folder (default: the shipped sample)")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="(default: test)")
    parser.add_argument("--max-puzzles", type=int, default=500, metavar="N", help="(default: 500)")
    parser.add_argument("--max-steps", type=int, metavar="N", help="supervision steps (default: each model's own)")
    parser.add_argument("--votes", type=int, default=1, metavar="N", help="views of a puzzle that vote (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="of --max-puzzles, the views, the bootstrap (default: 0)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="bfloat16: autocast (default: float32)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, the GPU where there is one)")
    arguments = parser.parse_args(argv)
    for name, least in (("max_puzzles", 1), ("max_steps", 1), ("votes", 1), ("batch_size", 1), ("seed", 0)):
        value = vars(arguments)[name]
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if len(arguments.models) < 2:
        parser.error("--models needs two or more checkpoints")
    arguments.names = arguments.names or default_names(arguments.models)
    if len(arguments.names) != len(arguments.models):
        parser.error(f"--names holds {len(arguments.names)} names for {len(arguments.models)} models")
    twice = [name for name in arguments.names if arguments.names.count(name) > 1]
    if twice:
        parser.error(f"two models are called {twice[0]!r}; give each its own with --names")
    return arguments


def default_names(models: Sequence[str]) -> list[str]:
    """The last parts of the paths; the whole paths where those are not distinct."""
    short = [Path(model).resolve().name for model in models]
    return short if len(set(short)) == len(short) else list(models)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    import torch

    from datasets_builders.features import load_puzzles
    from modeling_trm.comparison.compare import check_task, compare_models
    from modeling_trm.comparison.report import markdown_comparison, write_comparison
    from modeling_trm.evaluation.runner import choose_subset
    from modeling_trm.utils.cli import command_line, user_errors
    from modeling_trm.utils.loading import choose_device, load_model, load_processor
    from modeling_trm.utils.machine import describe_machine, library_versions

    with user_errors(OSError, ValueError):
        device = choose_device(arguments.device)
        where = {}
        if arguments.data is not None:
            where = {"data_dir" if Path(arguments.data).is_dir() else "data_files": arguments.data}
        puzzles = load_puzzles(arguments.task, arguments.split, **where)
        puzzles = choose_subset(puzzles, arguments.max_puzzles, arguments.seed)
        for name in arguments.models:  # all of them first: a wrong one shows before any weights are read
            check_task(name, load_processor(name), puzzles)
        models = {name: load_model(path, device) for name, path in zip(arguments.names, arguments.models, strict=True)}
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
            comparison = compare_models(
                models,
                puzzles,
                max_steps=arguments.max_steps,
                num_votes=arguments.votes,
                seed=arguments.seed,
                batch_size=arguments.batch_size,
            )
        provenance = {
            "command": command_line("compare.py", sys.argv[1:] if argv is None else argv),
            "checkpoints": dict(zip(arguments.names, arguments.models, strict=True)),
            "dataset": puzzles.origin,
            "split": arguments.split,
            "seed": arguments.seed,
            "precision": arguments.precision,
            "batch_size": arguments.batch_size,
            "hardware": describe_machine(device),
            "versions": library_versions(),
        }
        print(markdown_comparison(comparison))
        written = write_comparison(provenance | comparison, arguments.output)
    print("\n".join(["written:", *(f"  {path}" for path in written)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
