"""What is said about a checkpoint's architecture: the reference's arch YAML and the command line, with their origin.

Source: config/arch/trm.yaml and the configuration class in models/recursive_reasoning/trm.py of the public code of
arXiv 2510.04871; a training run writes all_config.yaml, whose `arch:` section is such a YAML, beside its checkpoints.
"""

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.yaml_reading import load_yaml
from .checkpoint_file import ConversionError

# Field -> its type. Those of the last group change nothing that a converted checkpoint does at inference.
INTEGERS = (
    "H_cycles L_cycles L_layers hidden_size num_heads puzzle_emb_ndim puzzle_emb_len halt_max_steps vocab_size seq_len "
    "num_puzzle_identifiers"
).split()
MAY_BE_ZERO = ("puzzle_emb_ndim", "puzzle_emb_len")
NUMBERS = ("expansion", "rms_norm_eps", "rope_theta")
POSITIONS = ("rope", "learned", "none")
TEXTS = ("pos_encodings", "forward_dtype")
FLAGS = ("mlp_t",)
WITHOUT_EFFECT = ("name", "loss", "H_layers", "halt_exploration_prob", "no_ACT_continue", "batch_size", "causal")
MODULE = "recursive_reasoning.trm"
CONFIG_FILE = "all_config.yaml"


@dataclass(frozen=True)
class Said:
    """Values with where they come from."""

    values: dict[str, Any]
    origins: dict[str, str]

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def check(self, name: str, inferred: Any, source: str) -> None:
        """Raise ConversionError where what is given differs from what the tensors say."""
        if name in self.values and self.values[name] != inferred:
            raise ConversionError(
                f"{name}={self.values[name]} ({self.origins[name]}) does not fit {source}, whose tensors say "
                f"{name}={inferred}"
            )


def gather(yaml_file: str | Path | None, options: Mapping[str, Any]) -> Said:
    """Both sources as one. `options` maps fields to values given on the command line.

    Raises:
        ConversionError: a file that is no arch YAML, an unknown field, a value of another type or sign, or two values
            that differ.
    """
    values, origins = {}, {}
    if yaml_file is not None:
        values = _read_yaml(Path(yaml_file))
        origins = dict.fromkeys(values, Path(yaml_file).name)
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if name in values and values[name] != value:
            raise ConversionError(f"{name}: {option} {value} differs from {name}={values[name]} in {yaml_file}")
        values[name], origins[name] = value, origins.get(name, option)
    for name, value in values.items():
        _check_range(name, value, origins[name])
    return Said(values, origins)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path}: cannot be read as YAML: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("arch"), dict):
        content = content["arch"]
    if not isinstance(content, dict) or not {"H_cycles", "L_cycles"} & content.keys():
        raise ConversionError(f"{path}: has neither H_cycles nor L_cycles: no arch section of the reference")
    _check_name(path, content.get("name"))
    values = {name: value for name, value in content.items() if name not in WITHOUT_EFFECT}
    return {name: _typed(path, name, _resolved(path, name, values)) for name in values}


def _check_range(name: str, value: Any, origin: str) -> None:
    """Numbers of the wrong sign, and those that YAML and the command line write as .nan and inf."""
    if name in NUMBERS and not (value > 0 and _is_finite(value)):
        raise ConversionError(f"{name}={value} ({origin}); allowed: finite numbers above 0")
    least = 0 if name in MAY_BE_ZERO else 1
    if name in INTEGERS and value < least:
        raise ConversionError(f"{name}={value} ({origin}); allowed: {least} and above")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _check_name(path: Path, name: Any) -> None:
    if name is not None and str(name).partition("@")[0] != MODULE:
        raise ConversionError(f"{path}: arch.name={name!r} is another model; allowed: {MODULE}@...")


def _resolved(path: Path, name: str, values: Mapping[str, Any]) -> Any:
    """The value, or the one it refers to: `${.hidden_size}` is how the reference's own file says E = D."""
    match = re.fullmatch(r"\$\{\.(\w+)\}", str(values[name]))
    if match is None:
        return values[name]
    if match[1] not in values:
        raise ConversionError(f"{path}: {name}={values[name]!r} refers to {match[1]}, which is not there")
    return values[match[1]]


def _typed(path: Path, name: str, value: Any) -> Any:
    kinds: dict[str, tuple[type, ...]] = dict.fromkeys(INTEGERS, (int,))
    kinds |= dict.fromkeys(NUMBERS, (int, float)) | dict.fromkeys(TEXTS, (str,)) | dict.fromkeys(FLAGS, (bool,))
    if name not in kinds:
        raise ConversionError(
            f"{path}: {name}={value!r} is no field of the reference's trm; a fork may compute something else with it. "
            f"Take it out of a copy given with --arch if it does not"
        )
    if name in NUMBERS and isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 takes 1e-05 for text
            value = float(value)
    if not isinstance(value, kinds[name]) or (isinstance(value, bool) and name not in FLAGS):
        allowed = " or ".join(kind.__name__ for kind in kinds[name])
        raise ConversionError(f"{path}: {name}={value!r}; allowed: {allowed}")
    if name == "pos_encodings" and value not in POSITIONS:
        raise ConversionError(f"{path}: {name}={value!r}; allowed: {', '.join(POSITIONS)}")
    return value
