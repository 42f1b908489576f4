"""How far an exported supervision step is from PyTorch's own.

Two figures, each the largest difference over the largest magnitude (at least 1) of any output, over several batch
sizes and successive supervision steps: `one_step`, from the same latents, says whether the graph is right and must
be within TOLERANCE; `chained`, from its own latents, is a matter of the model as well, since a recursion that does not
contract (one with random weights) multiplies every rounding error from step to step. A trained model of many cycles
does so within a step; then PyTorch's own rounding error is the measure of what is allowed.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..modeling_trm import TRMForGridReasoning
from .programs import Step, example_inputs

TOLERANCE = 1e-4  # float32; rounding in another order gives 1e-7 to 1e-5
# Times PyTorch's own error. Each is the largest of many that were multiplied by the same recursion, in another order of
# summation: of a model with 21 passes of its stack a step, onnxruntime's was 8 times PyTorch's.
ROUNDING_FACTOR = 20
BATCH_SIZES, STEPS = (1, 3), 4  # none of them the batch that was traced

Runner = Callable[[Sequence[Tensor]], list[Tensor]]


class ExportError(ValueError):
    """An export that does not compute what the model computes, or cannot be made; the message is one line."""


def onnx_runner(path: Path) -> Runner:
    """The step of an ONNX file, run by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        values = {name: value.cpu().numpy() for name, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(value) for value in session.run(None, values)]

    return run


def program_runner(path: Path) -> Runner:
    """The step of a file of torch.export."""
    step = torch.export.load(path).module()
    return lambda inputs: list(step(*inputs))


@torch.no_grad()
def differences(model: TRMForGridReasoning, run: Runner) -> dict[str, float]:
    """{"one_step": ..., "chained": ...} of the module's docstring."""
    step = Step(model)
    with model.portable_kernels():  # as it was exported: kernels for CUDA round otherwise, or cannot run here
        return _differences(model, step, run)


def _differences(model: TRMForGridReasoning, step: Step, run: Runner) -> dict[str, float]:
    largest = {"one_step": 0.0, "chained": 0.0}
    for batch_size in BATCH_SIZES:
        puzzles, latents = example_inputs(model, batch_size)[:2], example_inputs(model, batch_size)[2:]
        own = latents
        for _ in range(STEPS):
            expected = step(*puzzles, *latents)
            for name, given in (("one_step", latents), ("chained", own)):
                found = run([*puzzles, *given])
                largest[name] = max(largest[name], *map(_relative, found, expected))
            latents, own = expected[2:], tuple(found[2:])
    return largest


@torch.no_grad()
def rounding(model: TRMForGridReasoning) -> float:
    """How far PyTorch's first step in the model's precision is from the same one in float64; as `one_step`."""
    step, exact, largest = Step(model), Step(copy.deepcopy(model).double()), 0.0
    with model.portable_kernels(), exact.model.portable_kernels():
        for batch_size in BATCH_SIZES:
            inputs = example_inputs(model, batch_size)
            wide = [value.double() if value.is_floating_point() else value for value in inputs]
            largest = max(largest, *map(_relative, step(*inputs), exact(*wide)))
    return largest


def check(model: TRMForGridReasoning, run: Runner) -> dict[str, float]:
    """The differences, and as `tolerance_of_one_step` what was allowed. Raises ExportError when one step is over it."""
    found, allowed = differences(model, run), TOLERANCE
    if found["one_step"] > allowed:
        allowed = max(allowed, ROUNDING_FACTOR * rounding(model))
    if found["one_step"] > allowed:
        raise ExportError(
            f"the exported step differs from PyTorch's by {found['one_step']:.1e} of the largest value; "
            f"allowed: {allowed:.0e}. Nothing was written"
        )
    return found | {"tolerance_of_one_step": allowed}


def _relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.cpu().double(), expected.cpu().double()
    if found.shape != expected.shape or not found.isfinite().all():
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
