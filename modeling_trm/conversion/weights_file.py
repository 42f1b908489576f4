"""Open a file of weights without running anything that is in it.

Sources: PyTorch's two formats (zip, and the older plain pickle), with weights_only=True and memory-mapped where the
format allows; safetensors. What trainings store beside weights (paths, settings, the states of generators, latents that
are carried) is passed over: neither imported nor run, something empty stands in its place.
"""

import pickle
import re
import textwrap
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from .plain_pickle import imports_of_pickle

LEGACY = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # PyTorch's older format begins with this number, pickled
START = 32  # bytes that tell the format
REASON = 200  # characters of another library's message
# Modules of what is passed over; models: EqR's own, whose trainings store the latents that they carry.
PASSED_OVER = re.compile(r"(pathlib|numpy|_codecs|omegaconf|typing|argparse|lightning|pytorch_lightning|models)\.")


class ConversionError(ValueError):
    """Something that cannot be converted; the message is one line that names it and says what is allowed."""


class PassedOver:
    """Stands for an object of a file that is not made: it takes whatever the object would have been made of."""

    def __new__(cls, *_: Any, **__: Any) -> "PassedOver":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def load(path: Path) -> Any:
    """What the file holds.

    Raises:
        ConversionError: no file of weights, a damaged one, or one that needs code to be run, which is named.
    """
    if path.is_dir():
        raise ConversionError(f"{path}: is a folder; give the checkpoint file in it")
    if path.exists() and not path.is_file():
        raise ConversionError(f"{path}: is a device or a pipe; give a file")
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror}") from error
    if not start:
        raise ConversionError(f"{path}: is empty (0 bytes)")
    if start[8:9] == b"{":  # eight bytes of length, then the JSON header
        return _load_safetensors(path)
    if start.startswith(b"PK"):
        _check_zip(path)
        return _load_torch(path, mmap=True)
    if LEGACY in start:
        return _load_torch(path, mmap=False)
    names = imports_of_pickle(path)
    if names is not None:
        needs = f" that needs {', '.join(names[:3])}{', ...' if names[3:] else ''}" if names else ""
        raise ConversionError(
            f"{path}: is a plain pickle{needs}; nothing was run. Give a file of torch.save or safetensors"
        )
    if start[0] == 0x80:  # how every pickle of protocol 2 and up begins, PyTorch's older format among them
        raise ConversionError(f"{path}: is damaged: it begins as a pickle and cannot be read to its end")
    raise ConversionError(f"{path}: is no checkpoint: neither of torch.save nor safetensors")


def _check_zip(path: Path) -> None:
    """PyTorch does not look at the checksums of its own zip format, so that a flipped bit would become a weight."""
    if not zipfile.is_zipfile(path):
        raise ConversionError(f"{path}: is damaged: it ends early, the directory at the end of a zip file is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.serialization.set_crc32_options(False) leaves all of them 0: then there is nothing to compare
            bad = archive.testzip() if any(record.CRC for record in archive.infolist()) else None
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ConversionError(f"{path}: is damaged: {_one_line(error)}") from error
    if bad is not None:
        raise ConversionError(f"{path}: is damaged: its record {bad!r} does not give the checksum stored with it")


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
    except (SafetensorError, ValueError) as error:
        raise ConversionError(f"{path}: is damaged: {_one_line(error)}") from error


def _load_torch(path: Path, mmap: bool) -> Any:
    try:
        with _passing_over(path) if mmap else nullcontext():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        needed = re.search(r"(?:GLOBAL|global)[: ]+([\w.]+\.\w+)", str(error))
        if needed is None:
            raise ConversionError(f"{path}: is damaged: {_one_line(error)}") from error
        raise ConversionError(
            f"{path}: holds more than tensors: it asks to run {needed[1]}; nothing was run. Save its state dict alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConversionError(f"{path}: is damaged: {_one_line(error).split('. ')[0] or 'it ends early'}") from error


def _passing_over(path: Path) -> AbstractContextManager[None]:
    """While it lasts, PyTorch's unpickler makes a `PassedOver` of each class of PASSED_OVER that the file asks for."""
    names = [name for name in get_unsafe_globals_in_checkpoint(str(path)) if PASSED_OVER.match(name)]
    return safe_globals([(type(name, (PassedOver,), {}), name) for name in names])


def _one_line(error: BaseException) -> str:
    """What the message says, without what torch.load puts in front of it, up to the end of a word."""
    _, _, refusal = str(error).rpartition("WeightsUnpickler error: ")
    return textwrap.shorten(refusal, REASON, placeholder=" ...")
