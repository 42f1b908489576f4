"""The architecture fields of a recipe: those of TRMConfig, but for what the data decides."""

import dataclasses
from dataclasses import field
from typing import Any

from ..configuration_trm import KERNELS, TRMConfig

PRESET = "trm-attn"
FROM_DATA = ("vocab_size", "seq_len", "num_puzzles")
_PLAIN: dict[Any, Any] = {int | float: float, int | float | None: float}


def _model_fields() -> list[tuple[str, Any, Any]]:
    """TRMConfig's fields of what a model is, each optional; a number that may be whole is a float here."""
    found: list[tuple[str, Any, Any]] = []
    for name, kind in TRMConfig.__annotations__.items():
        if name not in FROM_DATA and name not in KERNELS:
            plain: Any = _PLAIN.get(kind, kind)
            found.append((name, plain | None, field(default=None, metadata={"help": "see TRMConfig"})))
    return found


ModelArguments = dataclasses.make_dataclass(
    "ModelArguments",
    [
        (
            "preset",
            str | None,
            field(default=None, metadata={"help": f"named architecture, overridden below; default: {PRESET}"}),
        ),
        *_model_fields(),
    ],
    namespace={"__doc__": "The architecture: a preset and overrides, field by field those of TRMConfig."},
)
