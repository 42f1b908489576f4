"""Train a tiny recursive model from a recipe, evaluate it, and leave a folder that the Hub can take as it is.

    accelerate launch scripts/train.py scripts/recipes/quickstart.yaml
    accelerate launch scripts/train.py scripts/recipes/sudoku-trm-mlp-t.yaml --data_dir DIR --subset 1000 --seed 1

A run that was stopped or killed goes on where it was when the same command is given again.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    from huggingface_hub.errors import StrictDataclassError

    from modeling_trm.evaluation.cli import user_errors
    from modeling_trm.training.arguments import parse_recipe

    # What a user can put right: a recipe, data or checkpoint that does not fit, a full disk, a run that diverged.
    with user_errors(ValueError, OSError, StrictDataclassError, FloatingPointError):
        return run(parse_recipe(arguments), arguments)


def run(recipe: Any, arguments: list[str]) -> int:
    """Load the data, train, and when the training is complete evaluate and publish."""
    from datasets_builders.features import load_training_puzzles
    from datasets_builders.sampling import TrainingStream
    from modeling_trm.training.arguments import parse_mapping
    from modeling_trm.training.trainer import Trainer

    data, output = recipe.data, Path(recipe.run.output_dir)
    puzzles, validation = load_training_puzzles(
        data.task, subset=data.subset, validation_puzzles=data.validation_puzzles, **source_of(data)
    )
    stream = TrainingStream(
        puzzles,
        seed=recipe.run.seed,
        augment=data.augment,
        source_weights=parse_mapping("source_weights", data.source_weights),
    )
    trainer = Trainer(recipe, stream, validation)
    model, say = trainer.model, trainer.accelerator.print
    core, table = model.num_parameters_core(), model.num_parameters_table()
    say(f"model: {core:,} parameters ({' '.join(model.config.block_operators)}) + puzzle table {table:,}")
    say(f"data:  {len(puzzles):,} training and {len(validation):,} validation puzzles, {puzzles.origin}")
    step = trainer.train()
    if step < recipe.optimisation.train_steps:
        say(f"stopped at step {step} of {recipe.optimisation.train_steps}; the same command goes on from there")
    elif trainer.accelerator.is_main_process:
        finish(recipe, arguments, trainer, {"training puzzles": len(puzzles), "training data": puzzles.fingerprint})
        print(f"model, card and plots: {output / 'model'}\nfigures: {output / 'metrics.json'}")
    trainer.close()
    return 0


def source_of(data: Any) -> dict[str, Any]:
    """Where a recipe says that its puzzles come from, as keywords of datasets_builders.features.load_puzzles."""
    from modeling_trm.training.arguments import parse_mapping

    return {
        "data_dir": data.data_dir,
        "data_files": parse_mapping("data_files", data.data_files),
        "dataset": data.dataset,
        "seed": data.data_seed,
        "on_bad_row": data.on_bad_row,
        "grid_shape": tuple(data.grid_shape) if data.grid_shape else None,
        "alphabet": data.alphabet,
    }


def finish(recipe: Any, arguments: list[str], trainer: Any, facts: dict[str, Any]) -> None:
    """Evaluate the published weights on the test split; write metrics, plots and card."""
    from datasets_builders.features import load_puzzles
    from datasets_builders.validation import maze_path_is_valid_and_shortest
    from modeling_trm.evaluation.cli import command_line
    from modeling_trm.evaluation.loading import load_model
    from modeling_trm.evaluation.runner import choose_subset, evaluate_puzzles
    from modeling_trm.training.results import publish_folder

    data, output = recipe.data, Path(recipe.run.output_dir)
    test = load_puzzles(data.task, "test", **source_of(data))
    if data.test_puzzles is not None:
        test = choose_subset(test, data.test_puzzles, data.data_seed)
    weights, grid_shape = output / "weights" / "best", tuple(test.processor.grid_shape)
    score_valid = partial(maze_path_is_valid_and_shortest, grid_shape=grid_shape) if data.task == "maze" else None
    device = trainer.accelerator.device
    with trainer.accelerator.autocast():
        metrics = evaluate_puzzles(
            load_model(str(weights), device),
            test,
            max_steps=recipe.run.eval_max_steps,
            batch_size=recipe.run.eval_batch_size,
            score_valid=score_valid,
        )
    again = ["--model", str(output / "model"), "--task", data.task, "--output", str(output / "evaluation")]
    if data.test_puzzles is not None:
        again += ["--max-puzzles", str(data.test_puzzles), "--seed", str(data.data_seed)]
    if recipe.run.eval_max_steps is not None:
        again += ["--max-steps", str(recipe.run.eval_max_steps)]
    again += [part for name in ("data_dir", "dataset") if (value := getattr(data, name)) for part in ("--data", value)]
    metrics |= {"command": command_line("eval_puzzles.py", again), "dataset": test.origin, "split": "test"}
    best = trainer.progress["best"]
    publish_folder(
        weights,
        output,
        metrics={"test": metrics},
        recipe=recipe.to_dict(),
        run={
            "command": command_line("train.py", arguments),
            "steps": recipe.optimisation.train_steps,
            "seconds": trainer.progress["seconds"],
            "device": device,
            "train": facts | {"published step": best["step"], "validation exact accuracy": best["exact_accuracy"]},
        },
    )


if __name__ == "__main__":
    sys.exit(main())
