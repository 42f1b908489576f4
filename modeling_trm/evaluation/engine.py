"""What an evaluation computes with, by name: the engine (see engines_trm) and the precision, for its records."""

import torch

from ..engines_trm import int8_rest, packing_missing
from ..modeling_trm import TRMForGridReasoning


def engine_name(model: TRMForGridReasoning, engine: str) -> str:
    """The engine itself, and what `choose_engine` takes for "auto" here and now."""
    if engine != "auto":
        return engine
    return "packed" if packing_missing(model) is None else "eager"


def precision(model: TRMForGridReasoning, engine: str = "auto") -> str:
    """What is computed in here and now: the engine's own type, autocast's where autocast is on, else the weights'."""
    if engine == "bfloat16":
        return engine
    if engine == "int8":
        return f"int8 with {str(int8_rest()).removeprefix('torch.')}"
    device = model.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
    return str(dtype).removeprefix("torch.")
