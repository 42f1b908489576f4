"""What is said about a checkpoint's architecture, with its origin: the file itself, the arch YAML, the command line.

Source: config/arch/trm.yaml and the configuration class in models/recursive_reasoning/trm.py of the public code of
arXiv 2510.04871; a training run writes all_config.yaml, whose `arch:` section is such a YAML, beside its checkpoints.
locuslab/EqR (models/trm.py) trains the same model without a puzzle table, and stores that section in its checkpoints.
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
from .relatives import EQR, refusal

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
WITHOUT_EFFECT = (
    "name loss H_layers halt_exploration_prob no_ACT_continue batch_size causal short_name board_height board_width "
    "disable_act_halt act_inference halt_threshold halt_confirm_steps halt_confirm_mode"
).split()
MODULE, WITHOUT_TABLE = "recursive_reasoning.trm", "trm"  # of the reference; of EqR's baseline
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


def gather(own: Mapping[str, Any], yaml_file: str | Path | None, options: Mapping[str, Any]) -> Said:
    """All sources as one.

    Args:
        own: fields that the checkpoint's file itself holds. options: fields given on the command line.

    Raises:
        ConversionError: a file that is no arch YAML, an unknown field, a value of another type or sign, or two values
            that differ.
    """
    values, origins = dict(own), dict.fromkeys(own, "the file itself")
    written = {} if yaml_file is None else read_yaml(Path(yaml_file))
    given = [(name, value, Path(str(yaml_file)).name, "") for name, value in written.items()]
    given += [(name, value, f"--{name.replace('_', '-')}", f" {value}") for name, value in options.items()]
    for name, value, origin, shown in given:
        if name in values and values[name] != value:
            raise ConversionError(f"{name}: {origin}{shown} differs from {name}={values[name]} in {origins[name]}")
        values[name], origins[name] = value, origins.get(name, origin)
    for name, value in values.items():
        _check_range(name, value, origins[name])
    return Said(values, origins)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path}: cannot be read as YAML: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("arch"), dict):
        content = content["arch"]
    if not isinstance(content, dict) or not tells_cycles(content):
        raise ConversionError(f"{path}: has neither H_cycles nor L_cycles: no arch section of the reference")
    return read_fields(content, str(path))


def tells_cycles(content: Mapping[str, Any]) -> bool:
    """Whether this is such a section."""
    return bool({"H_cycles", "L_cycles"} & content.keys())


def read_fields(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The fields of an arch section that say what a converted checkpoint computes; each of its type.

    Raises:
        ConversionError: another model's, an unknown field, or a value of another type.
    """
    module = str(content.get("name") or MODULE).partition("@")[0]
    if module.startswith("eqr"):
        kept, noise = content.get("lambda_", 0.95), content.get("noise_scale", 0.01)
        raise refusal(f"{EQR} (lambda_={kept}, noise_scale={noise})", source)
    if module not in (MODULE, WITHOUT_TABLE):
        raise ConversionError(f"{source}: arch.name={content['name']!r} is another model; allowed: {MODULE}@...")
    values = {name: value for name, value in content.items() if name not in WITHOUT_EFFECT}
    if module == WITHOUT_TABLE:
        values |= {"puzzle_emb_ndim": 0, "puzzle_emb_len": 0}
    return {name: typed(source, name, _resolved(source, name, values)) for name in values}


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


def _resolved(source: str, name: str, values: Mapping[str, Any]) -> Any:
    """The value, or the one it refers to: `${.hidden_size}` is how the reference's own file says E = D."""
    match = re.fullmatch(r"\$\{\.(\w+)\}", str(values[name]))
    if match is None:
        return values[name]
    if match[1] not in values:
        raise ConversionError(f"{source}: {name}={values[name]!r} refers to {match[1]}, which is not there")
    return values[match[1]]


def typed(source: str, name: str, value: Any) -> Any:
    """The value, a number written as text as a number. Raises ConversionError for an unknown field or another type."""
    kinds: dict[str, tuple[type, ...]] = dict.fromkeys(INTEGERS, (int,))
    kinds |= dict.fromkeys(NUMBERS, (int, float)) | dict.fromkeys(TEXTS, (str,)) | dict.fromkeys(FLAGS, (bool,))
    if name not in kinds:
        raise ConversionError(
            f"{source}: {name}={value!r} is no field of the reference's trm; a fork may compute something else with "
            f"it. Take it out of a copy given with --arch if it does not"
        )
    if name in NUMBERS and isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 takes 1e-05 for text
            value = float(value)
    if not isinstance(value, kinds[name]) or (isinstance(value, bool) and name not in FLAGS):
        allowed = " or ".join(kind.__name__ for kind in kinds[name])
        raise ConversionError(f"{source}: {name}={value!r}; allowed: {allowed}")
    if name == "pos_encodings" and value not in POSITIONS:
        raise ConversionError(f"{source}: {name}={value!r}; allowed: {', '.join(POSITIONS)}")
    return value
