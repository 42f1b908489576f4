"""What a benchmark run was asked for, and the models and inputs that follow from it.

Shapes: B batch, L cells; a length is that of the sequence the stack sees, 16 positions of prefix and the cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..configuration_trm import PRESETS, TRMConfig
from ..evaluation.puzzles import Puzzles
from ..modeling_trm import TRMForGridReasoning

PREFIX = 16
VOCABULARY = 12  # that of ARC; its size does not show
SUDOKU_CELLS = 81


@dataclass(frozen=True)
class Settings:
    """The options of `trm benchmark`; `puzzles` are those of the checkpoint's task.

    max_tflop: a call of more floating-point operations than so many 10^12 is listed as skipped; None: no bound.
    at_a_time: so many of the puzzles are a batch. halt: the halt probability at which `solve` stops a puzzle.
    ssd_backends: of the Mamba-2 layers in a training step. seconds: no group of lines begins later; may be infinite.
    mamba_ssm: a checkout, for its Triton kernels; None: what is installed.
    """

    device: torch.device
    presets: Sequence[str]
    lengths: Sequence[int]
    batch_sizes: Sequence[int]
    dtypes: Sequence[str]
    engines: Sequence[str]
    rounds: int
    max_tflop: float | None
    rows: Sequence[int]
    table_batch: int
    reference: Path | None
    checkpoint: str | None
    puzzles: Puzzles | None
    at_a_time: int
    halt: float
    ssd_backends: Sequence[str]
    seconds: float
    mamba_ssm: Path | None

    def excess(self, flops: int) -> str | None:
        """Why a call of so many operations is not made; None if it is."""
        if self.max_tflop is None or flops <= self.max_tflop * 1e12:
            return None
        return f"a call takes {flops / 1e12:.2g} TFLOP, more than --max-tflop {self.max_tflop:g}"

    def precision(self, dtype: str) -> Any:
        """The context a forward pass runs in; bfloat16 is autocast's."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=dtype == "bfloat16")


def preset_config(preset: str, length: int, **overrides: Any) -> TRMConfig:
    """The full-size preset, or the stack of operators that a name as attention+mlp lists.

    L_cycles are as published: 6 for Sudoku, 4 for the larger grids of Maze and ARC.
    """
    cells = length - PREFIX
    sizes = {"vocab_size": VOCABULARY, "seq_len": cells, "L_cycles": 6 if cells <= SUDOKU_CELLS else 4}
    if preset in PRESETS:
        return TRMConfig.from_preset(preset, **sizes | overrides)
    return TRMConfig(block_operators=preset.split("+"), **sizes | overrides)


def random_model(config: TRMConfig, device: torch.device) -> TRMForGridReasoning:
    """With the weights of seed 0. Its halting head says no to every puzzle."""
    torch.manual_seed(0)
    return TRMForGridReasoning(config).eval().to(device)


def random_ids(config: TRMConfig, batch_size: int, device: torch.device) -> Tensor:
    """[B, L], the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, config.vocab_size, (batch_size, config.seq_len), generator=generator).to(device)
