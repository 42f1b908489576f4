"""Warnings in words: numbers that are no numbers, and latents or answers that collapse before they are right.

Collapse is what a loop does that feeds on itself (arXiv 2602.12078, section on normalisation; the "static" of recursive
Mamba loops): the answers freeze or the latents of all positions become alike while the puzzle is unsolved.
"""

import torch
from torch import Tensor

from .observation import STEP, Observation

# A puzzle collapses when a measure falls below this fraction of its own largest value in an earlier step.
FRACTIONS = {"entropy": 0.05, "z_H_effective_rank": 0.5, "z_L_effective_rank": 0.5}
NAMES = {
    "entropy": "the entropy of the answer",
    "z_H_effective_rank": "the effective rank of z_H",
    "z_L_effective_rank": "the effective rank of z_L",
}
MIN_SHARE = 0.1  # of the unsolved puzzles; fewer are no news


def find_warnings(observation: Observation) -> list[str]:
    """One sentence for each thing that is wrong, none is good news; without labels only of values not finite."""
    steps = observation.level(STEP)
    found = []
    for name in steps[0].values:
        bad_BT = ~torch.stack([moment.values[name] for moment in steps], dim=1).isfinite()
        if bad_BT.any():
            first = int(bad_BT.any(0).int().argmax()) + 1
            found.append(
                f"{name} is NaN or infinite on {int(bad_BT.any(1).sum())} of {len(bad_BT)} puzzles, from step {first}: "
                "the recursion has diverged."
            )
    if "exact" in steps[0].values:
        wrong_BT = torch.stack([moment.values["exact"] for moment in steps], dim=1) == 0
        for name, fraction in FRACTIONS.items():
            if name in steps[0].values:
                values_BT = torch.stack([moment.values[name] for moment in steps], dim=1)
                found += _collapse(name, fraction, values_BT, wrong_BT)
    return found


def _collapse(name: str, fraction: float, values_BT: Tensor, wrong_BT: Tensor) -> list[str]:
    """A collapse counts only in a puzzle that also ends wrong: one that is solved later was not stuck."""
    unsolved_B = wrong_BT[:, -1]
    largest_BT = values_BT.cummax(dim=1).values
    low_BT = (values_BT < fraction * largest_BT) & wrong_BT & unsolved_B[:, None]
    collapsed, unsolved = int(low_BT.any(1).sum()), int(unsolved_B.sum())
    if collapsed == 0 or collapsed < MIN_SHARE * unsolved:
        return []
    first = int(low_BT.any(0).int().argmax()) + 1
    return [
        f"{NAMES[name]} falls below {100 * fraction:g} % of its largest value on {collapsed} of the {unsolved} puzzles "
        f"that end wrong, first at step {first}: the recursion collapses before the answer is right."
    ]
