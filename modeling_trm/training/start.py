"""The model that a run starts with: new weights, or those of a checkpoint, and a puzzle table for the run's tasks."""

from collections.abc import Sequence
from typing import Any

from accelerate.utils import set_seed

from ..cards.update import read_metrics
from ..configuration_trm import PRESETS, TRMConfig
from ..evaluation.trained_on import KEY, checked
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..puzzle_index_trm import PuzzleIndex
from ..utils.loading import fit_model, folder_of, load_model
from .arguments import Recipe

OF_A_RUN = (
    "command",
    "seed",
    "steps",
    "seconds",
    "flops",
    "hardware",
    "train",
)  # of metrics.json, as the card reads it


def initial_model(
    recipe: Recipe, processor: GridProcessor, index: PuzzleIndex | None = None, held_out: Sequence[str] = ()
) -> TRMForGridReasoning:
    """The model on the CPU, its puzzle table as `index` says (one blank row without an index).

    With `start_from`, rows of the checkpoint's table that stand for the same task and augmentation are taken over, the
    others start at its mean row.

    Args:
        held_out: tasks that the run must not have been trained on, under any subset's name.

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
        model = load_model(o.start_from).float().train()  # what learns is float32, however it was shipped
        fit_model(model, processor)
        _check_architecture(model, recipe)
        _check_start(model, recipe, held_out)
        if index is not None:
            model.adopt_tasks(index)
    model.set_kernels(**recipe.run.kernels())
    if o.train_only == "puzzle_table":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name == "model.puzzle_emb.weight")
    return model


def past_of(start_from: str | None) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What the weights that a run begins with had learnt before, by their metrics.json: runs, and hashes of puzzles.

    Returns:
        The runs, the first one first, as metrics.json holds them under "before"; what `trained_on.hashes_kept` takes.
        Nothing of a checkpoint that tells nothing.
    """
    if start_from is None:
        return [], {}
    try:
        metrics = read_metrics(folder_of(start_from))
        kept = checked(metrics.get(KEY, {}))
    except (OSError, TypeError, ValueError):  # none, gone meanwhile, of an earlier version or of another program
        return [], {}
    last = {name: metrics[name] for name in OF_A_RUN if name in metrics}
    return [*metrics.get("before", []), *([last] if "recipe" in metrics else [])], kept


def _check_architecture(model: TRMForGridReasoning, recipe: Recipe) -> None:
    """Raise ValueError, naming field and both values, where the recipe asks for another model than the checkpoint's."""
    start, preset = recipe.optimisation.start_from, recipe.model.preset
    fields = recipe.architecture()
    if preset is not None:
        TRMConfig.from_preset(preset)  # refuses a name that is none
        fields = PRESETS[preset] | fields
    for name, wanted in fields.items():
        found = getattr(model.config, name)
        if found != wanted:
            origin = f"preset={preset!r} says" if name not in recipe.architecture() else "the recipe says"
            raise ValueError(
                f"{origin} {name}={wanted!r}, but the checkpoint start_from={start!r} has {name}={found!r}: leave it "
                f"out or set it so; the checkpoint brings its architecture"
            )


def _check_objective(model: TRMForGridReasoning, recipe: Recipe) -> None:
    """Raise ValueError where a trained model is to go on with another objective than it was made for."""
    objective, config = recipe.optimisation.objective, model.config
    reads = config.answer_feedback or config.num_step_embeddings > 0
    if (objective == "dis") != reads:
        raise ValueError(
            f"objective={objective!r} does not fit a model with answer_feedback={config.answer_feedback}, "
            f"num_step_embeddings={config.num_step_embeddings}; such a model is trained with "
            f"objective={'dis' if reads else 'act'!r}"
        )


def _check_start(model: TRMForGridReasoning, recipe: Recipe, held_out: Sequence[str]) -> None:
    o = recipe.optimisation
    if o.loss_on == "blanks" and model.config.blank_token_id is None:
        raise ValueError(f"loss_on='blanks', but {o.start_from!r} was trained on all cells (blank_token_id is not set)")
    _check_objective(model, recipe)
    index = model.puzzle_index
    seen = [name for name in held_out if index is not None and index.name_of(name) is not None]
    if seen:
        raise ValueError(
            f"start_from={o.start_from!r} has been trained on {len(seen)} tasks that the inductive protocol holds out, "
            f"for example {seen[0]!r}"
        )
