"""The precision that an evaluation computes in, by name, for its records; its engine: engines_trm.resolve_engine."""

import torch

from ..engines_trm import int8_rest
from ..modeling_trm import TRMForGridReasoning


def precision(model: TRMForGridReasoning, engine: str = "auto") -> str:
    """What is computed in here and now: the engine's own type, autocast's where autocast is on, else the weights'."""
    if engine == "bfloat16":
        return engine
    if engine == "int8":
        return f"int8 with {str(int8_rest()).removeprefix('torch.')}"
    device = model.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
    return str(dtype).removeprefix("torch.")
