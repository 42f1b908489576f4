"""A checkpoint folder of ours in the layout of the public TinyRecursiveModels code, for its own load_checkpoint.

Source: pretrain.py (load_checkpoint) and config/arch/trm.yaml of the public code of arXiv 2510.04871.

Shapes: N rows of the table of E numbers each, D hidden.
"""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ..configuration_trm import TRMConfig
from ..utils.files import write_bytes, write_text
from ..utils.loading import load_model
from ..utils.reading import read_json
from .checkpoint_file import ConversionError
from .given import CONFIG_FILE
from .identifiers import identifiers
from .layout import TABLE, Layout

PREFIX = "_orig_mod.model.inner."  # of a compiled model in its loss head: the name that load_checkpoint looks for
IDENTIFIERS_FILE = "identifiers.json"
# Field -> the only value that the reference has.
FIXED = {
    "num_latents": 2, "mlp_gate": "silu", "mlp_gate_bias": None, "mlp_multiple_of": 256, "blank_token_id": None,
    "answer_feedback": False, "num_step_embeddings": 0, "symbol_fields": False,
    "puzzle_conditioning": "prefix",
}  # fmt: skip


def export_reference(folder: str, output: str | Path) -> list[Path]:
    """Write the state dict, all_config.yaml with its arch section, and identifiers.json where rows have names.

    All three or none; a file that is there already is not replaced. The rows of a converted table get back their
    width, and tensors that the reference kept in a narrower type theirs, where that changes no value.

    Raises:
        ConversionError: a configuration that the reference cannot express, naming the field; or a file in the way.
        CheckpointError: a folder that does not load.
    """
    output = Path(output)
    others = [output.with_name(CONFIG_FILE), output.with_name(IDENTIFIERS_FILE)]
    for path in (output, *others):
        if path.exists():
            raise ConversionError(f"--output {output}: {path} exists already; give a name in a folder without it")
    model = load_model(folder)
    layout = _layout(model.config)
    record = _record(Path(folder))
    state, own = model.state_dict(), layout.our_names()
    tensors = {name: state[ours] for name, ours in own.items()}
    if TABLE in tensors:
        tensors[TABLE] = _cut(tensors[TABLE], record.get("puzzle_emb_ndim"))
    for name, dtype in record.get("dtypes", {}).items():
        tensors[name] = _narrowed(tensors[name], getattr(torch, dtype)) if name in tensors else tensors[name]
    width = tensors[TABLE].shape[1] if TABLE in tensors else 0
    forward = record.get("forward_dtype") or _forward_dtype(tensors["H_init"])
    arch = _arch(model.config, layout, width, forward)
    names = None if model.puzzle_index is None else identifiers(model.puzzle_index)
    written = _write(output, {f"{PREFIX}{name}": tensor.detach().contiguous() for name, tensor in tensors.items()})
    try:
        written.append(write_text(others[0], yaml.safe_dump({"arch": arch}, sort_keys=False)))
        if names is not None:
            written.append(write_text(others[1], json.dumps(names)))
    except BaseException:
        for path in (output, *others):
            path.unlink(missing_ok=True)
        raise
    return written


def _layout(config: TRMConfig) -> Layout:
    """The reference's names and shapes for our configuration. Raises ConversionError naming a field it cannot have."""
    fields = config.to_dict()
    for name, only in FIXED.items():
        if fields[name] != only:
            raise ConversionError(f"{name}={fields[name]!r}: the reference cannot express this; allowed: {only!r}")
    if config.position_embedding in ("rope2d", "sincos2d"):
        raise ConversionError(
            f"position_embedding={config.position_embedding!r}: the reference cannot express this; allowed: 'rope', "
            f"'learned', 'none'"
        )
    operators = config.block_operators
    mixer = operators[0]
    if mixer not in ("attention", "mlp_t") or operators != [mixer, "mlp"] * (len(operators) // 2):
        raise ConversionError(
            f"block_operators={operators}: the reference cannot express this; allowed: attention, mlp or mlp_t, mlp, "
            f"repeated"
        )
    if mixer == "mlp_t" and config.mlp_t_norm != "positions":
        raise ConversionError(
            f"mlp_t_norm={config.mlp_t_norm!r}: the reference cannot express this; allowed: positions"
        )
    S, learned = config.num_positions, config.position_embedding == "learned"
    return Layout(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        layers=len(operators) // 2,
        mixer=mixer,
        inner=config.inner_width(config.hidden_size),
        positions=S if learned or mixer == "mlp_t" else None,
        inner_t=config.inner_width(S) if mixer == "mlp_t" else None,
        learned_positions=learned,
        table=(config.num_puzzles, config.hidden_size) if config.puzzle_prefix_len else None,
    )


def _arch(config: TRMConfig, layout: Layout, table_width: int, forward_dtype: str) -> dict[str, Any]:
    """The arch section as the reference's training dumps it."""
    return {
        "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
        "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
        "halt_exploration_prob": 0.1,
        "halt_max_steps": config.halt_max_steps,
        "H_cycles": config.H_cycles,
        "L_cycles": config.L_cycles,
        "H_layers": 0,
        "L_layers": layout.layers,
        "hidden_size": config.hidden_size,
        "num_heads": config.num_attention_heads,
        "expansion": config.mlp_expansion,
        "puzzle_emb_ndim": table_width,
        "pos_encodings": config.position_embedding,
        "forward_dtype": forward_dtype,
        "mlp_t": layout.mixer == "mlp_t",
        "puzzle_emb_len": config.puzzle_prefix_len,
        "no_ACT_continue": True,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": float(config.rope_theta),
    }


def _record(folder: Path) -> dict[str, Any]:
    """What the conversion wrote down about the file that the folder came from; empty for any other folder."""
    try:
        metrics = read_json(folder / "metrics.json")
        return metrics["conversion"]["reference"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _cut(rows_ND: Tensor, width: int | None) -> Tensor:
    """[N, E], the first E numbers of each row, where nothing but zeros follows them."""
    return rows_ND if width is None or rows_ND[:, width:].any() else rows_ND[:, :width]


def _narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    narrow = tensor.to(dtype)
    return narrow if torch.equal(narrow.to(tensor.dtype), tensor) else tensor


def _forward_dtype(initial_state: Tensor) -> str:
    """The reference keeps the initial latents in the type that it computes in; its default is bfloat16."""
    exact = _narrowed(initial_state, torch.bfloat16).dtype == torch.bfloat16
    return "bfloat16" if exact else "float32"


def _write(output: Path, tensors: dict[str, Tensor]) -> list[Path]:
    """torch.save, whole or not at all. By way of the memory: on a full disk it gives an error without a reason."""
    content = BytesIO()
    torch.save(tensors, content)
    return [write_bytes(output, content.getbuffer())]
