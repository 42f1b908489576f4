"""Exponential moving average of the weights, the ones that are evaluated and published.

Source: reference TRM, models/ema.py (decay 0.999, started at the initial weights). The average is kept in float32
whatever the model's dtype: in bfloat16 a change of a thousandth of the difference rounds away and the average freezes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """average <- decay * average + (1 - decay) * weight, after each optimiser step.

    Args:
        parameters: {name: what is averaged}, already on its device; a checkpoint goes by the names.
        decay: in [0, 1).

    Raises:
        ValueError: decay out of range.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} is out of range; allowed: 0 <= decay < 1")
        self.decay = decay
        self.names, self.parameters = list(parameters), list(parameters.values())
        self.averages = [p.detach().to(torch.float32, copy=True) for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        weights = [p.detach().to(torch.float32) for p in self.parameters]
        torch._foreach_lerp_(self.averages, weights, 1 - self.decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block the model has the averaged weights; afterwards its own again, bit for bit."""
        own = [p.detach().clone() for p in self.parameters]
        self._write(self.averages)
        try:
            yield
        finally:
            self._write(own)

    def state_dict(self) -> dict[str, Tensor]:
        """{name of the parameter: its average}: a dictionary that safetensors can store as it is."""
        return dict(zip(self.names, self.averages))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved averages. Raises ValueError, before anything is changed, if they are of another model."""
        averages = self.state_dict()
        if strange := sorted(state.keys() ^ averages.keys()):
            side = "saved average" if strange[0] in averages else "model"
            raise ValueError(f"the {side} has no tensor {strange[0]}: {len(strange)} are on one side only")
        for name, average in averages.items():
            saved = state[name]
            if saved.shape != average.shape or saved.dtype != average.dtype:
                raise ValueError(
                    f"tensor {name} of the saved average is {saved.dtype} {list(saved.shape)}; "
                    f"the model needs {average.dtype} {list(average.shape)}"
                )
        for name, average in averages.items():
            average.copy_(state[name])

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values):
            parameter.copy_(value)
