"""Losses, one scalar at a time. Sources: stablemax, arXiv 2501.04697; the sum of both, arXiv 2510.04871, section 2.

Shapes: B sequences, L positions, V vocabulary; a label of -100 is no label.
"""

import math

import torch
from torch import Tensor


def stablemax(logits_V: Tensor) -> Tensor:
    """p_i = s(x_i) / sum_j s(x_j), s(x) = x + 1 for x >= 0 and 1 / (1 - x) below."""
    s = torch.stack([x + 1 if x >= 0 else 1 / (1 - x) for x in logits_V])
    return s / s.sum()


def cross_entropy(logits_BLV: Tensor, labels_BL: Tensor, normaliser=stablemax, label_smoothing: float = 0.0) -> Tensor:
    """-log p of the label, summed over a sequence's labels and divided by their number, [B].

    With label smoothing e the target is (1 - e) on the label plus e / V on every token.
    """
    losses = []
    for logits_LV, labels_L in zip(logits_BLV, labels_BL):
        total, count = logits_LV.new_zeros(()), 0
        for logits_V, label in zip(logits_LV, labels_L):
            if label != -100:
                log_p = torch.log(normaliser(logits_V))
                total = total - (1 - label_smoothing) * log_p[label] - label_smoothing * log_p.mean()
                count += 1
        losses.append(total / max(count, 1))
    return torch.stack(losses)


def exact(logits_BLV: Tensor, labels_BL: Tensor) -> list[bool]:
    """Whether every labelled position of a sequence has its largest logit at the label."""
    return [
        all(
            max(range(len(logits)), key=logits.__getitem__) == label
            for logits, label in zip(rows, labels)
            if label != -100
        )
        for rows, labels in zip(logits_BLV.tolist(), labels_BL.tolist())
    ]


def binary_cross_entropy(logit: Tensor, target: bool) -> Tensor:
    """-log sigmoid(logit) if the target holds, else -log(1 - sigmoid(logit))."""
    return torch.log(1 + torch.exp(-logit if target else logit))


def step_loss(logits_BLV: Tensor, halt_logits_B: Tensor, labels_BL: Tensor) -> Tensor:
    """Stablemax cross-entropy of the answer + 0.5 * cross-entropy of "exactly right now", averaged over the batch."""
    halting = [binary_cross_entropy(q, hit) for q, hit in zip(halt_logits_B, exact(logits_BLV, labels_BL))]
    return (cross_entropy(logits_BLV, labels_BL) + 0.5 * torch.stack(halting)).mean()


def scalar_log_stablemax(logits: list[float]) -> list[float]:
    """log p in Python floats, for a check that shares no tensor code with the others."""
    s = [x + 1 if x >= 0 else 1 / (1 - x) for x in logits]
    return [math.log(value / math.fsum(s)) for value in s]


def improvement_path(puzzle: list[int], label: list[int], order: list[float], steps: int) -> list[list[int]]:
    """Frames 0..steps from the puzzle to its label (arXiv 2511.16886), cell by cell; a label of -100 is no label."""
    differing = [cell for cell in range(len(puzzle)) if label[cell] not in (-100, puzzle[cell])]
    differing.sort(key=order.__getitem__)
    frames = []
    for step in range(steps + 1):
        filled = set(differing[: step * len(differing) // steps])
        frames.append([old if cell in differing and cell not in filled else new
                       for cell, (old, new) in enumerate(zip(puzzle, label))])  # fmt: skip
    return frames
