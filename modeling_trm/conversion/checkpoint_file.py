"""The state dicts of a file of weights by their plain names, and what the file says of its training.

Wrappers leave their names on the keys of a state dict, in front the reference's loss head `model.` and its ACT wrapper
`inner.`, anywhere torch.compile `_orig_mod.` and DistributedDataParallel `module.`: they are taken off. Buffers that
other code saves and ours computes, rotary tables and the batch's rows of the puzzle table, are left out.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .weights_file import ConversionError, load

PREFIX = re.compile(r"^(?:(?:model|inner)\.)+")
WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|module)\.")
COMPUTED = re.compile(r"(^|\.)(puzzle_emb\.local_(weights|ids)|(cos|sin)_cached(_height|_width)?|inv_freq)$")
# What tells a state dict of the reference's family from any other dictionary, its relatives included.
FAMILY = re.compile(
    r"^(lm_head|q_head|embed_tokens|input_embedding|embed_pos|puzzle_emb|[HL]_level|lenet|(z_)?[HL]\d?_init)(\.|$)"
)
# An average over parameters does not hold them.
BUFFERS = ("H_init", "L_init", "z_H_init", "z_L_init", "puzzle_emb.weights")
NESTING = 3  # dictionaries within dictionaries that are searched for state dicts


@dataclass(frozen=True)
class Checkpoint:
    """One state dict: `tensors` by their name without those of wrappers; `facts` worth recording.

    settings: the fields of the training, as its own code names them, where the file has them; else empty.
    """

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class CheckpointFile:
    """All state dicts of a file, each under its dotted name in it ("" for the file itself); settings: as above."""

    path: Path
    entries: dict[str, dict[str, Tensor]]
    settings: Mapping[str, Any]

    @property
    def names(self) -> set[str]:
        """Of the weights of all state dicts."""
        return set().union(*self.entries.values())

    def choose(self, entry: str | None) -> Checkpoint:
        """The state dict named `entry`; None: the only one.

        An entry without the buffers (an EMA of the parameters) takes them from the other one that has them.

        Raises:
            ConversionError: no such entry, several without `entry`, or a buffer that several others have.
        """
        name = self._name(entry)
        tensors = self.entries[name]
        plain, facts = {key: tensor for key, tensor in tensors.items() if not COMPUTED.search(key)}, {}
        if left_out := sorted(tensors.keys() - plain.keys()):
            facts["left out"] = f"{', '.join(left_out)}: buffers that are computed, not learnt"
        if name:
            facts["entry"] = f"{name} (of {', '.join(self.entries)})"
        for buffer in BUFFERS:
            owners = [other for other, content in self.entries.items() if buffer in content]
            if buffer not in plain and owners:
                if len(owners) > 1:
                    raise ConversionError(
                        f"{self.path}: entry {name!r} has no {buffer}, which {' and '.join(map(repr, owners))} have"
                    )
                plain[buffer] = self.entries[owners[0]][buffer]
                facts[buffer] = f"from entry {owners[0]}: {name} does not hold it"
        return Checkpoint(self.path, plain, facts, self.settings)

    def _name(self, entry: str | None) -> str:
        names = ", ".join(name or "the file itself" for name in self.entries)
        if entry is None:
            if len(self.entries) > 1:
                raise ConversionError(
                    f"{self.path}: holds {len(self.entries)} state dicts: {names}; say which with --entry NAME"
                )
            return next(iter(self.entries))
        if entry not in self.entries:
            raise ConversionError(f"{self.path}: has no entry {entry!r}; allowed: {names}")
        return entry


def read_file(path: str | Path) -> CheckpointFile:
    """Raises ConversionError for no checkpoint, a damaged one, one that needs code to be run; file and reason named."""
    path = Path(path)
    content = load(path)
    entries = dict(_state_dicts(content, path))
    if not entries:
        raise ConversionError(f"{path}: holds no state dict of a TRM (no tensor named lm_head, L_level, H_init, ...)")
    return CheckpointFile(path, entries, _settings(content))


def _settings(content: Any) -> Mapping[str, Any]:
    """Lightning's hyper_parameters, or the arch section of the configuration that EqR's trainings store."""
    config = content.get("config")
    found = content.get("hyper_parameters", config.get("arch") if isinstance(config, Mapping) else None)
    return found if isinstance(found, Mapping) else {}


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
