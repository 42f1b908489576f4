"""What a recipe's data section stands for: rows to train on, puzzles to validate and test with, the puzzle ids."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets_builders.arc_folder import load_arc_folder
from datasets_builders.arc_sampling import ArcStream
from datasets_builders.arc_set import ArcSet
from datasets_builders.features import PuzzleSet, load_puzzles
from datasets_builders.run_splits import known_note, load_run_splits
from datasets_builders.sampling import TrainingStream
from datasets_builders.sources import named_source

from ..arc_task_trm import task_name
from ..configuration_trm import TRMConfig
from ..evaluation.puzzles import Puzzles, choose_subset
from ..evaluation.trained_on import made_test
from ..processing_trm import GridProcessor
from ..puzzle_index_trm import PuzzleIndex
from ..utils.flops import training_flops
from ..utils.loading import resized
from ..voting.views import ArcViews
from .arguments import Recipe
from .fields import parse_files, parse_mapping
from .rows import Stream


@dataclass(frozen=True)
class RunData:
    """The data of a run, of one size of grids; `others`: of the other sizes that it trains.

    Attributes:
        recipe: the run's; of one of the others with the puzzles and the batch_size of that size.
        validation: puzzles that choose the published weights; None where there are none.
        index: what the rows of the puzzle table stand for; None for the blank row alone.
        fingerprint: of the training data. held_out: names of the tasks that the protocol keeps out of training.
        facts: {name: number or text} for the card. arc: the whole ARC set, for its test tasks; None otherwise.
        made_test: file for the test puzzles, where they were held out of the training puzzles or come from several
            files; None where one name tells them. notes: lines for the user.
    """

    recipe: Recipe
    stream: Stream
    processor: GridProcessor
    validation: Puzzles | None
    load_test: Callable[[], PuzzleSet]
    index: PuzzleIndex | None
    fingerprint: str
    description: str
    facts: dict[str, Any]
    held_out: tuple[str, ...] = ()
    arc: ArcSet | None = None
    made_test: str | None = None
    notes: tuple[str, ...] = ()
    others: tuple["RunData", ...] = ()

    @property
    def of_each_size(self) -> "list[RunData]":
        """Of every size, the model's own first."""
        return [self, *self.others]

    @property
    def grid(self) -> str:
        """The size of its grids, for people: "9x9"."""
        return "{}x{}".format(*self.processor.grid_shape)

    def step_flops(self, config: TRMConfig, cycles: tuple[int, int] | None = None) -> int:
        """Of an optimiser step with so many cycles (None: the config's), over all processes and sizes of grids."""
        return sum(
            one.recipe.optimisation.batch_size * training_flops(resized(config, one.processor), cycles)
            for one in self.of_each_size
        )

    def arc_views(self, views: int | None, index: PuzzleIndex | None) -> ArcViews:
        """What votes at the end of an ARC run, of a model whose puzzle table has this index."""
        assert self.arc is not None
        return ArcViews(self.arc.test_tasks, index, self.processor, views=views, protocol=self.arc.protocol)


def open_data(recipe: Recipe) -> RunData:
    """Read and check what the recipe names. Raises DataError, a ValueError, naming file and reason."""
    if recipe.data.task == "arc":
        return _open_arc(recipe)
    own = _open_puzzles(recipe)
    others = [_open_other(side, other) for side, other in recipe.other_sizes().items()]
    validated = {one.grid: one.validation is not None for one in (own, *others)}
    if len(set(validated.values())) > 1:
        without = ", ".join(grid for grid, has in validated.items() if not has)
        raise ValueError(f"validation_puzzles: {without} has none, other sizes do; give all sizes some, or none")
    if own.processor.seq_len in [other.processor.seq_len for other in others]:
        raise ValueError(f"other_sizes: the run's own puzzles, {own.grid}, have as many cells; name other sizes")
    fingerprint = " ".join(one.fingerprint for one in (own, *others))
    counts = {f"training puzzles, {one.grid}": one.facts["training puzzles"] for one in others}
    every = own.facts["training puzzles"] + sum(counts.values())
    return replace(
        own,
        others=tuple(others),
        fingerprint=fingerprint,
        description="; ".join(one.description for one in (own, *others)),
        facts=own.facts | {"training puzzles": every, "training data": fingerprint} | counts,
        notes=(*own.notes, *(f"{one.grid}: {note}" for one in others for note in one.notes)),
    )


def _open_puzzles(recipe: Recipe) -> RunData:
    data = recipe.data
    source: dict[str, Any] = {
        "data_dir": data.data_dir,
        "data_files": parse_files("data_files", data.data_files),
        "dataset": data.dataset,
        **named_source(data.data),
        "seed": data.data_seed,
        "on_bad_row": data.on_bad_row,
        "grid_shape": tuple(data.grid_shape) if data.grid_shape else None,
        "alphabet": data.alphabet,
        "columns": parse_mapping("columns", data.columns),
        "characters": data.characters,
    }
    splits = load_run_splits(
        data.task,
        subset=data.subset,
        validation_puzzles=data.validation_puzzles,
        test_puzzles=data.test_puzzles,
        at_most=data.data is not None,
        **source,
    )
    puzzles, test, validation = splits.training, splits.test, splits.validation
    weights, notes = _source_weights(recipe, puzzles)
    stream = TrainingStream(puzzles, seed=recipe.run.seed, augment=data.augment, source_weights=weights)
    validated = 0 if validation is None else len(validation)
    known = [] if validation is None else known_note("validation", validation, stream.questions)
    return RunData(
        recipe,
        stream,
        puzzles.processor,
        validation,
        lambda: _some(load_puzzles(data.task, "test", **source), recipe) if test is None else test,
        index=None,
        fingerprint=puzzles.fingerprint,
        description=f"{len(puzzles):,} training and {validated:,} validation puzzles, {puzzles.origin}",
        facts={"training puzzles": len(puzzles), "training data": puzzles.fingerprint},
        made_test=made_test() if test is not None or _are_several(source["data_files"]) else None,
        notes=(*splits.notes, *notes, *known),
    )


def _are_several(files: Any) -> bool:
    """Whether the test puzzles of data_files are more than one file, which no --data could name."""
    named = files.get("test") if isinstance(files, dict) else None
    return named is not None and not (isinstance(named, str) and Path(named).is_file())


def _open_other(side: int, recipe: Recipe) -> RunData:
    try:
        opened = _open_puzzles(recipe)
    except ValueError as error:
        raise ValueError(f"other_sizes: {side}: {error}") from error
    return opened if opened.made_test is None else replace(opened, made_test=made_test(opened.grid))


def _source_weights(recipe: Recipe, puzzles: PuzzleSet) -> tuple[dict[str, float] | None, list[str]]:
    """The recipe's weights and what there is to say; with data of one's own, those of the sources that these have."""
    weights = parse_mapping("source_weights", recipe.data.source_weights)
    if weights is None or recipe.data.data is None:
        return weights, []
    known = {name: weight for name, weight in weights.items() if name in puzzles.sources}
    if known == weights:
        return weights, []
    left_out = ", ".join(name for name in weights if name not in known)
    then = "every puzzle is drawn alike" if not any(known.values()) else "the others keep theirs"
    return (known if any(known.values()) else None), [f"source_weights names {left_out}, not in these data: {then}"]


def _open_arc(recipe: Recipe) -> RunData:
    data = recipe.data
    folder = data.data or data.data_dir
    assert folder is not None  # the recipe has checked it
    arc = load_arc_folder(folder)
    stream = ArcStream(arc, seed=recipe.run.seed, augment=data.augment)
    validation = arc.validation()
    if data.validation_puzzles is None:
        validation = validation.select(np.arange(0))
    elif len(validation):
        validation = choose_subset(validation, data.validation_puzzles, data.data_seed)
    tasks, leaks = len(arc.index.tasks), arc.report["leaks"]
    return RunData(
        recipe,
        stream,
        arc.processor,
        validation if len(validation) else None,
        arc.test,
        index=arc.index,
        fingerprint=arc.fingerprint,
        description=f"{len(stream):,} training pairs of {tasks:,} tasks under {len(arc.index) - 1:,} augmentations, "
        f"{len(validation):,} validation pairs, protocol {arc.protocol}, {arc.origin}",
        facts={
            "protocol": arc.protocol,
            "training pairs": len(stream),
            "tasks": tasks,
            "puzzle ids": len(arc.index),
            "leaks": f"{leaks['offending_pairs']} pairs of training tasks hold held-out answers, "
            f"{leaks['dropped_pairs']} of them were left out",
            "training data": arc.fingerprint,
        },
        held_out=tuple(map(task_name, arc.test_tasks)) if arc.protocol == "inductive" else (),
        arc=arc,
    )


def _some(test: PuzzleSet, recipe: Recipe) -> PuzzleSet:
    count = recipe.data.test_puzzles
    return test if count is None else choose_subset(test, count, recipe.data.data_seed)
