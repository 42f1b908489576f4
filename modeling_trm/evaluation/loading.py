"""Load a checkpoint for scripts: the whole of it or a one-line error, never a model with freshly drawn weights.

transformers only warns when weights are missing or left over, which is what a checkpoint of another preset looks like.
The installed classes are used, so that no code from the checkpoint's folder runs and none is asked about.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor

LOADING_ERRORS = (OSError, ValueError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line and names it."""


def load_processor(name: str) -> GridProcessor:
    """The processor of a local folder or Hub id. Raises CheckpointError."""
    _check_name(name)
    with _one_line_errors(name, "processor"):
        return GridProcessor.from_pretrained(name)


def load_model(name: str, device: torch.device | str = "cpu") -> TRMForGridReasoning:
    """The model of a local folder or Hub id, in evaluation mode on the device. Raises CheckpointError."""
    _check_name(name)
    with _one_line_errors(name, "model"):
        # Mismatches are let through to be named here; the library's own error refers to a table it logs.
        loaded: Any = TRMForGridReasoning.from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True)
    model, report = loaded
    problems = [
        f"{len(keys)} {kind} (for example {min(_tensor_name(key) for key in keys)})"
        for kind, keys in (
            ("weights missing", report["missing_keys"]),
            ("weights left over", report["unexpected_keys"]),
            ("weights of another shape", report["mismatched_keys"]),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"checkpoint {name!r}: its weights do not belong to its config.json "
            f"(block_operators {model.config.block_operators}, hidden_size {model.config.hidden_size}): "
            f"{', '.join(problems)}; is this the config of another preset?"
        )
    return model.eval().to(device)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one. Raises ValueError when it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without CUDA
        raise ValueError(f"device {name!r} cannot be used here: {_one_line(error)}") from error
    return device


def _check_name(name: str) -> None:
    """A misspelt folder must not end in a question to the Hub: only org/name can be meant for it."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"checkpoint {name!r}: the folder holds no config.json")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise CheckpointError(f"checkpoint {name!r}: no such folder (and not a Hub id of the form org/name)")


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


def _tensor_name(key: str | tuple) -> str:
    """Mismatches come as (name, shape in the file, shape in the model)."""
    return key if isinstance(key, str) else f"{key[0]} {list(key[1])} instead of {list(key[2])}"
