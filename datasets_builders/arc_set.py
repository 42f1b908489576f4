"""ArcSet: ARC tasks, which of their pairs are trained on and which are held out, and the rows of the puzzle table.

Sources: arXiv 2510.04871 and its public data builder (dataset/build_arc_dataset.py). No token of an augmented task is
kept: an augmentation is 11 bytes of the index, and rows are made from it on the fly (arc_sampling.py).

| split      | pairs                                                                                               |
|------------|-----------------------------------------------------------------------------------------------------|
| train      | demonstrations, and the tests of the subsets that are not the test subset, as in the reference      |
| validation | tests of some tasks, to choose checkpoints by                                                       |
| test       | tests of the test subset                                                                            |
| context    | neither trained on nor asked: demonstrations of test tasks (inductive), left out as leaks, unknown  |

Deviation: the reference chooses checkpoints by the test pairs themselves; here validation pairs are held out for it.
Why: a figure chosen on the test pairs is too good.
Link: github.com/SamsungSAILMontreal/TinyRecursiveModels, evaluators/arc.py

Shapes: N puzzles, L positions of the canvas.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from datasets_builders.features import PuzzleSet
from datasets_builders.validation import DataError
from modeling_trm.arc_task_trm import MAX_SIDE, ArcTask, Pair, task_name
from modeling_trm.grid_text_trm import option
from modeling_trm.processing_trm import GridProcessor
from modeling_trm.puzzle_index_trm import PuzzleIndex

PROTOCOLS = ("transductive", "inductive")
ON_LEAK = ("error", "drop", "report")
BLANK_ROW = 0  # of the puzzle table
ARC_SPLITS = ("train", "validation", "test", "context")


@dataclass(frozen=True)
class ArcOptions:
    """What is built.

    Args:
        subsets: those that are trained on, in the order of the puzzle ids.
        test_subset: whose test pairs are held out and asked.
        protocol: "transductive": demonstrations of the test subset are trained on, as published (it must be one of
            `subsets`); "inductive": they are not, and its tasks have no row of the puzzle table.
        num_augmentations: at most so many a task, besides the task as it is.
        keep_colours: the eight dihedral maps alone, at most 7 augmentations: for models with symbol fields, to which
            a permutation of the colours is nothing new.
        validation_tasks: tasks whose test pairs are held out to choose checkpoints by: of the subsets that are not the
            test subset, or if there are none, of the test subset, whose tests they are not then.
        max_grid_size: side of the canvas; a task with a larger grid is left out.
        max_tasks: keep at most so many tasks of a subset, those with the smallest hashes of (seed, name).
        on_leak: what to do about trained pairs that are images of held-out ones (arc_leaks.py): "error" raises
            DataError, "drop" does not train on them, "report" does and records it. ARC-AGI-1 itself has two such pairs,
            on which the published models are trained.

    Raises:
        DataError: naming the option, its value and what is allowed.
    """

    subsets: tuple[str, ...] = ("training", "evaluation", "concept")
    test_subset: str = "evaluation"
    protocol: str = "transductive"
    num_augmentations: int = 1000
    keep_colours: bool = False
    seed: int = 0
    validation_tasks: int = 16
    max_grid_size: int = MAX_SIDE
    max_tasks: int | None = None
    on_leak: str = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "subsets", tuple(self.subsets))  # JSON and YAML have lists
        if not self.subsets or len(set(self.subsets)) < len(self.subsets):
            raise DataError(f"subsets={self.subsets} must be distinct names, at least one")
        for name, value, allowed in (("protocol", self.protocol, PROTOCOLS), ("on_leak", self.on_leak, ON_LEAK)):
            if value not in allowed:
                raise DataError(f"{name}={value!r} is unknown; allowed: {', '.join(allowed)}")
        for name, number, least in (
            ("num_augmentations", self.num_augmentations, 0),
            ("seed", self.seed, 0),
            ("validation_tasks", self.validation_tasks, 0),
            ("max_tasks", 1 if self.max_tasks is None else self.max_tasks, 1),
        ):
            if number < least:
                raise DataError(f"{name}={number} must be at least {least}")
        if not 1 <= self.max_grid_size <= MAX_SIDE:
            raise DataError(f"max_grid_size={self.max_grid_size} must be between 1 and {MAX_SIDE}")
        if self.protocol == "transductive" and self.test_subset not in self.subsets:
            raise DataError(
                f"protocol='transductive' trains on demonstrations of the test subset, but test_subset="
                f"{self.test_subset!r} is not in subsets={self.subsets}; add it, or choose "
                f"{option('protocol', 'inductive')}"
            )
        if self.protocol == "inductive" and set(self.subsets) == {self.test_subset}:
            raise DataError(
                f"protocol='inductive' trains on nothing of test_subset={self.test_subset!r}; name more subsets"
            )

    @property
    def all_subsets(self) -> tuple[str, ...]:
        """The subsets that are needed: those trained on, then the test subset if it is none of them."""
        return self.subsets + (() if self.test_subset in self.subsets else (self.test_subset,))


class PairRef(NamedTuple):
    """Which pair: number of the task in ArcSet.tasks, "train" (a demonstration) or "test", number from 0."""

    task: int
    role: str
    number: int


@dataclass(frozen=True, eq=False)
class ArcSet:
    """Tasks, their pairs by split, and what each row of the puzzle table stands for.

    Attributes:
        tasks: subset after subset, in a subset by id.
        splits: ARC_SPLITS -> pairs, in the order of the tasks, demonstrations before tests.
        index: the rows of a task are neighbours, the first of them the identity; tasks not trained on have none.
        report: JSON-ready: "too_large" task ids by subset, "leaks", "fewest_augmentations" of a task.
    """

    tasks: tuple[ArcTask, ...]
    splits: Mapping[str, tuple[PairRef, ...]]
    index: PuzzleIndex
    options: ArcOptions
    report: Mapping[str, Any]

    @cached_property
    def processor(self) -> GridProcessor:
        return GridProcessor("arc", grid_shape=(self.options.max_grid_size,) * 2)

    @property
    def protocol(self) -> str:
        return self.options.protocol

    @property
    def origin(self) -> str:
        """One line for people and cards."""
        options, side = self.options, self.options.max_grid_size
        left_out = sum(len(ids) for ids in self.report["too_large"].values())
        larger = f", {left_out} larger ones left out" if left_out else ""
        drawn = "dihedral views alone" if options.keep_colours else f"seed {options.seed}"
        return (
            f"ARC {', '.join(options.subsets)}: {len(self.tasks)} tasks on a {side} x {side} canvas{larger}; "
            f"{options.protocol}; tests of {options.test_subset} held out; at most {options.num_augmentations} "
            f"augmentations a task, {drawn}"
        )

    @property
    def examples(self) -> tuple[PairRef, ...]:
        """The pairs that are trained on."""
        return self.splits["train"]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each task in the index: "subset/id"."""
        return tuple(task_name(task) for task in self.tasks)

    @property
    def test_tasks(self) -> list[ArcTask]:
        """The tasks that are asked, with all their pairs; outputs of their tests may be unknown."""
        return [self.tasks[number] for number in dict.fromkeys(ref.task for ref in self.splits["test"])]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over protocol, canvas, puzzle ids and every pair with its split, in order."""
        digest = hashlib.sha256(f"{self.protocol} {self.options.max_grid_size} {self.index.fingerprint}\n".encode())
        for split in ARC_SPLITS:
            for ref in self.splits[split]:
                pair = self.pair(ref)
                digest.update(f"{split} {self.names[ref.task]} {ref.role} {ref.number}\n".encode())
                for grid in (pair.input, pair.output):
                    digest.update(b"unknown" if grid is None else bytes(grid.shape) + grid.tobytes())
        return digest.hexdigest()

    def pair(self, ref: PairRef) -> Pair:
        task = self.tasks[ref.task]
        return (task.train if ref.role == "train" else task.test)[ref.number]

    def identity_row(self, name: str) -> int:
        """The row of the puzzle table of a task as it is; the blank row for a task without rows."""
        return int(self.index.rows_of(name)[0]) if name in self.index else BLANK_ROW

    def training(self) -> PuzzleSet:
        """The pairs that are trained on, not augmented: what the model ought to know by heart."""
        return self._puzzles("train")

    def validation(self) -> PuzzleSet:
        """The held-out tests of the validation tasks, not augmented."""
        return self._puzzles("validation")

    def test(self) -> PuzzleSet:
        """The tests of the test tasks, not augmented; those whose outputs are unknown are left out."""
        return self._puzzles("test")

    def _puzzles(self, split: str) -> PuzzleSet:
        asked = [(ref, self.pair(ref)) for ref in self.splits[split]]
        known = [(ref, pair.input, pair.output) for ref, pair in asked if pair.output is not None]
        inputs, labels = (
            np.array([self.processor.encode(grid.tolist()).numpy() for grid in grids], dtype=np.uint8)
            for grids in ([question for _, question, _ in known], [answer for _, _, answer in known])
        )
        length = self.processor.seq_len
        return PuzzleSet(
            "arc",
            inputs.reshape(-1, length),
            labels.reshape(-1, length),
            np.array([self.tasks[ref.task].subset for ref, _, _ in known], dtype=str),
            np.zeros(len(known), dtype=np.int32),
            self.processor,
            self.origin,
            puzzle_ids=np.array([self.identity_row(self.names[ref.task]) for ref, _, _ in known], dtype=np.int64),
        )
