"""A training step on shipped puzzles whose learning rates are 0, so that the slots alone move."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from datasets_builders.features import load_puzzles
from datasets_builders.sampling import TrainingStream
from modeling_trm import TRMConfig, TRMForGridReasoning
from modeling_trm.training.arguments import OptimisationArguments
from modeling_trm.training.bucket import Bucket
from modeling_trm.training.ema import ExponentialMovingAverage
from modeling_trm.training.optimisers import build_optimisers, core_parameters
from modeling_trm.training.rows import RowFeed
from modeling_trm.training.step import TrainingStep

B, SEED = 6, 3


def frozen_step(
    config: Mapping[str, Any] | None = None,
    slots: np.ndarray | None = None,
    rate: float = 0.0,
    **arguments: Any,
) -> TrainingStep:
    """config: overrides of the model. slots: of the B slots those of this process; all when None. rate: of learning."""
    slots = np.arange(B) if slots is None else slots
    torch.manual_seed(0)
    model = TRMForGridReasoning(
        TRMConfig(
            **{
                "vocab_size": 11, "seq_len": 81, "hidden_size": 16, "block_operators": ["mlp_t", "mlp"],
                "mlp_multiple_of": 8, "puzzle_prefix_len": 1, "H_cycles": 1, "L_cycles": 1, "halt_max_steps": 5,
                **(config or {}),
            }
        )
    )  # fmt: skip
    torch.nn.init.normal_(model.q_head.weight)  # halts now and then
    torch.nn.init.constant_(model.q_head.bias, -0.5)
    rates = {"weight_decay": 0.0, "puzzle_lr": 0.0, "puzzle_weight_decay": 0.0}
    still = OptimisationArguments(batch_size=B, learning_rate=rate, ema_decay=0.0, **rates, **arguments)
    optimisers = build_optimisers(model, still)
    stream = TrainingStream(load_puzzles("sudoku", "train").select(np.arange(50)), seed=SEED)
    feed = RowFeed(stream, slots, B, lambda step: 0.95, torch.device("cpu"))
    ema = ExponentialMovingAverage(core_parameters(model), 0.0)
    bucket = Bucket(still, model, feed, 81, SEED)
    steps = still.train_steps or 100
    return TrainingStep(still, Accelerator(cpu=True), model, model, optimisers, ema, [bucket], steps)
