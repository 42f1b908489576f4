"""What the optimisers of this package have in common: a step is one of each group; settings are not negative."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class GroupOptimiser(Optimizer):
    """An optimiser that says in `_step_group(group)` how the parameters of a group move."""

    _step_group: Callable[[dict[str, Any]], None]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every group; the loss, if a closure computes it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss


def require_non_negative(**settings: float) -> None:
    """Raise ValueError, naming setting and value, where one is below 0."""
    for name, value in settings.items():
        if value < 0:
            raise ValueError(f"{name}={value} is negative; allowed: 0 or more")
