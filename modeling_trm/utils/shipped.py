"""The checkpoints that come with the package, by name: the folders of model_cards/."""

from importlib import resources
from pathlib import Path


def shipped_checkpoints() -> dict[str, Path]:
    """{name: folder}, in order of their names."""
    root = Path(str(resources.files("model_cards")))
    return {file.parent.name: file.parent for file in sorted(root.glob("*/config.json"))}


def find_checkpoint(name: str) -> str:
    """The folder of a shipped checkpoint, where no folder of that name is here; else the name as it is."""
    return name if Path(name).exists() else str(shipped_checkpoints().get(name, name))
