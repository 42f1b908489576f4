"""Compare models on the same puzzles: accuracy, cost, agreement, and what only one of them solves.

examples:
  trm compare --models runs/attention runs/hybrid --output runs/compared
  trm compare --models A B C --names attention hybrid mlp-t --max-puzzles 1000 \
      --max-steps 32 --output runs/compared-maze
  trm compare --models A B --views 32 --max-puzzles 200 --output runs/compared-votes

The models take turns, batch by batch, so that their seconds can be compared. McNemar's exact test says whether the
difference of two models may be chance. --views N solves each puzzle in N views (Sudoku relabelled, mazes turned) and
adds pass@K and coverage.

Writes OUTPUT/comparison.json, OUTPUT/comparison.md and OUTPUT/plots/*.png.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .options import (
    CommandParser,
    add_compute,
    add_import,
    add_max_steps,
    add_output,
    add_puzzles,
    add_views,
    autocast,
    check_task,
    load_chosen_puzzles,
    print_written,
    provenance,
    require_at_least,
)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("compare", __doc__)
    parser.add_argument(
        "--models", required=True, nargs="+", metavar="DIR", help="folders of checkpoints, or ids on the Hub; 2 or more"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the models (default: their folders' names)")
    add_import(parser)
    add_output(parser, "the comparison")
    add_puzzles(parser, max_puzzles=500, tasks=("sudoku", "maze"))
    add_max_steps(parser)
    add_views(parser, "none vote", "--votes")
    add_compute(parser, with_engine=False)
    arguments = parser.parse_args(argv)
    require_at_least(parser, arguments, 1, "max_puzzles", "max_steps", "views", "batch_size")
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
    """The last parts of the paths, of RUN/model the run; the whole paths where those are not distinct."""
    folders = [Path(model).resolve() for model in models]
    short = [folder.parent.name if folder.name == "model" else folder.name for folder in folders]
    return short if len(set(short)) == len(short) else list(models)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..comparison.compare import check_grids, compare_models
    from ..comparison.report import markdown_comparison, write_comparison
    from ..utils.cli import user_errors
    from ..utils.files import alone_in
    from ..utils.loading import choose_device, load_model, load_processor

    with user_errors(OSError, ValueError), alone_in(Path(arguments.output)):
        device = choose_device(arguments.device)
        processor = load_processor(arguments.models[0])
        check_task(arguments.task, processor, arguments.models[0])
        puzzles = load_chosen_puzzles(arguments, processor)
        for name in arguments.models:  # all of them first: a wrong one shows before any weights are read
            check_grids(name, load_processor(name), puzzles)
        models = {name: load_model(path, device) for name, path in zip(arguments.names, arguments.models, strict=True)}
        with autocast(arguments, device):
            comparison = compare_models(
                models,
                puzzles,
                max_steps=arguments.max_steps,
                views=arguments.views or 1,
                seed=arguments.seed,
                batch_size=arguments.batch_size,
            )
        report = {
            **provenance("compare", argv, puzzles, arguments.split, device),
            "checkpoints": dict(zip(arguments.names, arguments.models, strict=True)),
            "seed": arguments.seed,
            "precision": arguments.precision,
            "batch_size": arguments.batch_size,
            **comparison,
        }
        written = write_comparison(report, arguments.output)
    print(markdown_comparison(comparison))
    print_written(written)
    return 0
