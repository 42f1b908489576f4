"""What changes with the step, as pure functions of it, so that a resumed run needs no schedule state.

Learning rate: reference TRM, pretrain.py (linear warm-up, then constant or cosine), and warmup-stable-decay (arXiv
2404.06395; transformers' name for it). Steps are counted from 1, as in the reference: step 1 is the first update and
already moves, step `total_steps` is the last.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from torch.optim import Optimizer

Stage = TypeVar("Stage")

SCHEDULES = ("constant", "cosine", "warmup_stable_decay")
FALL = 0.7  # from one step to the next, arXiv 2511.08653
STEP_WEIGHTS: dict[str, Callable[[int], float]] = {
    "uniform": lambda number: 1.0,
    "rising": lambda number: float(number),  # linearly, as in the text of arXiv 2511.16886
    "falling": lambda number: FALL ** (number - 1),
}


def lr_factor(
    step: int,
    *,
    warmup_steps: int,
    total_steps: int,
    kind: str = "constant",
    min_ratio: float = 0.0,
    decay_share: float = 0.2,
    start_step: int = 0,
) -> float:
    """What the recipe's learning rates are multiplied with for update number `step`.

    Args:
        step: 1 for the first update. warmup_steps: the factor rises linearly and reaches 1 at this step.
        total_steps: updates of the whole run; where a schedule that falls reaches min_ratio and stays.
        kind: after the warm-up; "warmup_stable_decay" is constant and falls linearly over the last `decay_share` of
            the run. min_ratio: where it ends.
        start_step: the step after which the optimisers began anew, when it is not the run's first. The schedule is the
            same, but the factor rises to it once more, linearly over warmup_steps: young moments are those of a few
            batches, and Muon's and Adam's steps are as large as the rate whatever the gradient.

    Raises:
        ValueError: an unknown kind, or numbers out of range, naming them.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"kind={kind!r} is no schedule; allowed: {', '.join(SCHEDULES)}")
    if step <= start_step or start_step < 0 or warmup_steps < 0 or total_steps < 1:
        raise ValueError(
            f"step={step}, start_step={start_step}, warmup_steps={warmup_steps}, total_steps={total_steps}: "
            f"steps are counted from 1, start_step from 0, and the warm-up takes 0 steps or more"
        )
    rise = min(1.0, (step - start_step) / warmup_steps) if warmup_steps else 1.0
    if kind == "constant" or step <= warmup_steps:
        return rise
    length = total_steps - warmup_steps if kind == "cosine" else decay_share * total_steps
    progress = min(1.0, max(0.0, 1 - (total_steps - step) / max(1.0, length)))
    left = 0.5 * (1 + math.cos(math.pi * progress)) if kind == "cosine" else 1 - progress
    return rise * (min_ratio + (1 - min_ratio) * left)


def reveal_share(step: int, *, start: float, end: float, until: float) -> float:
    """The curriculum: falls from `start` at step 0 to `end` at step `until`, fast at first (a parabola), then stays."""
    remaining = max(0.0, 1 - step / until) if until else 0.0
    return end + (start - end) * remaining**2


def step_weights(kind: str, steps: int) -> list[float]:
    """Weights of the token loss of supervision steps 1..steps, 1 on average; `kind` is one of STEP_WEIGHTS."""
    weights = [STEP_WEIGHTS[kind](number) for number in range(1, steps + 1)]
    return [weight * steps / sum(weights) for weight in weights]


def stage_at(step: int, total_steps: int, curriculum: Mapping[float, Stage], final: Stage) -> Stage:
    """What a curriculum says for update number `step` (from 1); `final` once it has ended.

    Args:
        curriculum: {share of the run at which it ends: value}. Of the depth, for example CGAR's {0.3: (1, 2),
            0.6: (2, 4)} before (3, 6) (arXiv 2511.08653); of the supervision steps of a puzzle {0.15: 1, 0.25: 2,
            0.35: 4} before 16: a model that cannot yet solve anything learns more from new puzzles than from
            another step on the same.
    """
    return next((curriculum[end] for end in sorted(curriculum) if step <= end * total_steps), final)


def set_lr(optimisers: Iterable[Optimizer], factor: float) -> None:
    """Set every group's "lr" to factor times the rate it was created with (kept in the group as "initial_lr")."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = factor * group.setdefault("initial_lr", group["lr"])
