"""What one update of the latents did: measures of the answer distribution, of the latents, and of their change.

Sources: effective rank, Roy & Vetterli, "The effective rank" (2007); advantage margin, arXiv 2511.16886.
All are computed in float64 (float32 on MPS, which has no float64).

Shapes: B puzzles, L cells, V vocabulary, S positions (prefix and cells), D hidden.
"""

import torch
from torch import Tensor

from ..losses_trm import wide


def mean_over(values_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """[B], the mean over the cells of the mask; 0 for a puzzle without any. What is NaN outside the mask stays out."""
    return torch.where(mask_BL, values_BL, 0).sum(-1) / mask_BL.sum(-1).clamp(min=1)


def entropy(logits_BLV: Tensor) -> Tensor:
    """[B, L], -sum p log p of softmax(logits), in nats: 0 (sure) to log V (all tokens alike)."""
    log_p = wide(logits_BLV).log_softmax(-1)
    return -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(-1)  # 0 * -inf would be NaN


def confidence(logits_BLV: Tensor) -> Tensor:
    """[B, L], the probability of the likeliest token."""
    return wide(logits_BLV).softmax(-1).amax(-1)


def rms(z_BSD: Tensor) -> Tensor:
    """[B], root of the mean square over positions and channels."""
    return wide(z_BSD).flatten(1).square().mean(1).sqrt()


def effective_rank(z_BSD: Tensor) -> Tensor:
    """[B], exp of the entropy of the singular values divided by their sum: 1 (all positions alike) to min(S, D).

    The fields of a latent [B, K, S, D] count as positions.

    The singular values are roots of the eigenvalues of the smaller Gram matrix, which is faster than an SVD; those
    that rounding alone can make, below about 1e-6 of the largest, count as 0. NaN where the latent is not finite.
    """
    z = wide(z_BSD).flatten(1, -2)
    finite_B = z.flatten(1).isfinite().all(1)
    z = torch.where(finite_B[:, None, None], z, 0)  # the eigenvalues of NaN are an error
    gram = z @ z.mT if z.shape[1] <= z.shape[2] else z.mT @ z
    eigenvalues = torch.linalg.eigvalsh(gram)
    noise = 10 * gram.shape[-1] * torch.finfo(z.dtype).eps * eigenvalues.amax(-1, keepdim=True)
    singular = torch.where(eigenvalues > noise, eigenvalues, 0).sqrt()
    p = singular / singular.sum(-1, keepdim=True)
    return torch.where(finite_B, torch.exp(-torch.xlogy(p, p).sum(-1)), torch.nan)


def cosine(after_BSD: Tensor, before_BSD: Tensor) -> Tensor:
    """[B], of the whole latents, all positions and channels as one vector."""
    return torch.cosine_similarity(wide(after_BSD).flatten(1), wide(before_BSD).flatten(1), dim=1)


def relative_distance(after_BSD: Tensor, before_BSD: Tensor) -> Tensor:
    """[B], |after - before| / |after|, the fixed-point residual: 0 where an update changes nothing any more."""
    after, before = wide(after_BSD).flatten(1), wide(before_BSD).flatten(1)
    return (after - before).norm(dim=1) / after.norm(dim=1)


def advantage_margin(before_BLV: Tensor, after_BLV: Tensor, labels_BL: Tensor, w: float = 0.0) -> Tensor:
    """[B, L], dl[label] - E_{a ~ softmax(l_w)} dl[a], dl = after - before, l_w = before + w dl.

    The cross-entropy of l_w falls along w at this rate, dL/dw = -AM, and is convex in w. So what the update gains lies
    between AM(w=1) and AM(w=0), and with AM(w=0) <= 0 the update cannot have gained anything: it is dead.

    Args:
        labels_BL: token ids; whatever a cell without a label holds, its value means nothing.
    """
    before, after = wide(before_BLV), wide(after_BLV)
    dl = after - before
    of_label = dl.gather(-1, labels_BL.clamp(min=0)[..., None]).squeeze(-1)
    return of_label - ((before + w * dl).softmax(-1) * dl).sum(-1)
