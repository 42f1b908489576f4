"""Load a checkpoint for scripts, or say in one line why it does not load.

The installed classes are used, so that no code from the checkpoint's folder runs and none is asked about.
"""

import copy
import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import is_offline_mode, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ..configuration_trm import TRMConfig
from ..modeling_trm import TRMForGridReasoning
from ..pretrained_trm import refuse_adapter
from ..processing_trm import GridProcessor
from .manifest import changed_weights
from .reading import read_json
from .shipped import find_checkpoint, shipped_checkpoints

WEIGHTS = ["*.safetensors", "metrics.json"]
SQUARE_TASKS = ("sudoku", "maze")  # whose grids may have another size than the checkpoint's
LOADING_ERRORS = (OSError, ValueError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line and names it."""


def load_processor(name: str, side: int | None = None) -> GridProcessor:
    """The processor of a local folder, shipped checkpoint or Hub id, or one like it of grids of another side.

    Raises:
        CheckpointError: it does not load. ValueError: the task has no grid of that side.
    """
    name = _checked(name)
    with _one_line_errors(name, "processor"):
        processor = GridProcessor.from_pretrained(name)
    if side is None:
        return processor
    if processor.task not in SQUARE_TASKS:
        raise ValueError(f"--side {side} is for Sudokus and mazes; the checkpoint is for task {processor.task!r}")
    return GridProcessor(processor.task, grid_shape=(side, side))


def load_model(name: str, device: torch.device | str = "cpu", *, verify: bool = False) -> TRMForGridReasoning:
    """The model of a local folder, shipped checkpoint or Hub id, in evaluation mode on the device.

    Args:
        verify: compare the weights with the SHA-256 that the checkpoint's metrics.json names, before they are read.

    Raises:
        CheckpointError: it does not load, or the weights are other ones, or `verify` has nothing to compare with.
    """
    name = _checked(name)
    with _one_line_errors(name, "model"):
        if verify and (problem := changed_weights(folder_of(name))) is not None:
            raise ValueError(problem)
        return TRMForGridReasoning.from_pretrained(name).eval().to(device)


def check_model_fits(model: TRMForGridReasoning, processor: GridProcessor) -> None:
    """Raise a ValueError that names both sides when the processor's grids cannot be fed to this model."""
    why = model.config.misfit(processor.task, processor.vocab_size, processor.seq_len)
    if why is not None:
        raise ValueError(f"the model does not fit the puzzles: {why}; was this checkpoint trained on another task?")


def fit_model(model: TRMForGridReasoning, processor: GridProcessor) -> None:
    """Make the processor's grids the model's own size, which a model of several sizes may have another of.

    Raises:
        ValueError: as `check_model_fits`.
    """
    check_model_fits(model, processor)
    _resize(model.config, processor)


def resized(config: TRMConfig, processor: GridProcessor) -> TRMConfig:
    """A copy of the config with the processor's grids, which the model answers, as its own size."""
    copied = copy.deepcopy(config)
    _resize(copied, processor)
    return copied


def _resize(config: TRMConfig, processor: GridProcessor) -> None:
    if processor.seq_len != config.seq_len:
        config.grid_width = None  # of other sizes all are square
    config.vocab_size, config.seq_len = processor.vocab_size, processor.seq_len


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one. Raises ValueError when it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no numbers
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without CUDA
        raise ValueError(f"device {name!r} cannot be used here: {_one_line(error)}") from error
    return device


def _checked(name: str) -> str:
    """What to load. A misspelt folder must not end in a question to the Hub: only org/name can be meant for it."""
    found = find_checkpoint(name)
    folder = Path(found)
    if folder.is_dir():
        try:
            refuse_adapter(found)
        except ValueError as error:
            raise CheckpointError(f"checkpoint {name!r}: {error}") from error
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"checkpoint {name!r}: the folder holds no config.json")
        try:
            config = read_json(folder / "config.json")
        except ValueError as error:
            raise CheckpointError(f"checkpoint {name!r}: the file config.json is not a valid JSON object") from error
        kind = config.get("model_type", TRMConfig.model_type)
        if kind != TRMConfig.model_type:
            raise CheckpointError(
                f"checkpoint {name!r}: its config.json says model_type={kind!r}; allowed: {TRMConfig.model_type!r}"
            )
        return found
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", found):
        raise CheckpointError(
            f"checkpoint {name!r}: no such folder (and not a Hub id of the form org/name){_hint(name)}"
        )
    if isinstance(try_to_load_from_cache(found, "config.json"), str):
        return found
    if folder.parent.is_dir():
        near = difflib.get_close_matches(folder.name, [path.name for path in folder.parent.iterdir()], n=1)
        hint = f"; did you mean {folder.parent / near[0]}?" if near else ""
        raise CheckpointError(f"checkpoint {name!r}: no such folder in {folder.parent}, which is one here{hint}")
    if is_offline_mode():
        raise CheckpointError(
            f"checkpoint {name!r}: no such folder (and not in the cache of the Hub, which is not asked: "
            f"HF_HUB_OFFLINE is set){_hint(name)}"
        )
    return found


def _hint(name: str) -> str:
    shipped = sorted(shipped_checkpoints())
    near = difflib.get_close_matches(name, shipped, n=1)
    return f"; shipped: {', '.join(shipped)}" + (f"; did you mean {near[0]}?" if near else "")


def folder_of(name: str) -> Path:
    """Where weights and figures of a checkpoint lie on this machine: a folder, a shipped one, or an id on the Hub.

    Raises:
        CheckpointError: there is none, or the Hub, which is asked, does not give it.
    """
    found = _checked(name)
    if Path(found).is_dir():
        return Path(found)
    with _one_line_errors(name, "folder"):
        return Path(snapshot_download(found, allow_patterns=WEIGHTS))


@contextmanager
def _one_line_errors(name: str, part: str) -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except LOADING_ERRORS as error:
        raise CheckpointError(f"checkpoint {name!r}: the {part} does not load: {_one_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
