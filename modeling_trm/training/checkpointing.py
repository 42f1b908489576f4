"""Checkpoints to resume from: whole or absent, whatever moment the process dies at.

A checkpoint is written into a folder with a temporary name and renamed when everything is in it, its manifest (the size
of every file) last. accelerate writes model, optimisers and generators; slots and averages go beside them.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.logging import get_logger
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .ema import ExponentialMovingAverage
from .slots import Slots

logger = get_logger(__name__)
KEPT = 2
MANIFEST = "manifest.json"


def save_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    step: int,
    slots: Slots,
    ema: ExponentialMovingAverage,
    progress: dict[str, Any],
) -> Path:
    """Write folder/step-N with everything the run depends on; `progress` is JSON-ready.

    Raises:
        OSError: naming the folder, for example when the disk is full; what was there before is untouched.
    """
    final, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}.part"
    try:
        if accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(temporary))
        slots_file = temporary / f"slots-{accelerator.process_index}.safetensors"
        save_file({name: value.contiguous().cpu() for name, value in slots.state_dict().items()}, slots_file)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            save_file(
                {name: value.contiguous().cpu() for name, value in ema.state_dict().items()},
                temporary / "ema.safetensors",
            )
            (temporary / "progress.json").write_text(json.dumps({"step": step, **progress}, indent=2), encoding="utf-8")
            sizes = {path.name: path.stat().st_size for path in temporary.iterdir()}
            (temporary / MANIFEST).write_text(json.dumps(sizes, indent=2), encoding="utf-8")
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            for old in sorted(folder.glob("step-*"))[:-KEPT]:
                shutil.rmtree(old)
    except (OSError, RuntimeError, SafetensorError) as error:  # PyTorch reports a full disk as a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            f"the checkpoint {final} could not be written: {error}; earlier checkpoints are intact"
        ) from error
    accelerator.wait_for_everyone()
    return final


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; one whose files are missing or of another size is passed over with a warning."""
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        problem = _problem(candidate)
        if problem is None:
            return candidate
        logger.warning(f"checkpoint {candidate} is passed over: {problem}")
    return None


def load_progress(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, slots: Slots, ema: ExponentialMovingAverage) -> None:
    """Restore everything that `save_checkpoint` wrote. Raises ValueError if it was written by another process count."""
    slots_file = checkpoint / f"slots-{accelerator.process_index}.safetensors"
    written = len(list(checkpoint.glob("slots-*.safetensors")))
    if written != accelerator.num_processes:
        raise ValueError(
            f"{checkpoint} was written by {written} processes, this run has {accelerator.num_processes}: "
            f"start it with --num_processes {written}"
        )
    accelerator.load_state(str(checkpoint))
    slots.load_state_dict(load_file(slots_file))
    ema.load_state_dict(load_file(checkpoint / "ema.safetensors"))


def _problem(checkpoint: Path) -> str | None:
    manifest = checkpoint / MANIFEST
    if not manifest.exists():
        return f"it has no {MANIFEST}"
    sizes: dict[str, int] = json.loads(manifest.read_text(encoding="utf-8"))
    return next(_wrong_files(checkpoint, sizes.items()), None)


def _wrong_files(checkpoint: Path, sizes: Iterable[tuple[str, int]]) -> Iterator[str]:
    for name, size in sizes:
        path = checkpoint / name
        if not path.exists():
            yield f"{name} is missing"
        elif path.stat().st_size != size:
            yield f"{name} has {path.stat().st_size} bytes instead of {size}"
