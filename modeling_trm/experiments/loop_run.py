"""One arm of the loop experiment: trained, then measured loop by loop, far beyond the depth it was trained at.

Shapes: B puzzles of a batch, N test puzzles, L cells, D hidden, V vocabulary.
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diagnostics import measures
from ..losses_trm import IGNORE_INDEX
from ..utils.bootstrap import paired_interval, share_interval
from ..utils.intervals import wilson_interval
from .loop_training import Data, Settings, autocast, train
from .loops import Arm, LoopedModel, loop_config

TRAINING_POINTS = 50  # of the loss that are kept


def run_arm(
    name: str, arm: Arm, seed: int, settings: Settings, data: Data, device: torch.device, *, progress: bool = True
) -> dict[str, Any]:
    """Train and measure: the JSON-ready result of one arm and seed."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    model = LoopedModel(loop_config(data.training.processor.vocab_size, data.input_ids.shape[1]), arm)
    model.to(device)  # type: ignore[arg-type]  # transformers' annotation hides nn.Module's
    losses = train(model, seed, settings, data.training, progress=progress, description=f"{name}, seed {seed}")
    trained = time.perf_counter()
    rows, scores = measure(model, settings, data)
    return {
        "arm": name,
        "seed": seed,
        "switches": dataclasses.asdict(arm),
        "settings": dataclasses.asdict(settings),
        "fingerprints": data.fingerprints,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps_trained": len(losses),
        "training_loss": _thinned(losses),
        "loops": rows,
        "beyond": change_beyond(scores, settings),
        "seconds": {"training": trained - started, "measuring": time.perf_counter() - trained},
    }


@torch.no_grad()
def measure(model: LoopedModel, settings: Settings, data: Data) -> tuple[list[dict[str, Any]], dict[int, np.ndarray]]:
    """(a row of figures for each of `measured_loops`, {loop: each test puzzle's share of right blanks, float [N]})."""
    wanted, device = settings.measured_loops(), model.H_init.device
    parts: dict[int, list[dict[str, Tensor]]] = {n: [] for n in wanted}
    for start in range(0, len(data.input_ids), settings.batch_size):
        rows = slice(start, start + settings.batch_size)
        input_ids, labels = data.input_ids[rows].to(device), data.labels[rows].to(device)
        with autocast(device):
            for n, before, after in _pairs(model, input_ids, settings.loops):
                if n in parts:
                    parts[n].append(_measure_loop(model, before, after, labels))
    values = {n: {name: torch.cat([part[name] for part in parts[n]]).cpu() for name in parts[n][0]} for n in wanted}
    return [_row(n, values[n]) for n in wanted], {n: values[n]["cell_accuracy"].numpy() for n in wanted}


def _pairs(model: LoopedModel, input_ids_BL: Tensor, number: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(n, z_{n-1}, z_n); the first loop's predecessor is H_init."""
    before = model.H_init.expand(len(input_ids_BL), model.config.seq_len, -1)
    for n, after in enumerate(model.loops(input_ids_BL, number), start=1):
        yield n, before, after
        before = after


def _measure_loop(model: LoopedModel, before_BLD: Tensor, after_BLD: Tensor, labels_BL: Tensor) -> dict[str, Tensor]:
    """[B] each; see the docstring of `diagnostics.measures`."""
    scored_BL = labels_BL != IGNORE_INDEX
    logits_BLV = model.answer(after_BLD)
    answers_BL, answers_before_BL = logits_BLV.argmax(-1), model.answer(before_BLD).argmax(-1)
    right_BL = answers_BL == labels_BL
    return {
        "cell_accuracy": measures.mean_over(measures.wide(right_BL), scored_BL),
        "exact_accuracy": measures.wide((right_BL | ~scored_BL).all(-1)),
        "changed": measures.mean_over(measures.wide(answers_BL != answers_before_BL), scored_BL),
        "entropy": measures.mean_over(measures.entropy(logits_BLV), scored_BL),
        "rms": measures.rms(after_BLD),
        "effective_rank": measures.effective_rank(after_BLD),
        "cosine": measures.cosine(after_BLD, before_BLD),
        "distance": measures.relative_distance(after_BLD, before_BLD),
        "non_finite": measures.wide(~after_BLD.flatten(1).isfinite().all(1)),
    }


def _row(loop: int, values: dict[str, Tensor]) -> dict[str, Any]:
    """Means over the puzzles, of the finite values; None where there is none."""
    row: dict[str, Any] = {"loop": loop}
    for name, values_N in values.items():
        finite_N = values_N[values_N.isfinite()]
        row[name] = float(finite_N.mean()) if len(finite_N) else None
    exact_N = values["exact_accuracy"]
    row["cell_ci95"] = share_interval(values["cell_accuracy"].numpy())
    row["exact_ci95"] = wilson_interval(int(exact_N.sum()), len(exact_N))
    return row


def change_beyond(scores: dict[int, np.ndarray], settings: Settings) -> dict[str, Any]:
    """Cell accuracy at the last loop minus that at the trained depth, compared puzzle by puzzle."""
    trained_N, final_N = scores[settings.train_loops], scores[settings.loops]
    return {
        "from": settings.train_loops,
        "to": settings.loops,
        "change": float(final_N.mean() - trained_N.mean()),
        "ci95": paired_interval(final_N, trained_N),
    }


def _thinned(losses: list[float]) -> list[dict[str, Any]]:
    """Means of at most TRAINING_POINTS equal stretches of the run, each at its last step."""
    stretches = np.array_split(np.arange(len(losses)), min(TRAINING_POINTS, max(1, len(losses))))
    return [{"step": int(s[-1]) + 1, "loss": float(np.mean([losses[i] for i in s]))} for s in stretches if len(s)]
