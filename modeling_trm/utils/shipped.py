"""The checkpoints that come with the package, by name: the folders of model_cards/."""

from importlib import resources
from pathlib import Path


def shipped_checkpoints() -> dict[str, Path]:
    """{name: folder}, in order of their names."""
    root = Path(str(resources.files("model_cards")))
    return {file.parent.name: file.parent for file in sorted(root.glob("*/config.json"))}


def smallest_first() -> list[str]:
    """Their names, by the size of their weights: a page loads the first one at once."""
    folders = shipped_checkpoints()
    return sorted(folders, key=lambda name: (folders[name] / "model.safetensors").stat().st_size)


def find_checkpoint(name: str) -> str:
    """The folder of a shipped checkpoint, where no folder of that name is here; else the name as it is."""
    return name if Path(name).exists() else str(shipped_checkpoints().get(name, name))
