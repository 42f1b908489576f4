"""What computes an evaluation: the model in its mode, and by name, for the records, the engine and the precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..engines_trm import int8_rest, resolve_engine
from ..modeling_trm import TRMForGridReasoning


@contextmanager
def in_evaluation_mode(model: TRMForGridReasoning) -> Iterator[None]:
    """While the block runs; then in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def computed_with(model: TRMForGridReasoning, engine: str) -> dict[str, str]:
    """{engine, precision}. Raises ValueError for an engine that is unknown or cannot run here."""
    return {"engine": resolve_engine(model, engine), "precision": precision(model, engine)}


def precision(model: TRMForGridReasoning, engine: str = "auto") -> str:
    """What is computed in here and now: the engine's own type, autocast's where autocast is on, else the weights'."""
    if engine == "bfloat16":
        return engine
    if engine == "int8":
        return f"int8 with {str(int8_rest()).removeprefix('torch.')}"
    device = model.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
    return str(dtype).removeprefix("torch.")
