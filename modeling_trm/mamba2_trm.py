"""Operator "mamba2": the Mamba-2 mixer (arXiv 2405.21060) with the state-space dual form (SSD) in plain PyTorch.

Two other paths on CUDA, by `ssd_backend`: mamba_ssm's kernels (ssd_cuda_trm.py), and the product of the dual form in
ssd_triton_trm.py.

Parameter names and shapes are those of mamba_ssm.Mamba2 and of transformers' Mamba2Mixer, so weights move freely.

Shapes: B batch, L positions, D hidden, H heads, P head size, G groups, N state, K chunks, Q positions of a chunk.
Paper's letters: A [H] decay rate, B_BLGN and C_BLGN input and output maps, dt_BLH step size, D [H] skip weight.
    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t^T,      y_t = C_t h_t + D x_t
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import logging

from .configuration_trm import TRMConfig
from .layers_trm import Operator, rms_norm, rms_norm_over
from .packed_linear_trm import Layer, PackedLinear, with_packed_linears
from .ssd_cuda_trm import CUDA_KERNELS_MISSING, conv_silu, ssd_scan

logger = logging.get_logger(__name__)

ONE_CHUNK_UP_TO = 256  # one chunk is fastest up to here, shorter chunks above (measured on CPU: 97 and 916 positions)
CHUNK = 64

Product = Callable[[Tensor, Tensor, Tensor], Tensor]  # scores [B, G, L, L], running sums [B, H, L], u [B, L, H, P] -> y


class Mamba2(Operator):
    """in_proj -> causal depthwise convolution -> SSD -> gated RMSNorm -> out_proj; unidirectional."""

    reads_in_order = True

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.d_inner, self.d_state = config.mamba_d_inner, config.mamba_d_state
        self.n_heads, self.n_groups, self.head_dim = config.mamba_n_heads, config.mamba_n_groups, config.mamba_head_dim
        self.config, self.eps = config, config.rms_norm_eps
        self.kernels_missing = CUDA_KERNELS_MISSING
        if not config.mamba_fits_cuda_kernels:
            self.kernels_missing = (
                f"they cannot take mamba_d_conv={config.mamba_d_conv} or in_proj's {config.mamba_d_in_proj} outputs"
            )
        d_conv_channels = self.d_inner + 2 * self.n_groups * self.d_state
        self.widths = [self.d_inner, d_conv_channels, self.n_heads]  # of z, xBC and dt
        self.in_proj = nn.Linear(config.hidden_size, config.mamba_d_in_proj, bias=False)
        self.conv1d = nn.Conv1d(d_conv_channels, d_conv_channels, config.mamba_d_conv, groups=d_conv_channels)
        self.dt_bias = nn.Parameter(torch.empty(self.n_heads))
        self.A_log = nn.Parameter(torch.empty(self.n_heads))
        self.D = nn.Parameter(torch.empty(self.n_heads))
        self.norm = GatedRMSNorm(self.d_inner, self.n_groups, self.eps)
        self.out_proj = nn.Linear(self.d_inner, config.hidden_size, bias=False)

    def init_parameters(self) -> None:
        """mamba_ssm.Mamba2's initialisation: A in [1, 16], dt log-uniform in [0.001, 0.1]."""
        init.copy_(self.dt_bias, draw_dt_bias(self.dt_bias))
        init.copy_(self.A_log, torch.empty(self.n_heads, device=self.A_log.device).uniform_(1, 16).log())
        init.ones_(self.D)
        init.ones_(self.norm.weight)

    def prepare(self, x_BLD: Tensor) -> tuple[Tensor, ...]:
        """Nothing; one warning where a GPU takes the slow path. In `forward` it would break a compiled graph."""
        if self.config.ssd_backend == "auto" and x_BLD.is_cuda and self.kernels_missing is not None:
            logger.warning_once(
                f"Mamba-2 runs its PyTorch path on {x_BLD.device.type}, not the CUDA kernels "
                f"({self.kernels_missing}). Results are the same; for the kernels: pip install 'modeling-trm[cuda]'. "
                f"To silence this: ssd_backend='torch'."
            )
        return ()

    def forward(self, x_BLD: Tensor) -> Tensor:
        z_BLI, xBC_BLC, dt_BLH = self.in_proj(x_BLD).split(self.widths, dim=-1)
        mix = self._choose_mix(x_BLD)
        return self.out_proj(self.norm(mix(xBC_BLC, dt_BLH), z_BLI))

    def _choose_mix(self, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Chosen per call by the tensor's device: a model may move between CPU and GPU."""
        backend = self.config.ssd_backend
        if backend == "triton":
            return self._mix_triton
        if backend != "torch" and x.is_cuda and self.kernels_missing is None:
            return self._mix_cuda
        if backend == "cuda":
            reason = self.kernels_missing or f"the tensor is on {x.device}"
            raise RuntimeError(
                f"ssd_backend='cuda' cannot be used: {reason}. Install with pip install 'modeling-trm[cuda]' and move "
                f"the model to a CUDA device, or set ssd_backend='auto' or 'torch'."
            )
        return self._mix_torch

    def _mix_triton(self, xBC_BLC: Tensor, dt_BLH: Tensor) -> Tensor:
        # Here and not above: triton is optional and slow to import, and few ask for it.
        from .conv_triton_trm import WIDEST, conv_silu
        from .ssd_triton_trm import triton_missing, triton_product

        reason = triton_missing(xBC_BLC.device)
        if reason is None and self.config.mamba_d_conv > WIDEST:
            reason = f"its convolution takes mamba_d_conv up to {WIDEST}, not {self.config.mamba_d_conv}"
        if reason is not None:
            raise RuntimeError(
                f"ssd_backend='triton' cannot be used: {reason}. Move the model to a CUDA device, or set "
                f"ssd_backend='auto' or 'torch'."
            )
        convolved = conv_silu(xBC_BLC, self.conv1d.weight.squeeze(1), self.conv1d.bias)
        return self._mix_convolved(convolved, dt_BLH, triton_product)

    def _mix_torch(self, xBC_BLC: Tensor, dt_BLH: Tensor) -> Tensor:
        return self._mix_convolved(F.silu(depthwise_conv(xBC_BLC, self.conv1d)), dt_BLH, torch_product)

    def _mix_convolved(self, xBC_BLC: Tensor, dt_BLH: Tensor, product: Product) -> Tensor:
        x_BLHP, B_BLGN, C_BLGN = self._heads(xBC_BLC)
        # A, dt and the running sums stay in float32 at least: bf16 loses the small steps.
        wide = torch.promote_types(xBC_BLC.dtype, torch.float32)
        dt_BLH = F.softplus(dt_BLH.to(wide) + self.dt_bias.to(wide))
        decay_BLH = dt_BLH * -torch.exp(self.A_log.to(wide))
        y_BLHP = ssd(scale(x_BLHP, dt_BLH), decay_BLH, B_BLGN, C_BLGN, product)
        return torch.addcmul(y_BLHP, x_BLHP, self.D.to(x_BLHP.dtype)[:, None]).flatten(-2)

    def _mix_cuda(self, xBC_BLC: Tensor, dt_BLH: Tensor) -> Tensor:
        weight_CK = self.conv1d.weight.squeeze(1).to(xBC_BLC.dtype)
        bias_C = self.conv1d.bias.to(xBC_BLC.dtype)  # type: ignore[union-attr]  # it has one
        x_BLHP, B_BLGN, C_BLGN = self._heads(conv_silu(xBC_BLC, weight_CK, bias_C))
        A_H = -torch.exp(self.A_log.float())
        return ssd_scan(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, self.D, self.dt_bias).flatten(-2)

    def packed(self, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
        """As _mix_torch, its three inputs as products of their own and what can be written over written over."""
        if self.config.ssd_backend not in ("auto", "torch"):
            return with_packed_linears(self, linear)  # which says why that backend is not for a CPU
        z_weight, xBC_weight, dt_weight = self.in_proj.weight.split(self.widths)
        z_proj, xBC_proj, out_proj = (linear(w, None) for w in (z_weight, xBC_weight, self.out_proj.weight))
        dt_proj = PackedLinear(dt_weight, None, dtype)  # never in 8 bits: step sizes are summed over all positions
        conv_weight = self.conv1d.weight.detach().to(dtype)
        bias_C, D_H1 = self.conv1d.bias.to(dtype), self.D.to(dtype)[:, None]  # type: ignore[union-attr]  # it has one
        A_H, norm_weight = -torch.exp(self.A_log.float()), self.norm.weight.to(dtype)

        def mamba2(x_BLD: Tensor) -> Tensor:
            x = xBC_proj.prepare(x_BLD)
            x_BLHP, B_BLGN, C_BLGN = self._heads(conv_silu_at_once(xBC_proj.product(x), conv_weight, bias_C))
            dt_BLH = F.softplus(dt_proj(x_BLD).float() + self.dt_bias)
            mix = ssd_one_chunk_over if x_BLD.shape[1] <= ONE_CHUNK_UP_TO else ssd
            y_BLHP = torch.addcmul(mix(scale(x_BLHP, dt_BLH), dt_BLH * A_H, B_BLGN, C_BLGN), x_BLHP, D_H1)
            gated = y_BLHP.flatten(-2).mul_(z_proj.silu(x)).unflatten(-1, (self.n_groups, -1))
            return out_proj(rms_norm_over(gated, self.eps).flatten(-2).mul_(norm_weight))

        return mamba2

    def _heads(self, xBC_BLC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states = self.n_groups * self.d_state
        x, B, C = xBC_BLC.split([self.d_inner, states, states], dim=-1)
        groups = (self.n_groups, self.d_state)
        return x.unflatten(-1, (self.n_heads, self.head_dim)), B.unflatten(-1, groups), C.unflatten(-1, groups)


class GatedRMSNorm(nn.Module):
    """rms_norm(y * silu(z)) * weight within each group of channels (mamba_ssm's RMSNormGated, norm after gate)."""

    def __init__(self, width: int, n_groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.n_groups, self.eps = n_groups, eps

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        gated = (y * F.silu(z)).unflatten(-1, (self.n_groups, -1))
        return rms_norm(gated, self.eps).flatten(-2) * self.weight.to(y.dtype)


def draw_dt_bias(like_H: Tensor) -> Tensor:
    """Step sizes log-uniform in [0.001, 0.1], as softplus will give them; float32."""
    dt_H = torch.empty(like_H.shape, device=like_H.device).uniform_(math.log(0.001), math.log(0.1)).exp()
    return dt_H + torch.log(-torch.expm1(-dt_H))  # inverse of softplus


def depthwise_conv(x_BLC: Tensor, conv: nn.Conv1d, ahead: int = 0) -> Tensor:
    """Depthwise convolution as a few shifted multiply-adds; faster than conv1d(groups=C) for the width of 4.

    Args:
        ahead: how many of the positions that a position sees come after it; 0 is causal.
    """
    L, width = x_BLC.shape[1], conv.kernel_size[0]
    padded = F.pad(x_BLC, (0, 0, width - 1 - ahead, ahead))
    # Contiguous rows: multiply-adds with a strided column are not vectorised, 3 (float32) to 7 times slower on a CPU.
    weight_KC = conv.weight.squeeze(1).to(x_BLC.dtype).t().contiguous()
    y_BLC = x_BLC.new_zeros(()) if conv.bias is None else conv.bias.to(x_BLC.dtype)
    for shift in range(width):
        y_BLC = torch.addcmul(y_BLC, padded[:, shift : shift + L], weight_KC[shift])
    return y_BLC


def conv_silu_at_once(x_BLC: Tensor, weight_C1K: Tensor, bias_C: Tensor) -> Tensor:
    """silu(depthwise_conv) by oneDNN, which takes x as it lies as an image of one row, its channels last."""
    length, width = x_BLC.shape[1], weight_C1K.shape[-1]
    image_BC1L = x_BLC.transpose(1, 2).unsqueeze(2)
    y_BC1L = F.conv2d(image_BC1L, weight_C1K.unsqueeze(2), bias_C, padding=(0, width - 1), groups=len(bias_C))
    return F.silu(y_BC1L, inplace=True).squeeze(2).transpose(1, 2)[:, :length]


def torch_product(scores_BGLL: Tensor, cumulative_BHL: Tensor, u_BLHP: Tensor) -> Tensor:
    """y_i = sum_{j <= i} scores_ij exp(c_i - c_j) u_j: [B, L, H, P], with all weights in memory."""
    scores_BGLL = scores_BGLL.tril()
    decay_BGELL = decay_between(cumulative_BHL).to(scores_BGLL.dtype).unflatten(1, (scores_BGLL.shape[1], -1))
    weights_BHLL = (decay_BGELL * scores_BGLL[:, :, None]).flatten(1, 2)
    return (weights_BHLL @ u_BLHP.transpose(1, 2)).transpose(1, 2)


def ssd(u_BLHP: Tensor, decay_BLH: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, product: Product = torch_product) -> Tensor:
    """y [B, L, H, P] of h_t = exp(decay_t) h_{t-1} + B_t u_t^T, y_t = C_t h_t: one chunk when short, else chunks.

    Args:
        u_BLHP: inputs, dt x of the recurrence above. decay_BLH: dt A, negative, float32. B_BLGN, C_BLGN: maps.
        product: what applies the weights of the dual form.
    """
    if u_BLHP.shape[1] <= ONE_CHUNK_UP_TO:
        return ssd_one_chunk(u_BLHP, decay_BLH, B_BLGN, C_BLGN, product)
    return ssd_chunked(u_BLHP, decay_BLH, B_BLGN, C_BLGN, CHUNK, product)


def ssd_one_chunk(
    u_BLHP: Tensor, decay_BLH: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, product: Product = torch_product
) -> Tensor:
    """The quadratic dual form (paper, section 3.3): y = (C B^T * decay) u, a masked attention without softmax."""
    cumulative_BHL = running_sum(decay_BLH, 1).transpose(1, 2)
    scores_BGLL = C_BLGN.transpose(1, 2) @ B_BLGN.permute(0, 2, 3, 1)  # the heads of a group share them
    return product(scores_BGLL, cumulative_BHL, u_BLHP)


def ssd_one_chunk_over(u_BLHP: Tensor, decay_BLH: Tensor, B_BLGN: Tensor, C_BLGN: Tensor) -> Tensor:
    """As ssd_one_chunk, with one array of L * L numbers a head that is written over."""
    B, L, H, P = u_BLHP.shape
    # Contiguous over positions, or every array below would be transposed for its product.
    cumulative_BHL = decay_BLH.cumsum(1).transpose(1, 2).contiguous()
    scores_BGLL = (C_BLGN.transpose(1, 2) @ B_BLGN.permute(0, 2, 3, 1)).tril_()
    decay_BHLL = (cumulative_BHL[..., :, None] - cumulative_BHL[..., None, :]).clamp_(max=0).exp_()
    weights_BGELL = decay_BHLL.to(scores_BGLL.dtype).unflatten(1, (scores_BGLL.shape[1], -1))
    weights_BGELL.mul_(scores_BGLL[:, :, None])
    u_XLP = u_BLHP.transpose(1, 2).reshape(B * H, L, P)
    return torch.bmm(weights_BGELL.reshape(B * H, L, L), u_XLP).view(B, H, L, P).transpose(1, 2)


def ssd_chunked(
    u_BLHP: Tensor, decay_BLH: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, chunk: int, product: Product = torch_product
) -> Tensor:
    """The chunked form (paper, section 6): dual form inside each chunk, states carried between chunks."""
    P, G = u_BLHP.shape[3], B_BLGN.shape[2]
    # A decay of 0 in the padding: it keeps the state, and adds nothing to it.
    u, decay, Bm, Cm = (split_chunks(t, chunk) for t in (u_BLHP, decay_BLH, B_BLGN, C_BLGN))
    y = ssd_one_chunk(u.flatten(0, 1), decay.flatten(0, 1), Bm.flatten(0, 1), Cm.flatten(0, 1), product)
    # No size of the batch is written down here or below: an exported graph would ask another of its inputs for it.
    y = y.unflatten(0, (-1, u.shape[1]))

    cumulative_BKQH = running_sum(decay, 2)
    total_BKH = cumulative_BKQH[:, :, -1]
    # 1. What each chunk adds to the state: sum_j B_j (exp(total - cumulative_j) u_j)^T. J: a group's heads * P.
    to_end = torch.exp(total_BKH[:, :, None] - cumulative_BKQH)
    weighted_BKGQJ = scale(u, to_end).unflatten(3, (G, -1)).flatten(4).transpose(2, 3)
    added_BKGNJ = Bm.permute(0, 1, 3, 4, 2) @ weighted_BKGQJ
    # 2. The state at the start of each chunk: what came before decays over the chunk, and the chunk adds its own.
    kept_BKGJ = torch.exp(total_BKH)[..., None].expand(-1, -1, -1, P).unflatten(2, (G, -1)).flatten(3)
    start_BKGNJ = _accumulate(added_BKGNJ, kept_BKGJ[:, :, :, None]).to(u.dtype)
    # 3. What that state contributes to each position: C_i state exp(cumulative_i).
    carried_BKGQJ = Cm.transpose(2, 3) @ start_BKGNJ
    carried = carried_BKGQJ.transpose(2, 3).unflatten(4, (-1, P)).flatten(3, 4)
    y = y + scale(carried, torch.exp(cumulative_BKQH))
    return y.flatten(1, 2)[:, : u_BLHP.shape[1]]


def running_sum(x: Tensor, dim: int) -> Tensor:
    """cumsum, whose CUDA kernel PyTorch refuses where deterministic algorithms are asked for."""
    deterministic = x.is_cuda and torch.are_deterministic_algorithms_enabled()
    return triangular_sum(x, dim) if deterministic else x.cumsum(dim)


def triangular_sum(x: Tensor, dim: int) -> Tensor:
    """cumsum as a product with ones below the diagonal; in float64, which neither autocast nor TF32 shortens."""
    ones = torch.ones(x.shape[dim], x.shape[dim], dtype=torch.float64, device=x.device).tril()
    return (ones @ x.double().movedim(dim, -2)).movedim(-2, dim).to(x.dtype)


def _accumulate(added: Tensor, kept: Tensor) -> Tensor:
    """[B, K, ...] -> [B, K, ...]: s_k = kept_{k-1} s_{k-1} + added_{k-1}, s_0 = 0; in the wider of the two types."""
    state, states = added[:, 0].to(kept.dtype) * 0, []
    for added_k, kept_k in zip(added.unbind(1), kept.unbind(1)):
        states.append(state)
        state = torch.addcmul(added_k.to(kept.dtype), state, kept_k)
    return torch.stack(states, 1)


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """x [..., P] times a factor [...], in x's dtype."""
    return x * factor[..., None].to(x.dtype)


def decay_between(cumulative_L: Tensor) -> Tensor:
    """exp(c_i - c_j) for i >= j, else 1: [..., L] -> [..., L, L]. Bounded before exp, else 0 * inf = NaN."""
    return (cumulative_L[..., :, None] - cumulative_L[..., None, :]).clamp(max=0).exp_()


def split_chunks(t: Tensor, chunk: int) -> Tensor:
    """[B, L, ...] -> [B, K, Q, ...], zero-padded at the end."""
    padding = (0, 0) * (t.ndim - 2) + (0, -t.shape[1] % chunk)
    return F.pad(t, padding).unflatten(1, (-1, chunk))
