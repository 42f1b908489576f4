"""Several trajectories after every supervision step, so that a choice among them can be made at any depth.

One run of the deepest setting serves all shallower ones: without halting, the first s steps are those of a run of s.

Shapes: B puzzles, K trajectories of each, N = B * K of them, trajectory k of puzzle b at b * K + k; L cells.
"""

import torch
from torch import Tensor

from ..modeling_trm import TRMForGridReasoning
from ..reasoning_config_trm import ReasoningConfig
from ..trajectories_trm import Trajectories


def trajectories_by_step(
    model: TRMForGridReasoning,
    input_ids_NL: Tensor,
    puzzle_ids_N: Tensor | None,
    K: int,
    reasoning_config: ReasoningConfig,
    generator: torch.Generator | None = None,
) -> list[Trajectories]:
    """How the trajectories of each puzzle stand after 1, 2, ... max_steps steps: fields [B, K, L] and [B, K].

    Args:
        input_ids_NL: what each trajectory starts from: its puzzle, or a view of it.
        reasoning_config: of a single trajectory without halting. generator: of the noise.
    """
    trace = model.solve(input_ids_NL, puzzle_ids_N, reasoning_config, generator=generator, return_trace=True).trace
    assert trace is not None
    stand: list[Trajectories] = []
    for step, taken in enumerate(trace, start=1):
        fields = (taken.answers, taken.halt_logits, taken.residual, torch.full_like(taken.rows, step))
        stand.append(Trajectories(*(values.unflatten(0, (-1, K)) for values in fields)))
    return stand
