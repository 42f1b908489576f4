"""The image of a published checkpoint in model_cards/NAME: weights, config, processor, card, and links to the code.

An image loads as a Hub repository does, without this package: transformers looks for the code beside config.json. In
the repository that code is a symbolic link a file, to the one copy in modeling_trm/; publishing follows the links.
"""

import os
import shutil
import sys
from pathlib import Path

import torch
from transformers.dynamic_module_utils import get_relative_import_files

from ..configuration_trm import TRMConfig
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..utils.loading import load_model, load_processor
from ..utils.manifest import weights_sha256
from .card import write_model_card
from .update import read_metrics

PACKAGE = Path(__file__).parents[1]


def make_image(source: str | Path, folder: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> list[Path]:
    """Write the image of the checkpoint in `source`, with its metrics.json and plots where it has them.

    Args:
        folder: below model_cards/ of a checkout; its last part is the name on the card. dtype: of the weights.

    Returns:
        The files of the folder, links included.

    Raises:
        CheckpointError: the source does not load. ValueError: its metrics.json is wrong, or the folder is there.
    """
    source, folder = Path(source), Path(folder)
    if folder.exists():
        raise ValueError(f"{folder}: is there already; remove it to make the image anew")
    model, processor = load_model(str(source)), load_processor(str(source))
    torch.nn.Module.to(model, dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
    if (source / "plots").is_dir():
        shutil.copytree(source / "plots", folder / "plots")
    link_code(folder)
    # Rounded weights are other bytes than the source's.
    metrics = read_metrics(source) | {"weights": weights_sha256(folder)}
    write_model_card(folder, metrics, model_name=folder.name)
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def link_code(folder: Path) -> list[Path]:
    """Make the links to the code what the loader needs, and remove all others; relative ones, so that a clone works."""
    for stale in folder.glob("*.py"):
        stale.unlink()
    links = []
    for name in sorted(installed_code()):
        link = folder / name
        link.symlink_to(os.path.relpath(PACKAGE / name, folder.resolve()))
        links.append(link)
    return links


def installed_code() -> dict[str, Path]:
    """{name: file} of the installed package's files that save_pretrained puts beside a checkpoint."""
    files: set[str] = set()
    for auto_class in (TRMConfig, TRMForGridReasoning, GridProcessor):
        module = str(sys.modules[auto_class.__module__].__file__)
        files |= {module, *get_relative_import_files(module)}
    return {Path(file).name: Path(file) for file in sorted(files)}
