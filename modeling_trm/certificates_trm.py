"""Answers with a certificate: what makes one certain, and attempts in turn until one is.

A model that answers every puzzle is sometimes wrong. With a certificate it says "not sure" instead, unless the rules of
the puzzle hold, or its halt probability is above a threshold (calibrated on other puzzles: evaluation/certificates).

Shapes: B puzzles, K attempts of each, n of them open, L cells.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .reasoning_config_trm import RULES, ReasoningConfig
from .trajectories_trm import Trajectories, Verifier, verdicts

NOT_RUN: Any = Trajectories(0, -torch.inf, torch.inf, 0)  # type: ignore[arg-type]  # a number for all entries

Run = Callable[[Tensor, int], Trajectories]  # rows [n] of the puzzles, number of the attempt -> fields [n, L] and [n]


class Attempts(NamedTuple):
    """ended: fields [B, K, L] and [B, K], what was not run as NOT_RUN. certain: bool [B]. tried: int64 [B], run."""

    ended: Trajectories
    certain: Tensor
    tried: Tensor


def is_certain(
    rows_n: Tensor, ended: Trajectories, input_ids: Tensor, config: ReasoningConfig, verifier: Verifier | None
) -> Tensor:
    """Whether the answers to the puzzles `rows_n` of input_ids [B, L] have the config's certificate: bool [n].

    A halt probability that is NaN is above none.
    """
    if config.certificate == RULES:
        assert verifier is not None
        return verdicts(verifier, input_ids[rows_n.to(input_ids.device)], ended.answers)
    return ended.halt_logits.double() > config.certain_logit  # in float64: a probability near 1 is a large logit


def attempt_until_certain(run: Run, judge: Callable[[Tensor, Trajectories], Tensor], B: int, K: int) -> Attempts:
    """Attempt 0 of all puzzles, then the next one of those that none before made certain.

    Args:
        judge: rows [n] of the puzzles and how their attempt ended -> is it certain, bool [n].
    """
    open_n = torch.arange(B)
    first = run(open_n, 0)
    ended = Trajectories(
        *(
            torch.full((B, K, *field.shape[1:]), value, dtype=field.dtype, device=field.device)
            for field, value in zip(first, NOT_RUN)
        )
    )
    certain, tried = torch.zeros(B, dtype=torch.bool), torch.zeros(B, dtype=torch.long)
    for k in range(K):
        now = first if k == 0 else run(open_n, k)
        for kept, field in zip(ended, now):
            kept[open_n.to(kept.device), k] = field
        tried[open_n] = k + 1
        certain[open_n] = judge(open_n, now).cpu()
        open_n = open_n[~certain[open_n]]
        if len(open_n) == 0:
            break
    device = first.answers.device
    return Attempts(ended, certain.to(device), tried.to(device))
