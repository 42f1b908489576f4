"""Vote records for the tests: from literal votes, or random ones with ties, invalid grids and hopeless inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modeling_trm.voting.records import TestInput, VoteRecords

Votes = Sequence[tuple[str, float]]
MANIFEST = {"task": "arc", "protocol": "transductive", "model": "tiny", "weights_sha256": "0" * 64}


def records_of(inputs: Sequence[tuple[str, int, str | None, Votes]], **manifest: Any) -> VoteRecords:
    """Records of (task id, pair, reference, votes of (grid text or "", halt probability)) for each test input."""
    grids: dict[str, int] = {}
    rows = []
    for number, (_, _, _, votes) in enumerate(inputs):
        for view, (grid, halt_probability) in enumerate(votes):
            rows.append((number, view, grids.setdefault(grid, len(grids)) if grid else -1, halt_probability))
    columns = list(zip(*rows)) if rows else [(), (), (), ()]
    return VoteRecords(
        manifest=MANIFEST | manifest,
        inputs=tuple(TestInput(task, pair, f"0{pair}", reference) for task, pair, reference, _ in inputs),
        input_of_vote=np.array(columns[0], dtype=np.int32),
        view_of_vote=np.array(columns[1], dtype=np.int32),
        grid_of_vote=np.array(columns[2], dtype=np.int32),
        halt_probability=np.array(columns[3], dtype=np.float64),
        grids=tuple(grids),
    )


def random_inputs(seed: int, tasks: int = 12, skill: float = 0.4) -> list[tuple[str, int, str, Votes]]:
    """Inputs of 1 to 3 tests a task, whose number and answers do not depend on the skill; 0 to 30 votes each."""
    layout, votes = np.random.default_rng(seed), np.random.default_rng([seed, int(1000 * skill)])
    inputs = []
    for task in range(tasks):
        for pair in range(layout.integers(1, 4)):
            answer = "/".join("".join(map(str, layout.integers(0, 10, 3))) for _ in range(2))
            share = skill * votes.random() * 2
            wrong = ["", "1", "2", "30", "1/2", "12/34"]
            cast = [
                (answer if votes.random() < share else wrong[votes.integers(len(wrong))], votes.integers(0, 9) / 8)
                for _ in range(votes.integers(0, 31))
            ]
            inputs.append((f"evaluation/{task:08x}", pair, answer, cast))
    return inputs
