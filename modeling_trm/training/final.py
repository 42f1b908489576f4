"""The end of a run: the published weights on the test puzzles, votes where the task is ARC, card and plots."""

import shutil
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from pyarrow import parquet

from datasets_builders.features import PuzzleSet
from datasets_builders.run_splits import known_note
from datasets_builders.sampling import TrainingStream
from datasets_builders.validation import validity_check

from ..cards.card import SOLVING
from ..cards.solving import solving_picture
from ..cards.update import VOTES_ON_CARD
from ..evaluation.engine import precision
from ..evaluation.halting import calibrate_halting, most_careful
from ..evaluation.runner import evaluate_puzzles
from ..evaluation.trained_on import hashes_kept
from ..modeling_trm import TRMForGridReasoning
from ..operator_files_trm import operator_files
from ..utils.cli import command_line
from ..utils.files import replaced, write_bytes
from ..utils.loading import load_model
from ..utils.machine import describe_machine, library_versions
from ..voting.collect import collect_votes
from ..voting.records import VoteRecords, load_records
from ..voting.report import write_report
from .arguments import DataArguments
from .data import RunData
from .fields import parse_files, parse_mapping
from .resuming import operators_fact
from .run_folder import publish_folder
from .start import past_of
from .trainer import Trainer


def evaluate_and_publish(trainer: Trainer, arguments: Sequence[str]) -> Path:
    """Evaluate the published weights on the test puzzles and write output/model; returns that folder.

    Every process calls it: they share the votes. The main process does the rest. Where the answers are not known
    (ARC), the card has no figures; records and submission are in output/evaluation all the same.

    Args:
        arguments: of the training command, for the card.

    Raises:
        Exception: whatever the evaluation ended with. The weights are in output/model all the same, but after an
            OSError, as of a full disk, where the same command goes on.
    """
    try:
        return _evaluate_and_publish(trainer, arguments)
    except OSError:
        raise
    except Exception:
        folder = trainer.output / "model"
        if trainer.accelerator.is_main_process and not folder.exists():
            with replaced(folder) as temporary:
                shutil.copytree(trainer.published_weights, temporary, dirs_exist_ok=True)
            trainer.accelerator.print(f"note:  {folder} is the trained model; what failed is its evaluation")
        raise


def _evaluate_and_publish(trainer: Trainer, arguments: Sequence[str]) -> Path:
    data, output, accelerator = trainer.data, trainer.output, trainer.accelerator
    model = load_model(str(trainer.published_weights), accelerator.device)
    model.set_kernels(**trainer.recipe.run.kernels())
    records = None
    if data.arc is not None:
        names = {"model": str(output / "model"), "command": _command(trainer, data, "voting")}
        records = collect(trainer, model, output / "evaluation", names)
    if not accelerator.is_main_process:
        return output / "model"
    tests = [one.load_test() for one in data.of_each_size]
    metrics = _metrics(trainer, model, tests)
    if records is not None:
        report, _ = write_report(records, output / "evaluation")
        if metrics:
            metrics["test"]["votes"] = {name: report[name] for name in VOTES_ON_CARD} | {"command": names["command"]}
    facts, pictures = _facts(trainer, model, tests), output / "evaluation" / "plots"
    if len(tests[0]):
        solving_picture(model, tests[0], pictures / SOLVING)
    before, trained_on = past_of(trainer.recipe.optimisation.start_from)
    for one in data.of_each_size:
        if isinstance(one.stream, TrainingStream):
            trained_on = hashes_kept(one.stream.questions, trained_on)
    return publish_folder(
        trainer.published_weights,
        output,
        reasoning=model.reasoning_config,
        metrics=metrics,
        recipe=trainer.recipe,
        run={
            "command": command_line("train", arguments),
            "steps": trainer.train_steps,
            "seconds": trainer.progress["seconds"],
            "flops": trainer.progress["flops"],
            "device": accelerator.device,
            "train": facts,
            "before": before,
        },
        plots=pictures if pictures.is_dir() else None,
        trained_on=trained_on if data.arc is None else None,
    )


def _metrics(trainer: Trainer, model: TRMForGridReasoning, tests: list[PuzzleSet]) -> dict[str, Any]:
    """{name on the card: figures} of the test puzzles of each size; those made by the run are written down."""
    metrics = {}
    for one, test in zip(trainer.data.of_each_size, tests):
        if one.made_test is not None:  # so that the command on the card can evaluate on it again
            written = BytesIO()
            parquet.write_table(test.to_table(), written)
            write_bytes(trainer.output / one.made_test, written.getbuffer())
        if len(test):
            metrics["test" if one is trainer.data else one.grid] = _evaluate(trainer, one, test, model)
    return metrics


def _facts(trainer: Trainer, model: TRMForGridReasoning, tests: list[PuzzleSet]) -> dict[str, Any]:
    """Of the training, for the card; the model gets its defaults."""
    facts, own = trainer.data.facts | trainer.facts, operator_files(trainer.published_weights)
    for one, test in zip(trainer.data.of_each_size, tests):
        facts |= _known(trainer, one, test)
    if own:
        facts |= {"operators of its own": ", ".join(own)} | operators_fact(model.config.block_operators)
    if trainer.data.validation is not None:
        facts["inference defaults"] = _calibrate(trainer, model)
    best = trainer.progress["best"]
    if best is not None:
        facts["published step"] = best["step"]
        mean = ", mean over the sizes" if trainer.data.others else ""
        scores = ("exact_accuracy", "cell_accuracy")
        facts |= {f"validation {name.replace('_', ' ')}{mean}": best[name] for name in scores}
    return facts


def _known(trainer: Trainer, data: RunData, test: PuzzleSet) -> dict[str, str]:
    """A fact for the card, which is said as well, where test puzzles are trained on."""
    notes = known_note("test", test, data.stream.questions) if isinstance(data.stream, TrainingStream) else []
    for note in notes:
        trainer.accelerator.print(f"note:  {note}")
    return {f"test puzzles{'' if data is trainer.data else f', {data.grid}'}": note for note in notes}


def _calibrate(trainer: Trainer, model: TRMForGridReasoning) -> str:
    """Give the model the defaults of its own with which it loses nothing on any size's validation puzzles; in words."""
    run = trainer.recipe.run
    validation = [one.validation for one in trainer.data.of_each_size if one.validation is not None]
    with trainer.accelerator.autocast():
        each = [
            calibrate_halting(model, puzzles, run.eval_max_steps, batch_size=run.eval_batch_size, progress=False)
            for puzzles in validation
        ]
    chosen = each[0] if len(each) == 1 else most_careful(each, model.config.halt_max_steps)
    model.reasoning_config = chosen
    halting = f"stopping above a halt probability of {chosen.halt}" if chosen.halt else "without halting"
    steps = chosen.max_steps or model.config.halt_max_steps
    return f"at most {steps} steps, {halting} (chosen on {sum(map(len, validation))} validation puzzles)"


def _evaluate(trainer: Trainer, data: RunData, test: PuzzleSet, model: TRMForGridReasoning) -> dict[str, Any]:
    """Every test puzzle once, as it is."""
    run = trainer.recipe.run
    with trainer.accelerator.autocast():
        metrics = evaluate_puzzles(
            model,
            test,
            max_steps=run.eval_max_steps,
            batch_size=run.eval_batch_size,
            score_valid=validity_check(data.recipe.data.task, test.processor.grid_shape),
            engine="eager",  # what was validated during training, to the bit
        )
        where = {"precision": precision(model, "eager"), "hardware": describe_machine(model.device)}
    return metrics | where | {"command": _command(trainer, data), "dataset": test.origin, "split": "test"}


def collect(trainer: Trainer, model: TRMForGridReasoning, folder: Path, facts: dict[str, Any]) -> VoteRecords | None:
    """The votes on the tests of an ARC run under the augmentations of the table; their folder is folder/records.

    Every process calls it and runs its share of the views.

    Args:
        facts: what else to note: what a report calls the model, the command that made it.

    Returns:
        All records; None but in the main process.
    """
    data, run, accelerator = trainer.data, trainer.recipe.run, trainer.accelerator
    assert data.arc is not None
    views = data.arc_views(trainer.recipe.data.views, model.puzzle_index)
    where = {"dataset": data.arc.origin, "hardware": describe_machine(accelerator.device)}
    with accelerator.autocast():
        collect_votes(
            model,
            views,
            folder / "records",
            max_steps=run.eval_max_steps,
            batch_size=run.eval_batch_size,
            shard=(accelerator.process_index, accelerator.num_processes),
            manifest={**where, "versions": library_versions(), **facts},
            progress=accelerator.is_main_process,
            engine="eager",
        )
    accelerator.wait_for_everyone()
    return load_records(folder / "records") if accelerator.is_main_process else None


def _command(trainer: Trainer, data: RunData, kind: str = "plain") -> str:
    """The command that evaluates the published model again on these data, in a folder of its own.

    Args:
        kind: "plain", every puzzle as it is; "voting", an ARC run's views.
    """
    asked, run, output = data.recipe.data, trainer.recipe.run, trainer.output
    again = f"again-{kind}" if data is trainer.data else f"again-{data.grid}"
    arguments = ["--model", str(output / "model"), "--task", asked.task, "--output", str(output / again)]
    with trainer.accelerator.autocast():
        is_bf16 = torch.is_autocast_enabled(trainer.accelerator.device.type)
    for name, value in (
        ("--side", None if data is trainer.data else data.processor.grid_shape[0]),
        ("--max-puzzles", asked.test_puzzles),
        ("--seed", None if asked.test_puzzles is None else asked.data_seed),
        ("--views", asked.views if kind == "voting" else None),
        ("--max-steps", run.eval_max_steps),
        ("--precision", "bfloat16" if is_bf16 else None),
        ("--engine", "eager"),
    ):
        if value is not None:
            arguments += [name, str(value)]
    arguments += _named(asked) if data.made_test is None else ["--data", str(output / data.made_test)]
    for name in operator_files(trainer.published_weights):
        arguments += ["--import", str(output / "model" / name)]
    return command_line("vote" if kind == "voting" else "evaluate", arguments)


def _named(asked: DataArguments) -> list[str]:
    """The options of a command that name a recipe's test puzzles and say how they are read; none for the sample."""
    files = (parse_files("data_files", asked.data_files) or {}).get("test")
    columns = parse_mapping("columns", asked.columns) or {}
    options: list[str] = []
    for name, values in (
        ("--data", [asked.data or asked.data_dir or asked.dataset or files]),
        ("--columns", [f"{role}={column}" for role, column in columns.items()]),
        ("--characters", [asked.characters]),
        ("--on-bad-row", ["skip" if asked.on_bad_row == "skip" else None]),
    ):
        given = [value for value in values if value is not None]
        options += [name, *given] if given else []
    return options
