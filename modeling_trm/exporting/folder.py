"""The folder of an exported checkpoint: all that a program needs that knows numpy and onnxruntime (or torch) alone.

step.onnx (step.onnx.weights beside it when a single file would exceed 2 GB) or step.pt2
                          input_ids, puzzle_ids, z_H, z_L -> logits, halt_logits, next_z_H, next_z_L
initial_state.npz         z_H, z_L [D], to be repeated over batch and positions (and fields)
export.json               alphabet, sizes, steps and halting, the largest difference to PyTorch, versions
preprocessor_config.json  as in the checkpoint, with the code of the processor
puzzle_index.npz          tasks, task_of_row [N], augmentation_of_row [N, 11]: what the puzzle ids are (N > 1)
"""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..utils.files import write_json
from ..utils.machine import library_versions
from .checking import BATCH_SIZES, STEPS, ExportError, check, onnx_runner, program_runner
from .programs import export_step, latents, save_program

FILES = {"onnx": "step.onnx", "torch": "step.pt2"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write_export(model: TRMForGridReasoning, processor: GridProcessor, folder: Path, kind: str) -> dict[str, Any]:
    """Fill an empty folder, checked against PyTorch; returns what export.json says.

    Args:
        model: in float32. kind: "onnx" or "torch".

    Raises:
        ExportError: the weights are not float32, or the exported step does not equal the model's.
        ImportError: naming the missing package of the extra `onnx`.
    """
    if model.dtype != torch.float32:
        raise ExportError(f"the weights are {model.dtype}; an export is made in torch.float32: model.float() first")
    path = folder / FILES[kind]
    if kind == "onnx":
        from . import onnx_step  # its packages are optional

        onnx_step.save(onnx_step.step_graph(model), path)
    else:
        save_program(export_step(model), path)
    found = check(model, onnx_runner(path) if kind == "onnx" else program_runner(path))
    _write_state(model, folder)
    processor.save_pretrained(folder)
    facts = _facts(model, processor, kind, found)
    write_json(folder / "export.json", facts)
    return facts


def _write_state(model: TRMForGridReasoning, folder: Path) -> None:
    z_H, *z_L = (latent.flatten(0, -2)[0].cpu().numpy() for latent in latents(model.initial_state(1)))
    if z_L:
        np.savez(folder / "initial_state.npz", z_H=z_H, z_L=z_L[0])
    else:
        np.savez(folder / "initial_state.npz", z_H=z_H)
    index = model.puzzle_index
    if index is not None and len(index) > 1:
        np.savez_compressed(
            folder / "puzzle_index.npz",
            tasks=np.array(index.tasks),
            task_of_row=index.task_of_row,
            augmentation_of_row=index.augmentation_of_row,
        )


def _facts(model: TRMForGridReasoning, processor: GridProcessor, kind: str, found: dict[str, float]) -> dict[str, Any]:
    config, reasoning = model.config, model.reasoning_config
    packages = ONNX_PACKAGES if kind == "onnx" else ()
    return {
        "format": kind,
        "file": FILES[kind],
        "task": processor.task,
        "grid_shape": list(processor.grid_shape),
        "characters": None if processor.task == "arc" else processor.characters,  # of the token ids 1, 2, ...
        "blank_token_id": config.blank_token_id,  # None: every cell is answered; else only those with this id
        "max_steps": reasoning.max_steps or config.halt_max_steps,  # as the checkpoint reasons, with the next line
        "halt": 0.5 if reasoning.halt is True else reasoning.halt or None,  # probability above which it stops, or never
        "block_operators": list(config.block_operators),
        "vocab_size": config.vocab_size,
        "seq_len": config.seq_len,
        "latent_shape": list(config.latent_shape),
        "hidden_size": config.hidden_size,
        "num_latents": config.num_latents,
        "num_puzzles": config.num_puzzles,
        "precision": "float32",
        "difference_to_pytorch": {
            **{name: float(f"{value:.2e}") for name, value in found.items()},
            "batch_sizes": list(BATCH_SIZES),
            "steps": STEPS,
        },
        "versions": library_versions() | {package: metadata.version(package) for package in packages},
    }
