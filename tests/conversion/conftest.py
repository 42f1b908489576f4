"""Checkpoints of the reference, made here: its names, its shapes, random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tests.oracles import reference

PREFIX = "_orig_mod.model.inner."
# The reference's YAML. Small where the function does not depend on it; its inner widths are multiples of 256.
ATTENTION: dict[str, Any] = {
    "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
    "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
    "halt_exploration_prob": 0.1,
    "halt_max_steps": 16,
    "H_cycles": 2,
    "L_cycles": 2,
    "H_layers": 0,
    "L_layers": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "expansion": 4,
    "puzzle_emb_ndim": 32,
    "pos_encodings": "rope",
    "forward_dtype": "bfloat16",
    "mlp_t": False,
    "puzzle_emb_len": 16,
    "no_ACT_continue": True,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
MLP_T = {**ATTENTION, "mlp_t": True, "pos_encodings": "none"}
SIZES = {"vocab_size": 11, "seq_len": 81}  # Sudoku: not in the YAML, the reference takes them from its data
VARIANTS: dict[str, dict[str, Any]] = {
    "attention": ATTENTION,
    "mlp_t": MLP_T,
    "attention, learned positions": {**ATTENTION, "pos_encodings": "learned", "num_heads": 2},
    "mlp_t, learned positions": {**MLP_T, "pos_encodings": "learned", "L_layers": 1},
    "attention, no positions": {**ATTENTION, "pos_encodings": "none", "rms_norm_eps": 1e-3},
    "attention, no prefix": {**ATTENTION, "puzzle_emb_ndim": 0, "puzzle_emb_len": 0, "rope_theta": 100.0},
    "mlp_t, no prefix": {**MLP_T, "puzzle_emb_ndim": 0, "puzzle_emb_len": 0, "L_cycles": 3},
    "narrow table": {**ATTENTION, "puzzle_emb_ndim": 20, "puzzle_emb_len": 3, "H_cycles": 3},
    "prefix as long as the table": {**ATTENTION, "puzzle_emb_len": 0, "expansion": 2.5},
}


def arch_yaml(arch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arch.items() if name not in SIZES}


@pytest.fixture
def save_reference(tmp_path: Path) -> Callable[..., Path]:
    """save_reference(arch, rows=, dtype=, state=, prefix=): a run's folder; the checkpoint's path."""

    def save(
        arch: dict[str, Any],
        rows: int = 1,
        dtype: torch.dtype = torch.float32,
        state: dict[str, Tensor] | None = None,
        prefix: str = PREFIX,
        name: str = "run/step_100",
        config: bool = True,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        state = reference.random_state_dict({**SIZES, **arch}, rows, dtype) if state is None else state
        torch.save({f"{prefix}{key}": tensor for key, tensor in state.items()}, path)
        if config:
            whole = {"arch": arch_yaml(arch), "lr": 1e-4, "data_paths": ["data/sudoku"]}
            path.with_name("all_config.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
        return path

    return save
