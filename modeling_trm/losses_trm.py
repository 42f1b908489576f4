"""Losses and targets of a supervision step. Source: arXiv 2510.04871 section 2 and the public code's models/losses.py;
targets on a path: arXiv 2511.16886.

Shapes: B batch, L positions, V vocabulary. Every loss is returned per sequence, [B]; callers average.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100


def log_stablemax(logits: Tensor) -> Tensor:
    """log(s(x) / sum s), s(x) = x + 1 for x >= 0 and 1 / (1 - x) below (arXiv 2501.04697), over the last axis."""
    # log s = +-log(1 + |x|), written without abs: its gradient is 1 at 0, and no branch sees the other's infinity.
    below = logits < 0
    log_s = torch.log1p(torch.where(below, -logits, logits)) * torch.where(below, -1, 1)
    return log_s - torch.logsumexp(log_s, dim=-1, keepdim=True)


def wide(values: Tensor) -> Tensor:
    """The values in the widest floating-point type that their device has: float64, on MPS float32."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def stablemax_cross_entropy(logits_BLV: Tensor, labels_BL: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sum over a sequence's labels divided by their number, [B]; in float64 as the reference (on MPS in float32)."""
    return _mean_over_labels(log_stablemax(wide(logits_BLV)), labels_BL, label_smoothing)


def softmax_cross_entropy(logits_BLV: Tensor, labels_BL: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The ordinary cross-entropy, averaged over each sequence's labels, [B]; in float32 at least."""
    wide = torch.promote_types(logits_BLV.dtype, torch.float32)
    return _mean_over_labels(logits_BLV.to(wide).log_softmax(-1), labels_BL, label_smoothing)


TOKEN_LOSSES = {"stablemax": stablemax_cross_entropy, "softmax": softmax_cross_entropy}


def is_exact(logits_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    """True where every labelled position is predicted right, [B]."""
    return ((logits_BLV.argmax(-1) == labels_BL) | (labels_BL == IGNORE_INDEX)).all(-1)


def halting_loss(halt_logits_B: Tensor, exact_B: Tensor) -> Tensor:
    """Binary cross-entropy of "this answer is exactly right now", [B]."""
    wide = halt_logits_B.to(torch.promote_types(halt_logits_B.dtype, torch.float32))
    return F.binary_cross_entropy_with_logits(wide, exact_B.to(wide.dtype), reduction="none")


def improvement_target(inputs_BL: Tensor, labels_BL: Tensor, order_BL: Tensor, step: int, steps: int) -> Tensor:
    """What supervision step 1..steps is to answer on the path from the puzzle to its label, [B, L].

    Deep improvement supervision (arXiv 2511.16886): of the n labelled cells where the two differ, the first
    floor(step * n / steps) by `order_BL` (any numbers, distinct in a row) are the label's, the others still the
    puzzle's; the last step's target is the label. A cell that is given, and so equal in both, never changes.
    Deviation from the public code: a cell without label is not on the path, so that padding takes no share of it.
    """
    differs = (inputs_BL != labels_BL) & (labels_BL != IGNORE_INDEX)
    rank_BL = order_BL.masked_fill(~differs, float("inf")).argsort(-1).argsort(-1)
    filled_B1 = step * differs.sum(-1, keepdim=True) // steps
    return torch.where(differs & (rank_BL >= filled_B1), inputs_BL, labels_BL)


def _mean_over_labels(log_p_BLV: Tensor, labels_BL: Tensor, label_smoothing: float) -> Tensor:
    mask_BL = labels_BL != IGNORE_INDEX
    target_BL = labels_BL.masked_fill(~mask_BL, 0).long()
    loss_BL = -log_p_BLV.gather(-1, target_BL[..., None]).squeeze(-1)
    if label_smoothing:
        loss_BL = (1 - label_smoothing) * loss_BL - label_smoothing * log_p_BLV.mean(-1)
    # A sequence without labels costs nothing instead of 0 / 0.
    return (loss_BL * mask_BL).sum(-1) / mask_BL.sum(-1).clamp(min=1)
