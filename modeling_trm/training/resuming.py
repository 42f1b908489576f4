"""Which checkpoint a run goes on from, and whether it is this run's."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator

from ..operator_files_trm import own_code
from .arguments import DataArguments, OptimisationArguments, RunArguments
from .checkpointing import State, load_checkpoint, load_progress, newest_checkpoint
from .packing import load_packed

# Fields that a resumed run may change: they do not touch what is learnt.
FREE_TO_CHANGE = frozenset(
    "output_dir log_every eval_every eval_batch_size eval_max_steps checkpoint_every stop_after_minutes "
    "early_stopping_patience resume_from report_to validation_puzzles test_puzzles attention_backend mlp_t_backend "
    "ssd_backend views test_augmentations".split()  # the last: what views was called
)
LONGER = (
    "; its schedules were made for its length: to train a finished model for longer, give another output_dir, "
    "--start_from FOLDER (weights/last or model of that run) and --start_step {step}, which goes on behind that step"
)
# Of fields that a recipe of an earlier version did not have.
DEFAULTS = {
    field.name: field.default for part in (DataArguments, OptimisationArguments, RunArguments) for field in fields(part)
}


def load_newest(accelerator: Accelerator, checkpoints: Path, packed: Path | None) -> tuple[Path, State] | None:
    """The latest checkpoint among the run's own and the packed one it was given, with its tensors; None without any.

    At the same step the run's own is taken, which goes on bit for bit.
    """
    own = newest_checkpoint(checkpoints)
    if packed is not None and (own is None or load_progress(packed)["step"] > load_progress(own)["step"]):
        return packed, load_packed(packed)
    return None if own is None else (own, load_checkpoint(accelerator, own))


def check_same_run(checkpoint: Path, progress: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raise ValueError, naming both values, if the checkpoint is of another recipe, other data or other operators.

    Args:
        progress: of the checkpoint. ours: that of the run which is to go on from it.
    """
    for name in sorted((ours["recipe"].keys() | progress["recipe"].keys()) - FREE_TO_CHANGE):
        before, now = progress["recipe"].get(name, DEFAULTS.get(name)), ours["recipe"].get(name)
        if _meaning(before) != _meaning(now):
            raise ValueError(
                f"{checkpoint} was trained with {name}={before!r}, the recipe now says {now!r}: "
                f"set it back to resume, or give another output_dir to start anew"
                + (LONGER.format(step=progress["step"]) if name in ("train_steps", "train_minutes") else "")
            )
    before, now = progress["training_data"], ours["training_data"]
    if before != now:
        raise ValueError(
            f"{checkpoint} was trained on data with fingerprint {before}, the data are now {now}: "
            f"restore them to resume, or give another output_dir to start anew"
        )
    # A checkpoint of an earlier version does not say what its operators were.
    for name, code in progress.get("operators", {}).items():
        found = ours["operators"].get(name, {"file": "no file", "sha256": None})
        if found["sha256"] != code["sha256"]:
            raise ValueError(
                f"{checkpoint} was trained with operator {name!r} as {code['file']} had it (SHA-256 of its text "
                f"{code['sha256'][:12]}), it is now another one, of {found['file']}: restore it to resume, or give "
                f"another output_dir to start anew"
            )


def operators_fact(names: Iterable[str]) -> dict[str, str]:
    """What a finished run says of the code of operators of a user's own, by which it is known again; {} without any."""
    told = ", ".join(f"{name} SHA-256 {code['sha256'][:12]}" for name, code in own_code(names).items())
    return {"code of its operators": told} if told else {}


def _meaning(value: Any) -> Any:
    """Of a mapping in text, such as a curriculum or the fields of other sizes, what it says that may not change: a
    file's and a command line's are written otherwise."""
    if isinstance(value, str) and value.startswith("{"):
        value = yaml.safe_load(value)
    if not isinstance(value, dict):
        return value
    return {str(key): _meaning(part) for key, part in value.items() if key not in FREE_TO_CHANGE}
