"""What answers with a certificate are worth: right, wrong and withheld answers, and a threshold with a stated error.

All attempts at all puzzles are run once (see certificates_trm: views and trajectories, in turn); what any certificate
would have answered is then counted from the records. An answer is the first attempt that has the certificate.

A threshold of the halt probability is calibrated on puzzles that are not reported on: the lowest of a fixed row of
thresholds, from strict to loose, up to which each one passes an exact binomial test of "the error among the answers
given is above the one stated" (fixed sequence testing; Angelopoulos et al., Learn then Test, arXiv 2110.01052). The
statement holds for puzzles drawn as those of the calibration were.

Shapes: N puzzles, A attempts, B puzzles of a batch, V views, K trajectories of a view, L cells.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..losses_trm import wide
from ..modeling_trm import TRMForGridReasoning
from ..reasoning_config_trm import RULES, ReasoningConfig
from ..trajectories_trm import Verifier, verdicts
from ..utils.intervals import wilson_interval
from ..views_trm import View
from .puzzles import Puzzles, check_puzzles_fit, tensors_of
from .sweep import check_numbers_of_views, each_view, is_right

CONFIDENCE = 0.95
THRESHOLDS = np.arange(30.0, -10.0, -0.1)  # halt logits, from strict to loose; fixed, or the test would be biased
POINTS = 200  # of a risk-coverage curve at most


@dataclass(frozen=True)
class AttemptRecords:
    """right, valid: bool [N, A], the label, and the rules (None where none are known); halt_logits float64 [N, A]."""

    right: np.ndarray
    valid: np.ndarray | None
    halt_logits: np.ndarray

    def __len__(self) -> int:
        return len(self.right)


def record_attempts(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    reasoning_config: ReasoningConfig,
    *,
    verifier: Verifier | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
) -> AttemptRecords:
    """Every attempt at every puzzle, whatever the certificate of the config: views, and trajectories of each.

    Args:
        verifier: the rules, where they are known. seed: of views and noise. batch_size: puzzles that run together.

    Raises:
        ValueError: the model does not fit the puzzles, or the task has not so many views.
    """
    check_puzzles_fit(model, puzzles)
    if reasoning_config.views > 1:
        check_numbers_of_views(puzzles, [reasoning_config.views])
    # Rules that nothing obeys: no attempt is certain, so all are made.
    config = reasoning_config.updated(views=1, certificate=RULES, selection="halt")
    run_all = {"reasoning_config": config, "verifier": lambda ids, answers: torch.zeros(len(ids), dtype=torch.bool)}
    run_all["generator"] = torch.Generator().manual_seed(seed)
    parts = []
    with tqdm(total=len(puzzles), desc="attempts", unit="puzzle", disable=not progress) as bar:
        for start in range(0, len(puzzles), batch_size):
            numbers = range(start, min(start + batch_size, len(puzzles)))
            parts.append(_record_batch(model, puzzles, numbers, reasoning_config.views, seed, run_all, verifier))
            bar.update(len(numbers))
    right, valid, halt_logits = (np.concatenate(fields) for fields in zip(*parts))
    return AttemptRecords(right, None if verifier is None else valid, halt_logits)


def _record_batch(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    numbers: range,
    views: int,
    seed: int,
    run_all: dict[str, Any],
    verifier: Verifier | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """right, valid and halt_logits [B, V * K]."""
    input_ids, puzzle_ids, labels = tensors_of(puzzles, model.device, slice(numbers.start, numbers.stop))
    B, L = input_ids.shape
    starts_BVL = each_view(View.apply, puzzles, numbers, seed, input_ids[:, None].expand(-1, views, -1))
    answers, logits = [], []
    for view in range(views):
        ended = model.solve(starts_BVL[:, view], puzzle_ids, **run_all).trajectories
        assert ended is not None
        K = ended.answers.shape[1]
        repeated_BKVL = ended.answers[:, :, None].expand(-1, -1, views, -1).reshape(B * K, views, L)
        owners = [number for number in numbers for _ in range(K)]
        undone = each_view(View.undo, puzzles, owners, seed, repeated_BKVL)[:, view]
        answers.append(undone.view(B, K, L))
        logits.append(wide(ended.halt_logits))
    answers_BAL = torch.cat(answers, 1)
    A = answers_BAL.shape[1]
    valid_BA = torch.zeros(B, A, dtype=torch.bool)
    if verifier is not None:
        valid_BA = verdicts(verifier, input_ids.repeat_interleave(A, dim=0), answers_BAL.flatten(0, 1)).view(B, A)
    return is_right(answers_BAL, labels).cpu().numpy(), valid_BA.cpu().numpy(), torch.cat(logits, 1).cpu().numpy()


def outcome(records: AttemptRecords, certain_NA: np.ndarray) -> dict[str, Any]:
    """What a certificate answers, JSON-ready; shares of all puzzles, each with its 95 % interval.

    right, wrong, abstained: {count, share, ci95}. error: {share, ci95}, wrong ones among the answers given, None
    without any. attempts: mean number made until one was certain. by_attempts: share answered after 1, 2, ... A.
    """
    N, A = certain_NA.shape
    answered_N, first_N = certain_NA.any(1), certain_NA.argmax(1)
    right_N = answered_N & records.right[np.arange(N), first_N]
    counts = {"right": right_N, "wrong": answered_N & ~right_N, "abstained": ~answered_N}
    result: dict[str, Any] = {
        name: {"count": int(flags.sum()), "share": float(flags.mean()), "ci95": wilson_interval(int(flags.sum()), N)}
        for name, flags in counts.items()
    }
    wrong, answered = result["wrong"]["count"], int(answered_N.sum())
    result["error"] = {"share": wrong / answered, "ci95": wilson_interval(wrong, answered)} if answered else None
    result["attempts"] = float(np.where(answered_N, first_N + 1, A).mean())
    result["by_attempts"] = np.maximum.accumulate(certain_NA, axis=1).mean(0).tolist()
    return result


def certain_above(records: AttemptRecords, logit: float) -> np.ndarray:
    """bool [N, A]: the halt logit is above; a NaN is not."""
    return records.halt_logits > logit


def risk_coverage(records: AttemptRecords) -> list[dict[str, float]]:
    """From the strictest threshold on: {halt_probability, coverage, risk, low, high}, the risk's 95 % interval.

    coverage: share of the puzzles that are answered. risk: share of wrong ones among those answers.
    """
    best_N = np.sort(np.nan_to_num(records.halt_logits, nan=-np.inf).max(1))[::-1]
    N, curve = len(best_N), []
    for answered in np.unique(np.linspace(1, N, min(N, POINTS)).round().astype(int)):
        below = best_N[answered] if answered < N else -np.inf
        found = outcome(records, certain_above(records, below))
        if found["error"] is not None:
            low, high = found["error"]["ci95"]
            share = {"coverage": 1 - found["abstained"]["share"], "risk": found["error"]["share"]}
            curve.append({"halt_probability": _sigmoid(below), **share, "low": low, "high": high})
    return curve


def calibrate(records: AttemptRecords, max_error: float, confidence: float = CONFIDENCE) -> float | None:
    """The halt probability above which the error among the answers is at most max_error; None where none shows it.

    Raises:
        ValueError: a max_error or confidence that is not between 0 and 1.
    """
    for name, value in (("max_error", max_error), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name}={value} is not allowed; allowed: numbers between 0 and 1")
    chosen = None
    for logit in THRESHOLDS:
        certain_NA = certain_above(records, logit)
        answered_N, first_N = certain_NA.any(1), certain_NA.argmax(1)
        if answered_N.sum() < fewest_answers(max_error, confidence):
            continue  # even without a wrong one they would not show it
        wrong = int((answered_N & ~records.right[np.arange(len(records)), first_N]).sum())
        if at_most_this_many(wrong, int(answered_N.sum()), max_error) > 1 - confidence:
            break
        chosen = float(logit)
    return None if chosen is None else _sigmoid(chosen)


def fewest_answers(max_error: float, confidence: float = CONFIDENCE) -> int:
    """How many answers, all of them right, show an error of at most max_error."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-max_error))


def at_most_this_many(wrong: int, answered: int, error: float) -> float:
    """The probability of so few wrong answers or fewer, if each is wrong with probability `error` (binomial)."""
    logs = (
        math.lgamma(answered + 1) - math.lgamma(i + 1) - math.lgamma(answered - i + 1)
        + i * math.log(error) + (answered - i) * math.log1p(-error)
        for i in range(wrong + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)))


def _sigmoid(logit: float) -> float:
    """Between 0 and 1, and neither: what --certificate takes."""
    probability = 1 / (1 + math.exp(-max(logit, -700.0)))
    return min(max(probability, 5e-324), 1 - 2**-53)
