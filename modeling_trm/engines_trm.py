"""Engines: what `solve` computes its supervision steps with. None changes a weight; they differ in speed and rounding.

"compiled" runs the stack by torch.compile's code, on every device.

"packed", "bfloat16" and "int8" run a view of the model whose matrices are laid out once as oneDNN wants them (x86
CPUs), whose operators make fewer passes over their activations, and whose batches are small enough for the cache. The
view lives for one call of `solve`: packing costs less than a pass of the stack, and no answer is of former weights.
The packed form of an operator is its method `packed`, in the operator's file.

Shapes: B batch, L positions, D hidden.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .compiling_trm import CompiledStack, can_compile
from .layers_trm import rms_norm_over
from .memory_trm import keep_freed_memory
from .packed_linear_trm import (
    ROWS,
    Int8Linear,
    Layer,
    PackedLinear,
    called_as,
    held_as,
    int8_missing,
    kinds,
    with_children,
    with_packed_linears,
)
from .processor_trm import bfloat16_pays, has_bfloat16
from .recursion_trm import RecursionState

ELEMENTS = ROWS * 512  # of a micro-batch's latent: positions times channels

logger = logging.get_logger(__name__)


class Engine(NamedTuple):
    """prepare(model): what is called like the model. missing(model): why that cannot run here, None if it can."""

    prepare: Callable[[Any], Callable[..., Any]]
    missing: Callable[[Any], str | None]


def resolve_engine(model: Any, name: str) -> str:
    """The name of the engine itself: "auto" is the fastest of the model's own precision, here and now.

    What was put on or around the layers is a reason for the slower one, and is told once.
    """
    if name != "auto":
        return name
    reason = packing_missing(model)
    if reason is not None and reason == changed(model):
        logger.warning_once(f"engine='auto' takes 'eager', the model itself: {reason}")
    return "packed" if reason is None else "eager"


def choose_engine(model: Any, name: str) -> Callable[..., Any]:
    """What is called like `model`, by a name of ENGINES or "auto".

    Raises:
        ValueError: an unknown name, or an engine that cannot run this model on this machine.
    """
    name = resolve_engine(model, name)
    if name not in ENGINES:
        raise ValueError(f"engine={name!r} is unknown; allowed: auto, {', '.join(ENGINES)}")
    reason = ENGINES[name].missing(model)
    if reason is not None:
        raise ValueError(f"engine={name!r} cannot run here: {reason}; allowed everywhere: auto, eager")
    return ENGINES[name].prepare(model)


def packing_missing(model: Any) -> str | None:
    dtype = _packed_in(model)
    if dtype == torch.bfloat16:
        return bfloat16_missing(model)
    wrong = None if dtype == torch.float32 else f"the model computes in {dtype}, it is for float32 and bfloat16 alone"
    return _view_missing(model) or wrong


def bfloat16_missing(model: Any) -> str | None:
    return _view_missing(model) or (None if has_bfloat16() else "this processor has no bfloat16 instructions")


def _view_missing(model: Any) -> str | None:
    if model.device.type != "cpu":
        return f"the model is on {model.device}, it is for the CPU alone"
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return "this PyTorch has no oneDNN, or torch.backends.mkldnn is switched off"
    capability = torch.backends.cpu.get_cpu_capability()
    if not capability.startswith("AVX"):
        return f"it needs an x86 processor with AVX2, this one has {capability}"
    return changed(model)


def changed(model: Any) -> str | None:
    """What was put on or around the layers, which an engine that reads their weights would pass over; None for nothing.

    Hooks of the whole model, and what is around its embeddings and heads, every engine runs.
    """
    reason = called_otherwise(model)
    if reason is not None:
        return reason
    stack = model.model.stack
    now = kinds(stack)
    for name in stack.made_of | now:
        made, found = stack.made_of.get(name), now.get(name)
        if made is not found:
            return (
                f"model.model.stack.{name} was made as {_full_name(made)} and is {_full_name(found)} now, and it would "
                f"compute with bare weights: make it what it was (of LoRA by peft: merge_and_unload())"
            )
    return _first_reason(stack, held_as, "model.model.stack")


def called_otherwise(model: Any) -> str | None:
    """What runs when the layers are called besides the forward of their classes; None for nothing."""
    if "forward" in vars(model):
        return (called_as(model) or "").format("model")
    return _first_reason(model.model, called_as, "model.model")


def _full_name(cls: type | None) -> str:
    return "nothing" if cls is None else f"{cls.__module__}.{cls.__qualname__}"


def _first_reason(module: nn.Module, why: Callable[[nn.Module], str | None], path: str) -> str | None:
    found = ((name, why(part)) for name, part in module.named_modules())
    return next((reason.format(f"{path}.{name}".rstrip(".")) for name, reason in found if reason is not None), None)


def int8_rest() -> torch.dtype:
    """What the engine "int8" computes everything but its linear layers in, on this processor."""
    return torch.bfloat16 if bfloat16_pays() else torch.float32


def _precision(model: Any) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else model.dtype


def _packed_in(model: Any) -> torch.dtype:
    """What the engine "packed" multiplies in: weights in bfloat16 in float32, where that is the faster of the two."""
    dtype, asked_for = _precision(model), torch.is_autocast_enabled("cpu")
    return torch.float32 if dtype == torch.bfloat16 and not asked_for and not bfloat16_pays() else dtype


def eager(model: Any) -> Callable[..., Any]:
    """The model itself: what training computes, on every device."""
    return model


def packed(model: Any) -> Callable[..., Any]:
    """oneDNN's layout and micro-batches, in the precision that the model has here and now.

    Weights in bfloat16 are multiplied in float32 where the processor has no instructions for them, or slow ones: there
    PyTorch's own products take twelve times as long (AVX2), and what a step passes on is bfloat16 all the same.
    """
    dtype, stack = _packed_in(model), model.model.stack
    linear = partial(PackedLinear, dtype=dtype)
    if dtype == _precision(model):
        return _with_stack(model, PackedStack(stack, dtype, linear))
    return _with_stack(model, WiderStack(PackedStack(copy.deepcopy(stack).to(dtype), dtype, linear), dtype))


def bfloat16(model: Any) -> Callable[..., Any]:
    """As packed, in bfloat16 whatever the model's precision: the same accuracy over many puzzles, not each answer."""
    with torch.autocast("cpu", torch.bfloat16):
        inner = packed(model)

    def step(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return inner(*args, **kwargs)

    return step


def int8(model: Any) -> Callable[..., Any]:
    """The linear layers in 8 bits, products of activations in bfloat16 (float32 where that does not pay).

    The same accuracy over many puzzles, not each answer. It pays for wide layers: at 512 channels, not at 96. The step
    sizes of Mamba-2 keep their precision; of an operator of a user's own every linear layer is in 8 bits.
    """
    dtype = int8_rest()
    return _with_stack(model, PackedStack(model.model.stack, dtype, partial(Int8Linear, dtype=dtype)))


def compiled(model: Any) -> Callable[..., Any]:
    """The stack by torch.compile, on any device, in the precision that the model has here and now.

    Half a minute of compiling at the first call, and once more at a second size of batch; for thousands of puzzles.
    """
    return with_children(model, model=with_children(model.model, stack=CompiledStack(model.model.stack)))


def compiling_missing(model: Any) -> str | None:
    return called_otherwise(model) if can_compile(model.device) else "torch.compile finds no compiler here"


def _with_stack(model: Any, stack: "PackedStack | WiderStack") -> Callable[..., Any]:
    keep_freed_memory()
    return with_children(model, model=MicroBatches(with_children(model.model, stack=stack)))


ENGINES = {
    "eager": Engine(eager, lambda model: None),
    "packed": Engine(packed, packing_missing),
    "bfloat16": Engine(bfloat16, bfloat16_missing),
    "int8": Engine(int8, lambda model: _view_missing(model) or int8_missing()),
    "compiled": Engine(compiled, compiling_missing),
}


class MicroBatches(nn.Module):
    """A TRMModel that takes few puzzles at a time, so that their activations stay in the cache."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, puzzle_ids: Tensor | None, state: RecursionState, *args: Any, **kwargs: Any
    ) -> RecursionState:
        parts, size = [], max(1, ELEMENTS // math.prod(state.z_H.shape[1:]))
        for rows in torch.arange(len(input_ids)).tensor_split(max(1, -(-len(input_ids) // size))):
            puzzles = None if puzzle_ids is None else puzzle_ids[rows]
            parts.append(self.model(input_ids[rows], puzzles, state.select(rows), *args, **kwargs))
        return RecursionState.join(parts)


class PackedStack(nn.Module):
    """As Stack, with the packed form of each operator, its products of activations in `dtype`."""

    def __init__(self, stack: Any, dtype: torch.dtype, linear: Layer) -> None:
        super().__init__()
        self.prepare, self.eps = stack.prepare, stack.eps
        self.operators = [(_packed(operator, dtype, linear), frame) for operator, frame in stack.in_frames()]

    def forward(self, h: Tensor, prepared: Sequence[tuple[Tensor, ...]]) -> Tensor:
        for (operator, frame), own in zip(self.operators, prepared):
            h = rms_norm_over(h + frame.apply(operator, h, *own), self.eps, frame.norm_dim).to(h.dtype)
        return h


class WiderStack(nn.Module):
    """A stack that computes in `dtype`, its latents in and out as they are."""

    def __init__(self, stack: PackedStack, dtype: torch.dtype) -> None:
        super().__init__()
        self.prepare, self.stack, self.dtype = stack.prepare, stack, dtype

    def forward(self, h: Tensor, prepared: Sequence[tuple[Tensor, ...]]) -> Tensor:
        return self.stack(h.to(self.dtype), prepared).to(h.dtype)


def _packed(operator: Any, dtype: torch.dtype, linear: Layer) -> Callable[..., Tensor]:
    """The form that the operator's own class has; one that it inherits would not compute what a subclass changed."""
    form = vars(type(operator)).get("packed")
    return with_packed_linears(operator, linear) if form is None else form(operator, dtype, linear)
