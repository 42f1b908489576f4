"""Read the state dict of a checkpoint file without running anything that is in it.

Sources: PyTorch's two formats (zip, and the older plain pickle), with weights_only=True and memory-mapped where the
format allows; safetensors. Wrappers leave their names on the keys of a state dict, in front the reference's loss head
`model.` and its ACT wrapper `inner.`, anywhere torch.compile `_orig_mod.` and DistributedDataParallel `module.`: they
are taken off. Buffers that other code saves and ours computes, rotary tables and the batch's rows of the puzzle table,
are left out.
"""

import hashlib
import pickle
import re
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .plain_pickle import imports_of_pickle

PREFIX = re.compile(r"^(?:(?:model|inner)\.)+")
WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|module)\.")
COMPUTED = re.compile(r"(^|\.)(puzzle_emb\.local_(weights|ids)|cos_cached|sin_cached|inv_freq)$")
# What tells a state dict of the reference's family from any other dictionary, its relatives included.
FAMILY = re.compile(r"^(lm_head|q_head|embed_tokens|embed_pos|puzzle_emb|[HL]_level|[HL]\d?_init)(\.|$)")
BUFFERS = ("H_init", "L_init", "puzzle_emb.weights")  # an average over parameters does not hold them
LEGACY = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # PyTorch's older format begins with this number, pickled
START = 32  # bytes that tell the format
REASON = 200  # characters of another library's message
NESTING = 3  # dictionaries within dictionaries that are searched for state dicts


class ConversionError(ValueError):
    """Something that cannot be converted; the message is one line that names it and says what is allowed."""


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` by their name without those of wrappers; `facts` worth recording."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, str] = field(default_factory=dict)

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(path: str | Path, entry: str | None = None) -> Checkpoint:
    """The state dict of a file; of the one named `entry` where the file holds several.

    An entry without the buffers (an EMA of the parameters) takes them from the other one that has them.

    Raises:
        ConversionError: no checkpoint, a damaged one, one that needs code to be run, or several state dicts without
            `entry`; the message names the file and the reason.
    """
    path = Path(path)
    entries = dict(_state_dicts(_load(path), path))
    if not entries:
        raise ConversionError(f"{path}: holds no state dict of a TRM (no tensor named lm_head, L_level, H_init, ...)")
    name = _choose(path, entries, entry)
    plain, facts = {key: tensor for key, tensor in entries[name].items() if not COMPUTED.search(key)}, {}
    if left_out := sorted(entries[name].keys() - plain.keys()):
        facts["left out"] = f"{', '.join(left_out)}: buffers that are computed, not learnt"
    if name:
        facts["entry"] = f"{name} (of {', '.join(entries)})"
    for buffer in BUFFERS:
        owners = [other for other, content in entries.items() if buffer in content]
        if buffer not in plain and owners:
            if len(owners) > 1:
                raise ConversionError(
                    f"{path}: entry {name!r} has no {buffer}, which {' and '.join(map(repr, owners))} have"
                )
            plain[buffer] = entries[owners[0]][buffer]
            facts[buffer] = f"from entry {owners[0]}: {name} does not hold it"
    return Checkpoint(path, plain, facts)


def _choose(path: Path, entries: Mapping[str, Any], entry: str | None) -> str:
    names = ", ".join(name or "the file itself" for name in entries)
    if entry is None:
        if len(entries) > 1:
            raise ConversionError(f"{path}: holds {len(entries)} state dicts: {names}; say which with --entry NAME")
        return next(iter(entries))
    if entry not in entries:
        raise ConversionError(f"{path}: has no entry {entry!r}; allowed: {names}")
    return entry


def _state_dicts(content: Any, path: Path, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(dotted name, {name of a weight: tensor}) of every state dict of the family."""
    if not isinstance(content, Mapping):
        return
    keys = [key for key in content if isinstance(key, str)]
    if any(FAMILY.match(_plain_name(key)) and isinstance(content[key], Tensor) for key in keys):
        yield name, _plainly_named(content, path)
    elif depth < NESTING:
        for key in keys:
            yield from _state_dicts(content[key], path, f"{name}.{key}".lstrip("."), depth + 1)


def _plain_name(key: str) -> str:
    return PREFIX.sub("", WRAPPER.sub("", key))


def _plainly_named(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, tensor in content.items():
        if not isinstance(tensor, Tensor):
            raise ConversionError(f"{path}: {key!r} among the weights is {type(tensor).__name__}, not a tensor")
        plain = _plain_name(str(key))
        if plain in found:
            raise ConversionError(f"{path}: two weights are named {plain}, under different prefixes")
        found[plain] = tensor
    return found


def _load(path: Path) -> Any:
    if path.is_dir():
        raise ConversionError(f"{path}: is a folder; give the checkpoint file in it")
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


def _one_line(error: BaseException) -> str:
    """What the message says, without what torch.load puts in front of it, up to the end of a word."""
    _, _, refusal = str(error).rpartition("WeightsUnpickler error: ")
    return textwrap.shorten(refusal, REASON, placeholder=" ...")
