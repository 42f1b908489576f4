"""Made-up ARC tasks in three subsets, and the set that is built of them."""

from collections.abc import Callable

import numpy as np
import pytest

from datasets_builders.arc_build import build_arc
from datasets_builders.arc_set import ArcOptions, ArcSet
from datasets_builders.arc_tasks import ArcTask, Pair

SIDE = 12


def random_task(name: str, subset: str, seed: int) -> ArcTask:
    """2..5 demonstrations and 1..3 tests of all sizes up to 8..SIDE, of two to ten colours."""
    generator = np.random.default_rng(seed)
    largest = generator.integers(8, SIDE + 1)

    def grid() -> np.ndarray:
        return generator.integers(0, generator.integers(2, 11), generator.integers(1, largest + 1, 2), dtype=np.uint8)

    def pairs(fewest: int, most: int) -> tuple[Pair, ...]:
        return tuple(Pair(grid(), grid()) for _ in range(generator.integers(fewest, most + 1)))

    return ArcTask(name, subset, pairs(2, 5), pairs(1, 3))


@pytest.fixture(scope="session")
def arc_tasks() -> dict[str, list[ArcTask]]:
    """Nine tasks in each of "training", "evaluation" and "concept"; ids of the first two recur, as ARC-1's in ARC-2."""
    subsets = {"training": "t", "evaluation": "t", "concept": "c"}
    return {
        subset: [random_task(f"{letter}{i:03}", subset, 100 * place + i) for i in range(9)]
        for place, (subset, letter) in enumerate(subsets.items())
    }


@pytest.fixture(scope="session")
def build_small(arc_tasks: dict[str, list[ArcTask]]) -> Callable[..., ArcSet]:
    """build_small(tasks=None, num_workers=1, **options): an ArcSet of the made-up tasks."""

    def run(tasks: dict[str, list[ArcTask]] | None = None, num_workers: int = 1, **options: object) -> ArcSet:
        small = {"num_augmentations": 15, "validation_tasks": 3, "max_grid_size": SIDE}
        return build_arc(
            arc_tasks if tasks is None else tasks, ArcOptions(**{**small, **options}), num_workers=num_workers
        )

    return run
