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
from .frames_trm import Frame, frames
from .layers_trm import Operator, rms_norm
from .mamba2_trm import Mamba2
from .mamba3_trm import Mamba3
from .mlp_trm import Mlp, MlpT
from .symbols_trm import Symbols

OPERATORS.update({"attention": Attention, "mamba2": Mamba2, "mlp_t": MlpT, "mlp": Mlp, "symbols": Symbols})
OPERATORS.update({"mamba3": Mamba3, "delta": GatedDeltaNet, "conv_mlp": ConvMlp})


class Stack(nn.ModuleList):
    """h = rms_norm(h + operator(h)) for each of `config.block_operators`: [B, L, D] -> [B, L, D].

    Of a model with symbol fields h is [B, K, L, D]; each operator sees it in its frame (frames_trm).
    Post-norm, without weight: pre-norm residuals grow over the recursion until they overflow (arXiv 2602.12078).
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(OPERATORS[name](config) for name in config.block_operators)
        self.eps, self.frames = config.rms_norm_eps, frames(self, config)

    def prepare(self, x: Tensor) -> list[tuple[Tensor, ...]]:
        """What each operator takes besides its input, once for all calls of a supervision step (Operator.prepare)."""
        return [
            operator.prepare(frame.sequences(x)) if isinstance(operator, Operator) else ()
            for operator, frame in self.in_frames()
        ]

    def in_frames(self) -> Iterator[tuple[nn.Module, Frame]]:
        """Each operator and its frame."""
        return zip(self, self.frames)

    def forward(self, h: Tensor, prepared: Sequence[tuple[Tensor, ...]] | None = None) -> Tensor:
        """`prepared` is what `prepare` gave; without it every operator prepares itself."""
        for (operator, frame), own in zip(self.in_frames(), prepared or [()] * len(self)):
            h = rms_norm(h + frame.apply(operator, h, *own), self.eps, frame.norm_dim)
        return h


from .own_operators_trm import OWN_OPERATORS  # noqa: E402  (its files import OPERATORS)

OPERATORS.update(OWN_OPERATORS)
