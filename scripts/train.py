"""Train a tiny recursive model from a recipe, evaluate it, and leave a folder that the Hub can take as it is.

    accelerate launch scripts/train.py scripts/recipes/quickstart.yaml
    accelerate launch scripts/train.py scripts/recipes/sudoku-trm-mlp-t.yaml --data_dir DIR --subset 1000 --seed 1
    accelerate launch scripts/train.py scripts/recipes/arc-trm-attn.yaml --data_dir data/arc1

A run that was stopped or killed goes on where it was when the same command is given again.
"""

import sys
from collections.abc import Sequence
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    from huggingface_hub.errors import StrictDataclassError

    from modeling_trm.training.arguments import parse_recipe
    from modeling_trm.utils.cli import user_errors

    # What a user can put right: a recipe, data or checkpoint that does not fit, a full disk, a run that diverged.
    with user_errors(ValueError, OSError, StrictDataclassError, FloatingPointError):
        return run(parse_recipe(arguments), arguments)


def run(recipe: Any, arguments: list[str]) -> int:
    """Load the data, train, and when the training is complete evaluate and publish."""
    from transformers.utils import logging as transformers_logging

    from modeling_trm.training.data import open_data
    from modeling_trm.training.final import evaluate_and_publish
    from modeling_trm.training.start import initial_model
    from modeling_trm.training.trainer import Trainer

    transformers_logging.disable_progress_bar()  # those of files written and read, among ours
    data = open_data(recipe)
    model = initial_model(recipe, data.processor, data.index, data.held_out)
    trainer = Trainer(recipe, model, data.processor, data.stream, data.validation, data.fingerprint)
    say = trainer.accelerator.print
    core, table = model.num_parameters_core(), model.num_parameters_table()
    say(f"model: {core:,} parameters ({' '.join(model.config.block_operators)}) + puzzle table {table:,}")
    say(f"data:  {data.description}")
    step = trainer.train()
    if step < trainer.train_steps:
        say(f"stopped at step {step} of {trainer.train_steps}; the same command goes on from there")
    else:
        folder = evaluate_and_publish(trainer, data, arguments)
        say(f"model, card and plots: {folder}\nfigures: {trainer.output / 'metrics.json'}")
    trainer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
