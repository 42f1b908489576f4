"""The operator registry and the post-norm stack that the recursion applies. Source: arXiv 2510.04871, section 4.

An operator is a class with `__init__(config)` and `forward(x_BLD) -> x_BLD`: any nn.Module, or an Operator, which may
say more (see layers_trm). A user's own one joins in one line, `OPERATORS["name"] = Class`, and is then named in
`TRMConfig.block_operators`; operator_files_trm reads its file and sends it along with a checkpoint.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from .attention_trm import Attention
from .configuration_trm import OPERATORS, TRMConfig
from .conv_mlp_trm import ConvMlp
from .delta_trm import GatedDeltaNet
from .layers_trm import Operator, rms_norm
from .mamba2_trm import Mamba2
from .mamba3_trm import Mamba3
from .mlp_trm import Mlp, MlpT

OPERATORS.update({"attention": Attention, "mamba2": Mamba2, "mlp_t": MlpT, "mlp": Mlp})
OPERATORS.update({"mamba3": Mamba3, "delta": GatedDeltaNet, "conv_mlp": ConvMlp})


class Stack(nn.ModuleList):
    """h = rms_norm(h + operator(h)) for each of `config.block_operators`: [B, L, D] -> [B, L, D].

    Post-norm, without weight: pre-norm residuals grow over the recursion until they overflow (arXiv 2602.12078).
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(OPERATORS[name](config) for name in config.block_operators)
        self.eps = config.rms_norm_eps

    def prepare(self, x_BLD: Tensor) -> list[tuple[Tensor, ...]]:
        """What each operator takes besides its input, once for all calls of a supervision step (Operator.prepare)."""
        return [operator.prepare(x_BLD) if isinstance(operator, Operator) else () for operator in self]

    def with_norms(self) -> Iterator[tuple[nn.Module, int]]:
        """Each operator and the axis of its post-norm; channels where a plain nn.Module does not say."""
        return ((operator, getattr(operator, "norm_dim", Operator.norm_dim)) for operator in self)

    def forward(self, h_BLD: Tensor, prepared: Sequence[tuple[Tensor, ...]] | None = None) -> Tensor:
        """`prepared` is what `prepare` gave; without it every operator prepares itself."""
        for (operator, dim), own in zip(self.with_norms(), prepared or [()] * len(self)):
            h_BLD = rms_norm(h_BLD + operator(h_BLD, *own), self.eps, dim)
        return h_BLD


from .own_operators_trm import OWN_OPERATORS  # noqa: E402  (its files import OPERATORS)

OPERATORS.update(OWN_OPERATORS)
