"""Checkpoints of nano-trm (olivkoch/nano-trm, Lightning files) in the names, fields and token ids of the reference.

Source: src/nn/models/trm.py, src/nn/modules/trm_block.py and scripts/data/ of that code. It is the reference's model
with other names, with one output of the halting head instead of two, and with other token ids for Sudoku:

| nano-trm                                | the reference                     |
|-----------------------------------------|-----------------------------------|
| input_embedding.embedding_weight        | embed_tokens.embedding_weight     |
| lenet.layers.i...                       | L_level.layers.i...               |
| z_H_init, z_L_init                      | H_init, L_init                    |
| q_head.weight [1, D], bias [1]          | [2, D], [2]; the second is unused |
| Sudoku: 1 end, 2 blank, 3.. digits      | 1 blank, 2.. digits               |
| num_layers, ffn_expansion, use_mlp_t .. | L_layers, expansion, mlp_t ..     |

The end of a grid marks grids that are smaller than their frame; where they are not, it never occurs, and is left out.

Shapes: V token ids, D hidden.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..grid_text_trm import SUDOKU_SIDES
from ..processing_trm import GridProcessor
from .checkpoint_file import Checkpoint, ConversionError
from .given import typed
from .layout import TOKENS

NAMES = {"input_embedding.": "embed_tokens.", "lenet.": "L_level.", "z_H_init": "H_init", "z_L_init": "L_init"}
FIELDS = {
    "hidden_size": "hidden_size", "num_layers": "L_layers", "num_heads": "num_heads", "H_cycles": "H_cycles",
    "L_cycles": "L_cycles", "N_supervision_val": "halt_max_steps", "ffn_expansion": "expansion",
    "puzzle_emb_dim": "puzzle_emb_ndim", "puzzle_emb_len": "puzzle_emb_len", "rope_theta": "rope_theta",
    "use_mlp_t": "mlp_t", "vocab_size": "vocab_size", "seq_len": "seq_len", "num_puzzles": "num_puzzle_identifiers",
}  # fmt: skip
EPSILON = 1e-5  # of its norms, in its code
POSITIONS = {"1d": "rope", "None": "none", "null": "none", "": "none"}
END = 1  # the token id that ends a grid
MAZE_TOKENS = 6


def is_nano_trm(checkpoint: Checkpoint) -> bool:
    return any(name.startswith("lenet.") for name in checkpoint.tensors)


def read_nano_trm(
    checkpoint: Checkpoint, options: Mapping[str, Any], task: str | None, grid_shape: tuple[int, int] | None
) -> tuple[Checkpoint, dict[str, Any], GridProcessor | None]:
    """The checkpoint as the reference would have it, the reference's fields that the file tells, and its grids.

    Args:
        options: fields given on the command line. task, grid_shape: as given there; of "grid", whose processor is
            None here, the token ids stay as they are.

    Raises:
        ConversionError: what ours does not compute, or token ids of no task, with what to do.
    """
    source = str(checkpoint.path)
    tensors = {_name(name): tensor for name, tensor in checkpoint.tensors.items()}
    for name in ("q_head.weight", "q_head.bias"):
        if name in tensors and len(tensors[name]) == 1:
            tensors[name] = torch.cat((tensors[name], torch.zeros_like(tensors[name])))
    own = _fields(checkpoint, source)
    _check_positions(checkpoint, own, options, source)
    facts = checkpoint.facts | {"code": "nano-trm: its names and token ids in those of the reference"}
    processor = None if task == "grid" else _processor(tensors, own, task, grid_shape, source)
    if processor is not None and processor.task == "sudoku":
        tensors |= {name: _without_end(tensors[name]) for name in (TOKENS, "lm_head.weight")}
        own["vocab_size"] = processor.vocab_size
        facts["left out"] = ", ".join(
            [*filter(None, [facts.get("left out")]), f"token id {END} (the end of a grid, which fills its frame here)"]
        )
    return replace(checkpoint, tensors=tensors, facts=facts), own, processor


def _name(name: str) -> str:
    start = next((start for start in NAMES if name.startswith(start)), "")
    return NAMES.get(start, "") + name.removeprefix(start)


def _fields(checkpoint: Checkpoint, source: str) -> dict[str, Any]:
    """The hyper-parameters under the reference's names; none where the file holds weights alone."""
    settings = checkpoint.settings
    fields = {ours: typed(source, ours, settings[theirs]) for theirs, ours in FIELDS.items() if theirs in settings}
    if fields.get("puzzle_emb_ndim") == 0:
        fields["puzzle_emb_len"] = 0
    if settings.get("forward_dtype") is not None:
        fields["forward_dtype"] = str(settings["forward_dtype"]).removeprefix("torch.")
    return fields | {"rms_norm_eps": EPSILON}


def _check_positions(checkpoint: Checkpoint, own: dict[str, Any], options: Mapping[str, Any], source: str) -> None:
    """Put pos_encodings into `own`. Raises ConversionError for rotations by row and column, or where it is not told."""
    if not any(".self_attn." in name for name in checkpoint.tensors):
        own["pos_encodings"] = "none"  # nothing reads them
    elif "pos_emb_type" in checkpoint.settings:
        kind = str(checkpoint.settings["pos_emb_type"])
        if kind not in POSITIONS:
            raise ConversionError(
                f"{source}: pos_emb_type={kind!r} turns by row and column, ours by position alone; allowed: '1d', None"
            )
        own["pos_encodings"] = POSITIONS[kind]
    elif "pos_encodings" not in options:
        raise ConversionError(
            f"{source}: holds no hyper_parameters that tell pos_emb_type; give the Lightning file, or "
            f"--pos-encodings rope ('1d') or none; '2d' cannot be converted"
        )


def _processor(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Any],
    task: str | None,
    grid_shape: tuple[int, int] | None,
    source: str,
) -> GridProcessor:
    """Told by the number of token ids, V = side + 3 of a Sudoku, and by the number of cells."""
    V = len(tensors[TOKENS]) if TOKENS in tensors else 0
    side, cells = V - 3, own.get("seq_len")
    told = "maze" if V == MAZE_TOKENS else "sudoku" if side in SUDOKU_SIDES and cells in (None, side * side) else None
    if told is None or task not in (None, told):
        framed = f", and {cells} cells" if cells else ""
        raise ConversionError(
            f"{source}: has {V} token ids{framed}: allowed: {MAZE_TOKENS} (maze), side + 3 (a Sudoku that fills its "
            f"frame, {', '.join(f'{side} x {side}' for side in SUDOKU_SIDES)}); for any other grid that fills its "
            f"frame --task grid with --grid-shape and --alphabet, the characters of token ids 1, 2, ..."
        )
    length = math.isqrt(cells) if cells else None
    square = (side, side) if told == "sudoku" else (length, length) if length and length**2 == cells else None
    try:
        return GridProcessor(told, grid_shape=grid_shape or square)
    except ValueError as error:
        raise ConversionError(str(error)) from error


def _without_end(rows_VD: Tensor) -> Tensor:
    return torch.cat((rows_VD[:END], rows_VD[END + 1 :]))
