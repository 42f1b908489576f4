"""Whether held-out ARC answers are trained on: canonical pairs compared within and across ARC-1, ARC-2, ConceptARC.

Why: training multiplies every task by the eight dihedral maps and all permutations of the colours 1..9, so that a pair
leaks as soon as any such image of it is trained on. ARC-2's sets take up ARC-1 tasks (arXiv 2505.11831, section 2),
often rearranged, under other ids. Two pairs are the same here if one is such an image of the other.

Kinds of a finding:
  answer         a held-out test pair is trained on, under whatever task
  input          a held-out test input is trained on with another output
  demonstration  a demonstration of a held-out task is trained on under another task (or the same id of another subset)
What a held-out task demonstrates itself is trained on by design in the transductive protocol, and no leak. Where one of
those demonstrations is an image of the task's own test pair or input, the report lists it apart, in `by_design`.
Small or empty grids may agree by chance; they are findings all the same.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from modeling_trm.arc_task_trm import NUM_COLOURS, ArcTask, Pair
from modeling_trm.augmentation_trm import NUM_DIHEDRALS, Dihedral

LEAK_KINDS = ("answer", "input", "demonstration")
MEANINGS = {
    "answer": "test pairs are trained on",
    "input": "test inputs are trained on with another output",
    "demonstration": "demonstrations are trained on under another task",
}
KEY_BYTES = 16


class TrainedPair(NamedTuple):
    """A pair that is trained on: `task.test[number]` if `is_test`, else `task.train[number]`; from 0."""

    task: ArcTask
    number: int
    is_test: bool

    @property
    def pair(self) -> Pair:
        return (self.task.test if self.is_test else self.task.train)[self.number]

    @property
    def name(self) -> str:
        return f"{self.task.subset}/{self.task.id} {'test' if self.is_test else 'train'} {self.number + 1}"


@dataclass(frozen=True)
class Leak:
    """A held-out pair and a trained one that is its image. Pair numbers count from 1."""

    kind: str
    subset: str
    task: str
    pair: int  # of the tests; of the demonstrations for kind "demonstration"
    trained_subset: str
    trained_task: str
    trained_pair: int
    trained_is_test: bool

    def __str__(self) -> str:
        part = "train" if self.kind == "demonstration" else "test"
        trained = "test" if self.trained_is_test else "train"
        return (
            f"{self.subset}/{self.task} {part} {self.pair} = "
            f"{self.trained_subset}/{self.trained_task} {trained} {self.trained_pair}"
        )


@dataclass(frozen=True)
class LeakReport:
    """All findings, and how much was compared."""

    findings: tuple[Leak, ...]
    by_design: tuple[Leak, ...]
    held_out_tasks: int
    held_out_tests: int
    trained_pairs: int

    def of_kind(self, kind: str) -> list[Leak]:
        return [leak for leak in self.findings if leak.kind == kind]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """{kind: {"tasks": held-out tasks concerned, "pairs": their pairs concerned, "findings": number}}."""
        return {kind: _count(self.of_kind(kind)) for kind in LEAK_KINDS}

    def summary(self) -> str:
        """One line a kind, and one for what is there by design if there is any."""
        lines = [f"{kind}: {self._line(self.of_kind(kind), MEANINGS[kind])}" for kind in LEAK_KINDS]
        if self.by_design:
            lines.append(
                f"by design: {self._line(self.by_design, 'tests have a like demonstration of their own task')}"
            )
        return "\n".join(lines)

    def _line(self, leaks: Sequence[Leak], meaning: str) -> str:
        count = _count(leaks)
        example = f"; e.g. {leaks[0]}" if leaks else ""
        return f"{count['pairs']} {meaning}, in {count['tasks']} of {self.held_out_tasks} held-out tasks{example}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the fields, and `counts`."""
        return {"counts": self.counts, **asdict(self)}


def _count(leaks: Sequence[Leak]) -> dict[str, int]:
    pairs = {(leak.subset, leak.task, leak.pair) for leak in leaks}
    return {"tasks": len({pair[:2] for pair in pairs}), "pairs": len(pairs), "findings": len(leaks)}


def canonical_key(item: Pair | np.ndarray) -> bytes:
    """16 bytes, equal for all images of a pair (or of a grid) under dihedral maps and permutations of colours 1..9.

    Raises ValueError for a pair without output.
    """
    if isinstance(item, np.ndarray):
        return _hash_least([item], _mapped_cells([item]))
    if item.output is None:
        raise ValueError("the pair has no output; take the key of its input")
    return _pair_keys(item)[1]


def _pair_keys(pair: Pair) -> tuple[bytes, bytes]:
    """The keys of the pair's input and of the pair (without output, the same one)."""
    grids = [grid for grid in (pair.input, pair.output) if grid is not None]
    cells = _mapped_cells(grids)
    # The colours are numbered from the input on, so that its form is the beginning of the pair's.
    return _hash_least(grids[:1], cells[:, : pair.input.size]), _hash_least(grids, cells)


def _mapped_cells(grids: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 [8, cells]: the cells of all grids after each dihedral map, the colours numbered 1, 2, ... as they come."""
    maps = [Dihedral.from_number(number) for number in range(NUM_DIHEDRALS)]
    cells = np.stack([np.concatenate([dihedral.apply(grid).ravel() for grid in grids]) for dihedral in maps])
    rows, count = np.arange(NUM_DIHEDRALS)[:, None], cells.shape[1]
    first = np.full((NUM_DIHEDRALS, NUM_COLOURS), count)  # where each colour comes first
    # Flat, because minimum.at is many times faster on one axis.
    np.minimum.at(first.reshape(-1), (rows * NUM_COLOURS + cells).ravel(), np.tile(np.arange(count), NUM_DIHEDRALS))
    first[:, 0] = -1  # the background stays 0
    ranks = np.empty((NUM_DIHEDRALS, NUM_COLOURS), dtype=np.uint8)
    np.put_along_axis(ranks, np.argsort(first, axis=1, kind="stable"), np.arange(NUM_COLOURS, dtype=np.uint8)[None], 1)
    return ranks[rows, cells]


def _hash_least(grids: Sequence[np.ndarray], cells: np.ndarray) -> bytes:
    """The hash of the least of the eight forms; a form is the shapes of the mapped grids and their cells."""
    forms = []
    for number, mapped in enumerate(cells):
        shapes = [grid.shape[::-1] if Dihedral.from_number(number).transpose else grid.shape for grid in grids]
        forms.append(bytes([len(grids), *(side for shape in shapes for side in shape)]) + mapped.tobytes())
    return hashlib.blake2b(min(forms), digest_size=KEY_BYTES).digest()


def find_leaks(trained: Iterable[TrainedPair | tuple[ArcTask, int, bool]], held_out: Sequence[ArcTask]) -> LeakReport:
    """What of the held-out tasks' tests is trained on; see the module for the kinds.

    Args:
        trained: (task, pair number from 0, whether it is a test pair) of all that is trained on, the held-out tasks'
            own demonstrations included. A pair without output is compared by its input.
        held_out: the tasks whose tests are scored; tests without a known output are compared by their input.
    """
    known = _KnownPairs(trained)
    findings: list[Leak] = []
    by_design: list[Leak] = []
    for task in held_out:
        for number, pair in enumerate(task.test, start=1):
            for kind, entries in (("answer", known.same(pair)), ("input", known.same_input_only(pair))):
                for entry in entries:
                    (by_design if _is_own(entry, task) else findings).append(_leak(kind, task, number, entry))
        for number, pair in enumerate(task.train, start=1):
            others = (entry for entry in known.same(pair) if not _is_own(entry, task))
            findings += [_leak("demonstration", task, number, entry) for entry in others]
    num_tests = sum(len(task.test) for task in held_out)
    return LeakReport(tuple(findings), tuple(by_design), len(held_out), num_tests, known.count)


class _KnownPairs:
    """The trained pairs by their canonical keys."""

    def __init__(self, trained: Iterable[TrainedPair | tuple[ArcTask, int, bool]]):
        self.by_pair: dict[bytes, list[TrainedPair]] = defaultdict(list)
        self.by_input: dict[bytes, list[TrainedPair]] = defaultdict(list)
        self.keys: dict[Pair, tuple[bytes, bytes]] = {}
        self.count = 0
        for entry in map(TrainedPair._make, trained):
            input_key, pair_key = self._keys(entry.pair)
            self.by_input[input_key].append(entry)
            self.by_pair[pair_key].append(entry)
            self.count += 1

    def _keys(self, pair: Pair) -> tuple[bytes, bytes]:
        # Once a pair: the demonstrations of held-out tasks are asked for as they are trained on.
        if pair not in self.keys:
            self.keys[pair] = _pair_keys(pair)
        return self.keys[pair]

    def same(self, pair: Pair) -> list[TrainedPair]:
        return [] if pair.output is None else self.by_pair.get(self._keys(pair)[1], [])

    def same_input_only(self, pair: Pair) -> list[TrainedPair]:
        same = self.same(pair)
        return [entry for entry in self.by_input.get(self._keys(pair)[0], []) if entry not in same]


def _is_own(entry: TrainedPair, task: ArcTask) -> bool:
    """Whether a trained pair is a demonstration of the task itself."""
    return not entry.is_test and (entry.task.subset, entry.task.id) == (task.subset, task.id)


def _leak(kind: str, task: ArcTask, number: int, entry: TrainedPair) -> Leak:
    trained = entry.task
    return Leak(kind, task.subset, task.id, number, trained.subset, trained.id, entry.number + 1, entry.is_test)
