"""A supervision step, and what it is made of, as torch.export programs.

Inputs and outputs of a step, in this order (z_L is absent with a single latent):
    input_ids [B, L], puzzle_ids [B], z_H [B, S, D], z_L [B, S, D]
    -> logits [B, L, V], halt_logits [B], next z_H [B, S, D], next z_L [B, S, D]

Shapes: B batch (free), L cells, S = prefix + L positions, D hidden, V vocabulary. With symbol fields a latent is
[B, K, S, D].
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..modeling_trm import TRMForGridReasoning
from ..recursion_trm import RecursionState
from ..utils.files import write_bytes

EXAMPLE_BATCH = 2  # traced with; 1 would be taken for a constant
BATCH = "batch"


class Step(nn.Module):
    """One supervision step as a function of tensors alone."""

    def __init__(self, model: TRMForGridReasoning) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, puzzle_ids: Tensor, z_H: Tensor, z_L: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        out = self.model(input_ids, puzzle_ids=puzzle_ids, state=RecursionState(z_H, z_L))
        return out.logits, out.halt_logits, *latents(out.state)


class Parts(nn.Module):
    """What a step is made of, the recursion apart: four functions that have nothing to do with each other.

    input_ids [B, L], puzzle_ids [B] -> x [B, S, D];  h -> stack(h) [B, S, D];  z_H -> logits [B, L, V], halt_logits [B]
    """

    def __init__(self, model: TRMForGridReasoning) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, puzzle_ids: Tensor, h: Tensor, z_H: Tensor) -> tuple[Tensor, ...]:
        core = self.model.model
        x = core.embed(input_ids, puzzle_ids, RecursionState(z_H, None))
        return x, core.stack(h), *self.model.read_out(z_H)


def export_step(model: TRMForGridReasoning) -> ExportedProgram:
    """The program of one supervision step, for any batch size; the model stays as it is.

    The weights are the model's own tensors, not copies. Save it with torch.export.save.
    """
    return export(Step(model), example_inputs(model))


def export(module: Step | Parts, examples: tuple[Tensor, ...]) -> ExportedProgram:
    """The module's program, whatever kernels its model runs; the first axis of every input is the free batch."""
    batch = torch.export.Dim(BATCH, min=1)
    with translating(module.model), quiet(), torch.no_grad(), module.model.portable_kernels():
        return torch.export.export(module, examples, dynamic_shapes=tuple({0: batch} for _ in examples))


@contextlib.contextmanager
def translating(model: TRMForGridReasoning) -> Iterator[None]:
    """Where PyTorch's exporter gives up, which an operator of a user's own can make it do: ValueError, in words."""
    try:
        yield
    except Exception as error:
        operators = ", ".join(dict.fromkeys(model.config.block_operators))
        first = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(
            f"PyTorch cannot export one of the operators {operators}: {type(error).__name__}: {first}"
        ) from error


def example_inputs(model: TRMForGridReasoning, batch_size: int = EXAMPLE_BATCH) -> tuple[Tensor, ...]:
    """Inputs of a step: random token ids, the rows of the puzzle table in turn, the initial latents.

    Raises:
        ValueError: for a model that is told its steps or reads its answers; an exported step carries latents alone.
    """
    config, device = model.config, model.device
    for name in ("answer_feedback", "num_step_embeddings"):
        if config.to_dict()[name]:
            raise ValueError(
                f"{name}={config.to_dict()[name]} cannot be exported; an exported step carries latents alone"
            )
    random = torch.Generator().manual_seed(batch_size)
    input_ids = torch.randint(config.vocab_size, (batch_size, config.seq_len), generator=random)
    puzzle_ids = torch.arange(batch_size) % config.num_puzzles
    state = model.initial_state(batch_size).map(Tensor.contiguous)
    return input_ids.to(device), puzzle_ids.to(device), *latents(state)


def latents(state: RecursionState) -> tuple[Tensor, ...]:
    return (state.z_H,) if state.z_L is None else (state.z_H, state.z_L)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters tell their developers (deprecations of their own, packages that they do not find)."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def save_program(program: ExportedProgram, path: Path) -> None:
    """By way of the memory: on a full disk torch.export.save ends the process."""
    content = BytesIO()
    with quiet():
        torch.export.save(program, content)
    write_bytes(path, content.getbuffer())
