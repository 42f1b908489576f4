"""Run a model on every view of every test input and keep the votes, in chunks that survive a kill.

Source: TRM (arXiv 2510.04871), public evaluator. Work items are ordered view by view (view 0 of all inputs first), so
that an evaluation broken off has seen every input. A chunk is a fixed range of items and is run in the same batches
whoever runs it: the records do not depend on the number of processes or on how often the evaluation was resumed.

Shapes: N test inputs, V views, B batch, L positions.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..configuration_trm import KERNELS, TRMConfig
from ..engines_trm import choose_engine
from ..evaluation.engine import computed_with, in_evaluation_mode
from ..evaluation.runner import EVERY_STEP
from ..modeling_trm import TRMForGridReasoning
from ..reasoning_config_trm import ReasoningConfig
from ..utils.loading import check_model_fits
from .folder import (
    FORMAT,
    Vote,
    begin_folder,
    chunk_items,
    chunks_done,
    fingerprint_inputs,
    num_chunks,
    write_chunk,
)
from .views import Views

CHUNK_SIZES = (64, 2048)  # what a kill can cost, and what processes can share, in items
CHUNKS_WANTED = 64


def collect_votes(
    model: TRMForGridReasoning,
    views: Views,
    folder: str | Path,
    reasoning_config: ReasoningConfig = EVERY_STEP,
    *,
    batch_size: int = 64,
    chunk_size: int | None = None,
    shard: tuple[int, int] = (0, 1),
    manifest: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    **options: Any,
) -> bool:
    """Write the votes of this process's chunks that the folder does not hold yet; True when all chunks are there.

    Args:
        folder: where to write; see `folder`. Several processes may share it.
        reasoning_config: how each view is solved, plainly; not the checkpoint's own, as in `evaluate_puzzles`.
        chunk_size: items of a chunk: what a kill can cost. Default: a 64th of all, between 64 and 2048.
        shard: (i, n): take the chunks whose number modulo n is i.
        manifest: what else to note in the folder: the model's name, hardware, versions.
        device: where to run; the model is moved there. Its own device when None.
        options: fields of ReasoningConfig, in the place of reasoning_config's.

    Raises:
        TypeError: an unknown option.
        ValueError: for a search at test time, sizes out of range, an engine that is unknown or cannot run here, a
            model of another size or vocabulary than the grids, or a folder begun by another evaluation (naming the
            field that differs).
    """
    config = reasoning_config.updated(**options)
    if config.search:
        raise ValueError(f"votes over views are of plain solving, without a search: {config.search}")
    if config.max_steps is None:
        config = config.updated(max_steps=model.config.halt_max_steps)
    if chunk_size is None:
        chunk_size = int(np.clip(views.views_of_input.sum() // CHUNKS_WANTED, *CHUNK_SIZES))
    for name, value in (("batch_size", batch_size), ("chunk_size", chunk_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard={shard} must be (i, n) with 0 <= i < n")
    check_model_fits(model, views.processor)
    if device is not None:
        torch.nn.Module.to(model, device)
    folder = Path(folder)
    choose_engine(model, config.engine)  # before anything is written
    facts = dict(manifest or {}) | evaluation_facts(model, views, config, chunk_size)
    begin_folder(folder, facts, views.inputs)
    with in_evaluation_mode(model):
        _run_chunks(model, views, folder, facts, batch_size, shard, progress, config)
    return len(chunks_done(folder)) == num_chunks(facts)


def evaluation_facts(
    model: TRMForGridReasoning, views: Views, config: ReasoningConfig, chunk_size: int
) -> dict[str, Any]:
    """The manifest's fields by which two folders are known to belong to one evaluation, and the engine.

    The engine, of the process that begins the folder, is no such field: machines that share an evaluation may have
    different ones, equal but for rounding.
    """
    return {
        "format": FORMAT,
        "task": views.task,
        "protocol": views.protocol,
        "data_fingerprint": fingerprint_inputs(views.inputs),
        "views_fingerprint": views.fingerprint,
        "weights_sha256": model_sha256(model),
        "max_steps": config.max_steps,
        "halt": True if config.halt == 0.5 else config.halt,  # one rule, two names
        **computed_with(model, config.engine),
        "num_views": int(views.views_of_input.max()),
        "num_items": int(views.views_of_input.sum()),
        "chunk_size": chunk_size,
    }


def model_sha256(model: TRMForGridReasoning) -> str:
    """SHA-256 of the parameters, buffers and architecture, as loaded: the rows of the puzzle table that are there."""
    fields = {name: vars(model.config)[name] for name in TRMConfig.__annotations__ if name not in KERNELS}
    fields["ssd_backend"] = "auto"  # it counted once; folders begun then can be gone on with
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def locate_items(views_of_input: np.ndarray, items: range) -> list[tuple[int, int]]:
    """(input, view) of consecutive work items, view-major: view 0 of all inputs, then view 1 of those that have it."""
    # sizes[v]: inputs with more than v views. No array of the length of all items is made.
    sizes = len(views_of_input) - np.cumsum(np.bincount(views_of_input))[:-1]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    located: list[tuple[int, int]] = []
    first = items.start
    while first < items.stop:
        view = int(np.searchsorted(starts, first, side="right")) - 1
        last = min(items.stop, int(starts[view + 1]))
        members = np.flatnonzero(views_of_input > view)[first - starts[view] : last - starts[view]]
        located += [(number, view) for number in members.tolist()]
        first = last
    return located


def _run_chunks(
    model: TRMForGridReasoning,
    views: Views,
    folder: Path,
    facts: Mapping[str, Any],
    batch_size: int,
    shard: tuple[int, int],
    progress: bool,
    config: ReasoningConfig,
) -> None:
    index, count = shard
    mine = range(index, num_chunks(facts), count)
    done = chunks_done(folder)
    with tqdm(
        total=sum(len(chunk_items(facts, number)) for number in mine),
        initial=sum(len(chunk_items(facts, number)) for number in mine if number in done),
        desc="voting" if count == 1 else f"voting, shard {index} of {count}",
        unit="view",
        smoothing=0.05,
        disable=not progress,
    ) as bar:
        for number in mine:
            if number not in done:
                write_chunk(folder, number, _run_chunk(model, views, facts, number, batch_size, config, bar))


def _run_chunk(
    model: TRMForGridReasoning,
    views: Views,
    facts: Mapping[str, Any],
    number: int,
    batch_size: int,
    config: ReasoningConfig,
    bar: Any,
) -> list[Vote]:
    items = locate_items(views.views_of_input, chunk_items(facts, number))
    votes: list[Vote] = []
    # Batches of nearly equal size: a short last one would make a compiled stack compile once more.
    for rows in np.array_split(np.arange(len(items)), -(-len(items) // batch_size)):
        batch = [items[row] for row in rows]
        votes += _run_batch(model, views, batch, config)
        bar.update(len(batch))
    return votes


def _run_batch(
    model: TRMForGridReasoning,
    views: Views,
    items: list[tuple[int, int]],
    config: ReasoningConfig,
) -> list[Vote]:
    input_ids_BL, puzzle_ids_B = views.batch(items)
    input_ids = torch.from_numpy(input_ids_BL).to(model.device).long()
    puzzle_ids = torch.from_numpy(puzzle_ids_B).to(model.device) if model.config.puzzle_prefix_len else None
    solved = model.solve(input_ids, puzzle_ids, config)
    # One transfer for the batch: answers, probability and steps side by side as bytes.
    parts = (
        solved.answers.to(torch.uint8),
        solved.halt_probability.float()[:, None].view(torch.uint8),
        solved.steps.to(torch.int32)[:, None].view(torch.uint8),
    )
    bytes_B = torch.cat(parts, dim=1).cpu().numpy()
    length = input_ids_BL.shape[1]
    probabilities = np.ascontiguousarray(bytes_B[:, length : length + 4]).view(np.float32)[:, 0].tolist()
    steps = np.ascontiguousarray(bytes_B[:, length + 4 :]).view(np.int32)[:, 0].tolist()
    return [
        Vote(number, view, views.undo(number, view, answer_L), probability, taken)
        for (number, view), answer_L, probability, taken in zip(
            items, bytes_B[:, :length], probabilities, steps, strict=True
        )
    ]
