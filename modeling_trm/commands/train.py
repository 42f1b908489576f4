"""Train a tiny recursive model from a recipe, evaluate it, and leave a folder that the Hub can take as it is.

examples:
  trm train quickstart
  trm train sudoku-fast-tr-mamba2mlpt --seed 1
  trm train sudoku-trm-mlp-t --data my.csv --train_steps 2000
  trm train arc-trm-attn --data data/arc1 --output_dir runs/arc
  trm train my-recipe.yaml --source_weights null
  trm train quickstart --import my_ops.py --block_operators gated_conv mlp
  accelerate launch --config_file scripts/accelerate.yaml --multi_gpu --num_processes 4 scripts/train.py sudoku-trm-attn

RECIPE is the name of one that is shipped (trm recipes lists them) or a YAML file, which may say `base: NAME` and state
only what differs. Every field of a recipe is an option, --field value; null switches off what can be switched off.
`trm recipes fields` lists them all, `trm recipes show NAME` what a recipe says. The most used:

  --data DATA               a file, a folder, a Hub id, or hub: in place of the recipe's data, whatever it says of them
  --output_dir DIR          folder of the run: log, checkpoints, model/
  --seed N                  of weights, data order, augmentation and exploration
  --train_steps N           optimiser steps; --batch_size N puzzles each
  --stop_after_minutes N    write a checkpoint and stop
  --import FILE.py          a file with operators of your own, which travels with the model

A run that was stopped or killed goes on where it was when the same command is given again. Exit code 0 when the run is
complete or has stopped by --stop_after_minutes, 130 when Ctrl-C or SIGTERM stopped it, 2 when something given was
wrong.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from .options import CommandParser, add_import, given


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Whether help is asked for, and all that is the recipe's to read."""
    parser = CommandParser("train", __doc__, usage="trm train [RECIPE] [--field value ...]", allow_abbrev=False)
    add_import(parser)
    return parser.parse_known_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    typed = given(argv)
    _, fields = parse_arguments(typed)
    from huggingface_hub.errors import StrictDataclassError

    from ..training.arguments import parse_recipe
    from ..utils.cli import user_errors

    # What a user can put right: a recipe, data or checkpoint that does not fit, a full disk, a run that diverged.
    with user_errors(ValueError, OSError, StrictDataclassError, FloatingPointError):
        return run(parse_recipe(fields), typed)


def run(recipe: Any, typed: list[str]) -> int:
    """Load the data, train, and when the training is complete evaluate and publish."""
    from transformers.utils import logging as transformers_logging

    from ..training.data import open_data
    from ..training.final import evaluate_and_publish
    from ..training.run_folder import own_folder
    from ..training.start import initial_model
    from ..training.threads import gpu_sized, use_all_cores
    from ..training.trainer import Trainer
    from ..utils.cli import INTERRUPTED
    from ..utils.loading import resized

    transformers_logging.disable_progress_bar()  # those of files written and read, among ours
    with own_folder(recipe):
        used = use_all_cores()
        data = open_data(recipe)
        model = initial_model(recipe, data.processor, data.index, data.held_out)
        trainer = Trainer(recipe, model, data)
        say = trainer.accelerator.print
        core, table = model.num_parameters_core(), model.num_parameters_table()
        say(f"model: {core:,} parameters ({' '.join(model.config.block_operators)}) + puzzle table {table:,}")
        say(f"data:  {data.description}")
        sized = [
            note
            for one in data.of_each_size
            for note in gpu_sized(
                resized(model.config, one.processor), one.recipe.optimisation.batch_size, trainer.accelerator.device
            )
        ]
        for note in (*data.notes, *used, *sized):
            say(f"note:  {note}")
        step = trainer.train()
        if step < trainer.train_steps:
            say(f"stopped at step {step} of {trainer.train_steps}; the same command goes on from there")
        else:
            folder = evaluate_and_publish(trainer, typed)
            say(f"model, card and plots: {folder}\nfigures: {trainer.output / 'metrics.json'}")
            for made in filter(None, (one.made_test for one in data.of_each_size)):
                say(f"test puzzles held out: {trainer.output / made} (trm evaluate --data, not the whole file)")
        trainer.close()
    return INTERRUPTED if step < trainer.train_steps and trainer.stopping.signal is not None else 0
