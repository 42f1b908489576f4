"""A training of four steps, small enough to be killed at every moment."""

from typing import Any

TINY_RECIPE: dict[str, Any] = {
    "task": "sudoku",
    "block_operators": ["mlp"],
    "hidden_size": 16,
    "mlp_multiple_of": 8,
    "puzzle_prefix_len": 1,
    "H_cycles": 1,
    "L_cycles": 1,
    "halt_max_steps": 2,
    "halt_bias": 0.0,
    "validation_puzzles": 2,
    "test_puzzles": 2,
    "train_steps": 4,
    "batch_size": 2,
    "warmup_steps": 0,
    "log_every": 1,
    "eval_every": 2,
    "checkpoint_every": 1,
    "report_to": ["none"],
    "compile": "no",
    "mixed_precision": "no",
    "cpu": True,
}
