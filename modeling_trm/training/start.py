"""The model that a run starts with: new weights, or those of a checkpoint, and a puzzle table for the run's tasks."""

import torch
from accelerate.utils import set_seed

from ..evaluation.loading import check_model_fits, load_model
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..puzzle_index_trm import PuzzleIndex
from .arguments import Recipe


def initial_model(recipe: Recipe, processor: GridProcessor, index: PuzzleIndex | None = None) -> TRMForGridReasoning:
    """The model on the CPU, its puzzle table as `index` says (one blank row without an index).

    With `start_from`, rows of the checkpoint's table that stand for the same task and augmentation are taken over, the
    others start at its mean row.

    Raises:
        ValueError: a recipe or checkpoint that does not fit the puzzles, naming both sides.
    """
    o = recipe.optimisation
    set_seed(recipe.run.seed)
    if o.start_from is None:
        model = TRMForGridReasoning(recipe.model_config(processor, 1 if index is None else len(index)))
        if index is not None:
            model.set_puzzle_index(index)
    else:
        model = load_model(o.start_from).train()
        check_model_fits(model, processor)
        if index is not None:
            adopt_tasks(model, index)
    if o.train_only == "puzzle_table":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name == "model.puzzle_emb.weight")
    return model


@torch.no_grad()
def adopt_tasks(model: TRMForGridReasoning, index: PuzzleIndex) -> None:
    """Give the model a puzzle table for another index: rows that both know are kept, new ones start at the mean row.

    Raises:
        ValueError: the model has no puzzle table.
    """
    table, before = model.model.puzzle_emb, model.puzzle_index
    if table is None or before is None:
        raise ValueError("the checkpoint has no puzzle table (puzzle_prefix_len=0); it cannot be told tasks apart")
    weight_ND = table.mean_row().expand(len(index), -1).clone()
    weight_ND[0] = table.weight[0]
    for task in index.tasks:
        if task in before:
            known = {before.augmentation_of_row[row].tobytes(): int(row) for row in before.rows_of(task)}
            rows = [(row, known.get(index.augmentation_of_row[row].tobytes())) for row in index.rows_of(task).tolist()]
            kept = [(row, old) for row, old in rows if old is not None]
            if kept:
                new, old = torch.tensor(kept).T
                weight_ND[new] = table.weight[old]
    table.replace(weight_ND, index)
    model.config.num_puzzles = len(index)
