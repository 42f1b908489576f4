"""Measure a checkpoint: exact accuracy after every supervision step.

examples:
  trm evaluate --model MODEL --output runs/evaluation                                             the shipped sample
  trm evaluate --model MODEL --data my.parquet --output runs/evaluation
  trm evaluate --model MODEL --data hub --max-puzzles 200 --output runs/evaluation
  trm evaluate --model org/name --halt 0.9 --max-steps 64 --output runs/evaluation
  trm evaluate --model MODEL --num-trajectories 8 --noise-std 0.3 --selection vote --output runs/search
  trm evaluate --model MODEL --side 16 --output runs/large            a model with symbol fields: the 16x16 sample
  trm evaluate --model MODEL --relabel --output runs/relabelled                once more with the digits renamed
  trm evaluate --model MODEL --data data/arc --split train --output runs/known         arc: the pairs as they are
  trm evaluate --model MODEL --update-card --output runs/evaluation                    and MODEL/README.md
  trm evaluate --model MODEL --data my.csv --update-card --card-entry mine --output runs/mine

Writes OUTPUT/metrics.json and OUTPUT/plots/*.png. --update-card then puts the figures into the metrics.json, plots/ and
README.md of the checkpoint's folder, all or nothing; what is not evaluated anew stays. Each puzzle is solved as it is;
`trm vote` solves it in several views, and is what arc's pass@K comes from.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .card_options import add_card, begin_card_update, check_card
from .options import (
    CommandParser,
    add_compute,
    add_max_steps,
    add_model,
    add_output,
    add_puzzles,
    add_side,
    autocast,
    given,
    hub_data,
    load_checkpoint,
    load_chosen_puzzles,
    print_written,
    refuse_reading,
    require_at_least,
)
from .search_options import add_halt_option, add_search_options, check_reasoning, run_time

if TYPE_CHECKING:
    from datasets_builders.features import PuzzleSet

    from .. import GridProcessor, TRMForGridReasoning
    from ..cards.update import CardUpdate


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("evaluate", __doc__)
    add_model(parser)
    add_output(parser, "metrics.json and plots/; not --model's, nor around it")
    add_puzzles(parser, max_puzzles=None)
    add_side(parser)
    parser.add_argument(
        "--relabel", action="store_true", help="solve each Sudoku once more with its digits renamed, by --seed"
    )
    add_max_steps(parser)
    add_halt_option(parser)
    add_compute(parser)
    add_card(parser)
    add_search_options(parser)
    arguments = parser.parse_args(argv)
    require_at_least(parser, arguments, 1, "max_puzzles", "batch_size")
    arguments.reasoning = check_reasoning(parser, arguments)
    if arguments.reasoning.search and arguments.update_card:
        parser.error("a card has figures of plain solving and of votes: --update-card without a search")
    if arguments.reasoning.search and arguments.relabel:
        parser.error("noise changes answers as well as names do: --relabel without a search")
    check_card(parser, arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """One pass over the puzzles as they are."""
    arguments = parse_arguments(argv)
    from rich.console import Console

    from datasets_builders.validation import validity_check

    from ..cards.card import SOLVING
    from ..cards.solving import solving_picture
    from ..evaluation.display import print_metrics
    from ..evaluation.engine import precision
    from ..evaluation.puzzles import check_puzzles_fit
    from ..evaluation.runner import evaluate_puzzles
    from ..utils.cli import command_line, user_errors
    from ..utils.files import alone_in
    from ..utils.machine import describe_machine

    with user_errors(OSError, ValueError), alone_in(Path(arguments.output)):
        update = begin_card_update(arguments)
        model, processor = load_checkpoint(arguments)
        puzzles = load_evaluated(arguments, processor, model)
        grid_shape = tuple(puzzles.processor.grid_shape)
        check_puzzles_fit(model, puzzles)
        if update is not None:
            update.check_data(puzzles.origin, voting=False)
        beside = run_time(arguments.reasoning, arguments.seed, processor.task, grid_shape)
        with autocast(arguments, model.device):
            metrics = evaluate_puzzles(
                model,
                puzzles,
                arguments.reasoning,
                batch_size=arguments.batch_size,
                score_valid=validity_check(puzzles.task, grid_shape),
                relabel_seed=arguments.seed if arguments.relabel else None,
                **beside,
            )
            metrics["precision"] = precision(model, arguments.engine)
        metrics |= {
            "command": command_line("evaluate", given(argv)),
            "dataset": puzzles.origin,
            "split": arguments.split,
            "skipped_rows": [str(row) for row in puzzles.bad_rows],
            **hub_data(arguments.data, processor.task),
        }
        if "search" in metrics:
            metrics["search"]["seed"] = arguments.seed
        if update is not None and arguments.side is None:  # a card shows a puzzle of the model's own size
            solving_picture(model, puzzles, Path(arguments.output) / "plots" / SOLVING)
        written = write_results(arguments, metrics, describe_machine(model.device), update)
    print_metrics(Console(highlight=False), metrics)
    if "search" in metrics:
        print("search:", ", ".join(f"{name}={value}" for name, value in metrics["search"].items()))
    print_written(written)
    return 0


def load_evaluated(
    arguments: argparse.Namespace, processor: "GridProcessor", model: "TRMForGridReasoning"
) -> "PuzzleSet":
    """The puzzles; of ARC the pairs of a split of a built folder, with the model's own puzzle ids."""
    if processor.task != "arc":
        return load_chosen_puzzles(arguments, processor, arguments.side)
    from datasets_builders.arc_folder import load_arc_folder

    from ..evaluation.puzzles import choose_subset

    refuse_reading(arguments)
    if arguments.data is None:
        raise ValueError("arc's pairs without votes need --data, a folder written by `trm build-data arc`")
    arc_set = load_arc_folder(arguments.data)
    index = model.puzzle_index
    if index is None or index.fingerprint != arc_set.index.fingerprint:
        raise ValueError(f"checkpoint {arguments.model!r} was not trained with the puzzle ids of {arguments.data}")
    pairs = {"train": arc_set.training, "validation": arc_set.validation, "test": arc_set.test}[arguments.split]()
    return pairs if arguments.max_puzzles is None else choose_subset(pairs, arguments.max_puzzles, arguments.seed)


def write_results(
    arguments: argparse.Namespace, metrics: dict[str, Any], hardware: str, update: "CardUpdate | None"
) -> list[Path]:
    """metrics.json and plots in the output folder, and the card where that is asked for; the files written."""
    from ..evaluation.plots import write_plots
    from ..utils.files import write_json
    from ..utils.machine import library_versions

    output, evaluations = Path(arguments.output), {arguments.split: metrics}
    plots = write_plots(output / "plots", evaluations)
    report = {
        "model": arguments.model,
        "hardware": hardware,
        "versions": library_versions(),
        "evaluations": evaluations,
    }
    written = [write_json(output / "metrics.json", report), *plots]
    if update is not None:
        written += update.write_plain({**metrics, "hardware": hardware}, output / "plots")
    return written
