"""A checkpoint that travels: small enough for a slow network, in files that every channel takes, each with a checksum.

A run's own checkpoint has everything, the latents of its slots included, and goes on bit for bit. This one is for
another machine: `pack_checkpoint` rounds, leaves out and cuts into files; a recipe with `resume_from` goes on from it.

Folder:
  README.md           what it is, what it leaves out and how to go on
  progress.json       step, recipe and fingerprint of the data of the run
  state-I-of-N.bin    pieces of one safetensors file with the tensors of checkpointing.LEARNT, "part/name"
  manifest.json       size and SHA-256 of each file
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from ..utils.files import write_json, write_text
from ..utils.manifest import find_damage
from ..utils.outputs import new_folder
from .checkpointing import LEARNT, PROGRESS, State, load_learnt, load_progress, newest_checkpoint

PIECE_BYTES = 15_000_000
README = """# Checkpoint to resume from, step {step:,} of {train_steps:,}

{megabytes:.1f} MB in {pieces} files: weights, averaged weights and the state of the optimisers, by name of the
parameter. To go on, on any machine with the same data and recipe:

    trm train RECIPE.yaml --resume_from THIS_FOLDER

Left out, so that the run goes on within its noise, not bit for bit:

- the slots, that is the puzzles under way and their latents: every slot takes a new puzzle at the next step;
- precision: tensors of two and more dimensions are rounded to bfloat16 (8 significant bits), the others are exact;
- the weights that were best on validation puzzles: the next evaluation begins to choose anew;
- the log up to here.
"""


def pack_checkpoint(run: Path, output: Path) -> dict[str, Any]:
    """Write the newest checkpoint of the run's folder as a travelling one; an earlier one at `output` is replaced.

    Returns:
        {checkpoint, step, files, bytes}.

    Raises:
        ValueError: there is no whole checkpoint, nothing left to train, or something else at `output`;
            see `utils.outputs.check_new_folder`.
    """
    checkpoint = newest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        raise ValueError(f"{run} has no whole checkpoint to pack: expected {run / 'checkpoints' / 'step-*'}")
    progress = load_progress(checkpoint)
    if progress["step"] >= progress["train_steps"]:
        raise ValueError(f"{checkpoint} is the end of its run: nothing is left to resume; see {run / 'weights'}")
    content = save(
        {
            f"{part}/{name}": _rounded(value)
            for part, named in load_learnt(checkpoint).items()
            for name, value in named.items()
        }
    )
    pieces = [content[start : start + PIECE_BYTES] for start in range(0, len(content), PIECE_BYTES)]
    readme = README.format(**progress, megabytes=len(content) / 1e6, pieces=len(pieces))
    with new_folder(output, overwrite=True, sources=[run]) as folder:
        for number, piece in enumerate(pieces, start=1):
            (folder / f"state-{number}-of-{len(pieces)}.bin").write_bytes(piece)
        write_json(folder / PROGRESS, progress | {"best": None})
        write_text(folder / "README.md", readme)
    sizes = [path.stat().st_size for path in output.iterdir()]
    return {"checkpoint": str(checkpoint), "step": progress["step"], "files": len(sizes), "bytes": sum(sizes)}


def check_packed(folder: Path) -> None:
    """Raise ValueError, naming the file, unless the folder is a whole travelling checkpoint."""
    problem = find_damage(folder) if folder.is_dir() else "there is no such folder"
    if problem is not None:
        raise ValueError(f"resume_from={str(folder)!r}: {problem}; copy it again from where it was packed")


def load_packed(folder: Path) -> State:
    """The tensors of a whole travelling checkpoint, in float32 where they were rounded; without slots."""
    pieces = sorted(folder.glob("state-*.bin"), key=lambda path: int(path.name.split("-")[1]))
    state: State = {part: {} for part in LEARNT}
    for key, value in load(b"".join(piece.read_bytes() for piece in pieces)).items():
        part, _, name = key.partition("/")
        state[part][name] = value.float() if value.dtype == torch.bfloat16 else value
    return state


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16) if tensor.ndim > 1 and tensor.dtype == torch.float32 else tensor
