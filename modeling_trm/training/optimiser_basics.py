"""What the optimisers of this package have in common: the closure of a step, and settings that may not be negative."""

from collections.abc import Callable

import torch


def evaluate(closure: Callable[[], float] | None) -> float | None:
    """Optimizer.step's optional closure, which computes the loss with gradients."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def require_non_negative(**settings: float) -> None:
    """Raise ValueError, naming setting and value, where one is below 0."""
    for name, value in settings.items():
        if value < 0:
            raise ValueError(f"{name}={value} is negative; allowed: 0 or more")
