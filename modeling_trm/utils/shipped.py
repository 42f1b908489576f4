"""The checkpoints that come with the package, by name: the folders of model_cards/."""

from importlib import resources
from pathlib import Path

FIRST = "tr-mamba2mlpt-sudoku-quickstart"  # the smallest that solves most of what people type


def shipped_checkpoints() -> dict[str, Path]:
    """{name: folder}, in order of their names."""
    root = Path(str(resources.files("model_cards")))
    return {file.parent.name: file.parent for file in sorted(root.glob("*/config.json"))}


def in_order_of_loading() -> list[str]:
    """Their names as a page offers them, which loads the first one at once: that one, then by size of their weights."""
    folders = shipped_checkpoints()
    return sorted(folders, key=lambda name: (name != FIRST, (folders[name] / "model.safetensors").stat().st_size))


def find_checkpoint(name: str) -> str:
    """The folder of a shipped checkpoint, where no folder of that name is here; else the name as it is."""
    return name if Path(name).exists() else str(shipped_checkpoints().get(name, name))
