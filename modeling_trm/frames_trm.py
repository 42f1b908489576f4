"""How an operator sees the latent of the stack: which axes are its batch, and in which order it takes the cells.

So an operator for [B, L, D] is written once, and runs unchanged within the fields of a model with symbol fields
(arXiv 2603.02193) and along rows or columns, forwards or backwards.

Shapes: B batch, K symbol fields, L positions (prefix and cells), D hidden.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .configuration_trm import TRMConfig


class Frame(NamedTuple):
    """name: in block_operators. norm_dim, mixes_fields: see layers_trm.Operator. order: one of SCAN_ORDERS."""

    name: str
    norm_dim: int
    mixes_fields: bool
    order: str
    config: TRMConfig

    def sequences(self, h: Tensor) -> Tensor:
        """What the operator's batch is: h [B, L, D] itself; of [B, K, L, D] each field for itself, [B * K, L, D]."""
        return h if h.ndim == 3 or self.mixes_fields else h.flatten(0, 1)

    def apply(self, operator: Callable[..., Tensor], h: Tensor, *prepared: Tensor) -> Tensor:
        """operator(h) in this frame, [B, L, D] or [B, K, L, D] as h. prepared: what the operator takes besides.

        Raises:
            ValueError: it returned something else than a tensor of the shape of what it took.
        """
        x_BLD = self._scan(self.sequences(h))
        y_BLD = operator(x_BLD, *prepared)
        if not torch.compiler.is_compiling():  # a graph would ask its inputs for the sizes that are compared
            self._check(x_BLD, y_BLD)
        y_BLD = self._unscan(y_BLD)
        # No size of the batch is written down: an exported graph would ask another of its inputs for it.
        return y_BLD if y_BLD.ndim == h.ndim else y_BLD.unflatten(0, (-1, h.shape[1]))

    def _check(self, x_BLD: Tensor, y_BLD: Any) -> None:
        if not isinstance(y_BLD, Tensor) or y_BLD.shape != x_BLD.shape:
            given = f"shape {list(y_BLD.shape)}" if isinstance(y_BLD, Tensor) else f"a {type(y_BLD).__name__}"
            raise ValueError(
                f"operator {self.name!r} returned {given}; allowed: a tensor of the shape that it takes, "
                f"{list(x_BLD.shape)}"
            )

    def _scan(self, x_BLD: Tensor) -> Tensor:
        if self.order == "raster":
            return x_BLD
        prefix, cells = self._split(x_BLD)
        if self.order.startswith("transposed"):
            cells = _transposed(cells, self.config.grid_shape(cells.shape[1]))
        return torch.cat((prefix, cells.flip(1) if self.order.endswith("reversed") else cells), dim=1)

    def _unscan(self, y_BLD: Tensor) -> Tensor:
        if self.order == "raster":
            return y_BLD
        prefix, cells = self._split(y_BLD)
        if self.order.endswith("reversed"):
            cells = cells.flip(1)
        if self.order.startswith("transposed"):
            height, width = self.config.grid_shape(cells.shape[1])
            cells = _transposed(cells, (width, height))
        return torch.cat((prefix, cells), dim=1)

    def _split(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        prefix = self.config.puzzle_prefix_len
        return x_BLD[:, :prefix], x_BLD[:, prefix:]


def frames(operators: Any, config: TRMConfig) -> list[Frame]:
    """The frame of each operator; those that read in order take the config's scan_orders in turn."""
    found, scans = [], 0
    for name, operator in zip(config.block_operators, operators):
        order = "raster"
        if getattr(operator, "reads_in_order", False):  # a plain nn.Module of a user's own may not say
            order = config.scan_orders[scans % len(config.scan_orders)]
            scans += 1
        mixes_fields = getattr(operator, "mixes_fields", False)
        found.append(Frame(name, getattr(operator, "norm_dim", -1), mixes_fields, order, config))
    return found


def _transposed(cells_BND: Tensor, grid_shape: tuple[int, int]) -> Tensor:
    """The cells of grids of this shape column by column."""
    return cells_BND.unflatten(1, grid_shape).transpose(1, 2).flatten(1, 2)
