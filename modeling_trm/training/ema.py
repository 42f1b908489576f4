"""Exponential moving average of the weights, the ones that are evaluated and published.

Source: reference TRM, models/ema.py (decay 0.999, started at the initial weights). The average is kept in float32
whatever the model's dtype: in bfloat16 a change of a thousandth of the difference rounds away and the average freezes.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """average <- decay * average + (1 - decay) * weight, after each optimiser step.

    Args:
        parameters: what is averaged, already on its device and in the order a checkpoint is to be read back.
        decay: in [0, 1).

    Raises:
        ValueError: decay out of range.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} is out of range; allowed: 0 <= decay < 1")
        self.decay = decay
        self.parameters = list(parameters)
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
        """The averages, flat and by position: a dictionary that safetensors can store as it is."""
        return {str(i): average for i, average in enumerate(self.averages)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved averages. Raises ValueError, before anything is changed, if they are of another model."""
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"the saved average has {len(state)} tensors, the model has {len(self.averages)}")
        for name, average in self.state_dict().items():
            saved = state[name]
            if saved.shape != average.shape or saved.dtype != average.dtype:
                raise ValueError(
                    f"tensor {name} of the saved average is {saved.dtype} {list(saved.shape)}; "
                    f"the model needs {average.dtype} {list(average.shape)}"
                )
        for name, average in self.state_dict().items():
            average.copy_(state[name])

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values):
            parameter.copy_(value)
