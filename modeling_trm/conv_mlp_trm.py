"""Operator "conv_mlp": SwiGLU with a short convolution over the positions inside, the nonlinearity of URM.

Source: arXiv 2512.14693, section 3.2, and its public code, models/layers.py ConvSwiGLU (zitian-gao/URM), whose
parameter names are ours.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_trm import TRMConfig
from .mamba2_trm import depthwise_conv
from .mlp_trm import GatedMLP


class ConvMlp(GatedMLP):
    """y = down(silu(conv(gate(g, v)))), [g, v] = up(x): the MLP of "mlp", and each inner channel sees its neighbours.

    A convolution of k positions sees k // 2 before its own and (k - 1) // 2 after it: of 2, as published, the one
    before.
    """

    reads_in_order = True

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config, config.hidden_size)
        inner, self.ahead = config.inner_width(config.hidden_size), (config.mlp_conv_kernel - 1) // 2
        self.dwconv = nn.Conv1d(inner, inner, config.mlp_conv_kernel, groups=inner)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.down_proj(F.silu(depthwise_conv(self.gated(x_BLD), self.dwconv, self.ahead)))
