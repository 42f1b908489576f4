"""Checkpoints to resume from: whole or absent, whatever moment the process dies at.

A checkpoint is written into a folder with a temporary name and renamed when everything is in it, its manifest last. It
holds tensors by name (safetensors) and JSON, nothing that would have to be unpickled: weights, optimisers and average
once, the slots of every process. Generators are not in it: whatever is random is a function of seed and step.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..utils.files import part_of, replaced, told, write_json
from ..utils.manifest import find_damage, write_manifest

logger = get_logger(__name__)
KEPT = 2
LEARNT = ("model", "ema", "optimisers")  # the parts that are the same in every process
PROGRESS = "progress.json"

State = dict[str, dict[str, Tensor]]  # {part: {name: tensor}}, see TrainingStep.state_dict


def save_checkpoint(
    accelerator: Accelerator, folder: Path, step: int, state: State, progress: Mapping[str, Any]
) -> Path:
    """Write folder/step-N with everything the run depends on; `progress` is JSON-ready.

    Raises:
        OSError: naming the folder, for example when the disk is full; what was there before is untouched.
    """
    final = folder / f"step-{step:08d}"
    is_main = accelerator.is_main_process
    size = sum(_size(state[part]) for part in LEARNT) + accelerator.num_processes * _size(state["slots"])
    with (
        told(final, size, "earlier checkpoints are intact"),
        replaced(final) if is_main else nullcontext(part_of(final)) as temporary,
    ):
        accelerator.wait_for_everyone()
        _save(state["slots"], _slots_file(temporary, accelerator.process_index))
        if is_main:
            for part in LEARNT:
                _save(state[part], temporary / f"{part}.safetensors")
            write_json(temporary / PROGRESS, {"step": step, **progress})
        accelerator.wait_for_everyone()
        if is_main:
            write_manifest(temporary)
    if is_main:
        prune(folder)
    accelerator.wait_for_everyone()
    return final


def prune(folder: Path) -> None:
    """Remove all but the newest checkpoints."""
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; one whose files are missing or damaged is passed over with a warning.

    Raises:
        ValueError: a checkpoint of an earlier version's form; or there are some, and all are damaged.
    """
    problem = None
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        if (candidate / "optimizer.bin").exists():
            raise ValueError(
                f"{candidate} was written by an earlier version, which kept optimisers by position: finish the run "
                f"with that version, or begin another from its weights with start_from and start_step"
            )
        problem = find_damage(candidate)
        if problem is None:
            return candidate
        # Not accelerate's, which is silent or fails outside of a training.
        logging.getLogger(__name__).warning(f"checkpoint {candidate} is passed over: {problem}")
    if problem is not None:
        raise ValueError(f"{folder} holds no whole checkpoint to go on from ({problem}); remove it to begin anew")
    return None


def load_progress(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> State:
    """What `save_checkpoint` was given; by another number of processes, this one's share of all slots in order."""
    index, processes = accelerator.process_index, accelerator.num_processes
    written = len(list(checkpoint.glob("slots-*.safetensors")))
    if written == processes:
        return load_learnt(checkpoint) | {"slots": load_file(_slots_file(checkpoint, index))}
    logger.warning(
        f"{checkpoint} was written by {written} processes, this run has {processes}: it goes on with the same puzzles "
        f"in the same order, within rounding and not bit for bit, for gradients are summed in another order; what is "
        f"drawn for latents (random_start, noise_std, corrupted_share) is drawn otherwise"
    )
    parts = [load_file(_slots_file(checkpoint, number)) for number in range(written)]
    slots = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return load_learnt(checkpoint) | {"slots": {name: value.chunk(processes)[index] for name, value in slots.items()}}


def load_learnt(checkpoint: Path) -> State:
    """All but the slots."""
    return {part: load_file(checkpoint / f"{part}.safetensors") for part in LEARNT}


def _slots_file(checkpoint: Path, process: int) -> Path:
    return checkpoint / f"slots-{process}.safetensors"


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.nbytes for value in tensors.values())


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, path)
