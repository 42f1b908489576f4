"""Diagnose a model on puzzles: observe it in batches, and put what was seen into JSON-ready figures."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..evaluation.puzzles import Puzzles, check_puzzles_fit, tensors_of
from ..modeling_trm import TRMForGridReasoning
from ..utils.intervals import wilson_interval
from .calibration import calibrate
from .collapse import find_warnings
from .observation import CYCLE, STEP, UPDATE, Moment, Observation, observe

BATCH = 16


def observe_puzzles(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    max_steps: int | None = None,
    *,
    batch_size: int = BATCH,
    progress: bool = True,
) -> Observation:
    """`observe` over all puzzles. Raises ValueError when the model does not fit them, or they are none."""
    check_puzzles_fit(model, puzzles)
    parts = []
    with tqdm(total=len(puzzles), desc="observing", unit="puzzle", disable=not progress) as bar:
        for start in range(0, len(puzzles), batch_size):
            batch = tensors_of(puzzles, model.device, slice(start, start + batch_size))
            parts.append(observe(model, *batch, max_steps))
            bar.update(len(batch[0]))
    return Observation.join(parts)


def summarise_observation(observation: Observation) -> dict[str, Any]:
    """Means over the puzzles for every step, cycle and update; calibration of the halting head; warnings.

    A mean is that of the finite values, None without any; `dead_unsolved` is the share of dead ones among the puzzles
    that were not right before, None when all were; calibration is None without labels.
    """
    steps = observation.level(STEP)
    calibration = None
    if "exact" in steps[0].values:
        probabilities, right = (
            torch.cat([moment.values[name] for moment in steps]).numpy() for name in ("halt_probability", "exact")
        )
        calibration = calibrate(probabilities, np.asarray(right) == 1)
    return {
        "puzzles": observation.answers.shape[1],
        "steps": [summarise_moment(moment) for moment in steps],
        "cycles": [summarise_moment(moment) for moment in observation.level(CYCLE)],
        "updates": [summarise_moment(moment) for moment in observation.level(UPDATE)],
        "calibration": calibration,
        "warnings": find_warnings(observation),
    }


def summarise_moment(moment: Moment) -> dict[str, Any]:
    numbers = {"step": moment.step, "H_cycle": moment.H_cycle, "L_cycle": moment.L_cycle}
    row: dict[str, Any] = {name: number for name, number in numbers.items() if name == "step" or number is not None}
    row |= {name: _mean(values) for name, values in moment.values.items() if name != "exact_before"}
    if "exact" in moment.values:
        exact_B = moment.values["exact"]
        row["exact_ci95"] = wilson_interval(int(exact_B.sum()), len(exact_B))
        row["dead_unsolved"] = _mean(moment.values["dead"][moment.values["exact_before"] == 0])
    return row


def _mean(values: Tensor) -> float | None:
    mean = float(values[values.isfinite()].mean())
    return mean if math.isfinite(mean) else None  # the mean of no value at all is NaN
