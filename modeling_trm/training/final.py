"""The end of a run: the published weights on the test puzzles, votes where the task is ARC, card and plots."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets_builders.validation import maze_path_is_valid_and_shortest

from ..evaluation.cli import command_line
from ..evaluation.loading import load_model
from ..evaluation.machine import describe_machine, library_versions
from ..evaluation.runner import evaluate_puzzles
from ..evaluation.views import ArcViews
from ..evaluation.vote_records import load_records
from ..evaluation.vote_report import summarise_votes, write_report
from ..evaluation.voting import collect_votes
from ..modeling_trm import TRMForGridReasoning
from .data import RunData
from .results import publish_folder
from .trainer import Trainer


def evaluate_and_publish(trainer: Trainer, data: RunData, arguments: Sequence[str]) -> Path:
    """Evaluate the published weights on the test puzzles and write output/model; returns that folder.

    Every process calls it: they share the votes. The main process does the rest.

    Args:
        arguments: of the training command, for the card.
    """
    recipe, output, accelerator = trainer.recipe, trainer.output, trainer.accelerator
    model = load_model(str(trainer.published_weights), accelerator.device)
    votes = None
    if data.arc is not None:
        names = {"model": str(output / "model"), "command": _command(trainer)}
        votes = vote(trainer, data, model, output / "evaluation", names)
    if not accelerator.is_main_process:
        return output / "model"
    metrics = _evaluate(trainer, data, model)
    if votes is not None:
        metrics["votes"] = votes
    facts = dict(data.facts)
    best = trainer.progress["best"]
    if best is not None:
        facts["published step"] = best["step"]
        facts |= {f"validation {name.replace('_', ' ')}": best[name] for name in ("exact_accuracy", "cell_accuracy")}
    return publish_folder(
        trainer.published_weights,
        output,
        metrics={"test": metrics},
        recipe=recipe.to_dict(),
        run={
            "command": command_line("train.py", arguments),
            "steps": recipe.optimisation.train_steps,
            "seconds": trainer.progress["seconds"],
            "device": accelerator.device,
            "train": facts,
        },
        plots=None if votes is None else output / "evaluation" / "plots",
    )


def _evaluate(trainer: Trainer, data: RunData, model: TRMForGridReasoning) -> dict[str, Any]:
    """Every test puzzle once, as it is."""
    recipe, test = trainer.recipe, data.load_test()
    grid_shape = tuple(test.processor.grid_shape)
    is_maze = recipe.data.task == "maze"
    with trainer.accelerator.autocast():
        metrics = evaluate_puzzles(
            model,
            test,
            max_steps=recipe.run.eval_max_steps,
            batch_size=recipe.run.eval_batch_size,
            score_valid=partial(maze_path_is_valid_and_shortest, grid_shape=grid_shape) if is_maze else None,
        )
    return metrics | {"command": _command(trainer), "dataset": test.origin, "split": "test"}


def vote(
    trainer: Trainer, data: RunData, model: TRMForGridReasoning, folder: Path, names: dict[str, str]
) -> dict[str, Any] | None:
    """The tests of an ARC run under the augmentations of the table: records and report into the folder.

    Every process calls it and runs its share of the views.

    Args:
        names: what the report calls the model, and the command that made it.

    Returns:
        protocol, counts, pass_at_k, coverage and means of `vote_report.summarise_votes`; None but in the main process.
    """
    assert data.arc is not None
    run, accelerator = trainer.recipe.run, trainer.accelerator
    views = ArcViews(
        data.arc.test_tasks,
        model.puzzle_index,
        data.processor,
        max_augmentations=trainer.recipe.data.test_augmentations,
        protocol=data.arc.protocol,
    )
    where = {"dataset": data.arc.origin, "hardware": describe_machine(accelerator.device)}
    with accelerator.autocast():
        collect_votes(
            model,
            views,
            folder / "records",
            max_steps=run.eval_max_steps,
            batch_size=run.eval_batch_size,
            shard=(accelerator.process_index, accelerator.num_processes),
            manifest={**where, "versions": library_versions(), **names},
            progress=accelerator.is_main_process,
        )
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return None
    records = load_records(folder / "records")
    write_report(records, folder)
    report = summarise_votes(records)
    return {name: report[name] for name in ("protocol", "counts", "pass_at_k", "coverage", "means")}


def _command(trainer: Trainer) -> str:
    """The command that evaluates the published model again."""
    recipe, output = trainer.recipe, trainer.output
    data, run = recipe.data, recipe.run
    arguments = ["--model", str(output / "model"), "--task", data.task, "--output", str(output / "evaluation")]
    for name, value in (
        ("--max-puzzles", data.test_puzzles),
        ("--max-augmentations", data.test_augmentations),
        ("--max-steps", run.eval_max_steps),
        ("--data", data.data_dir or data.dataset),
    ):
        if value is not None:
            arguments += [name, str(value)]
    if data.test_puzzles is not None:
        arguments += ["--seed", str(data.data_seed)]
    return command_line("eval_puzzles.py", arguments)
