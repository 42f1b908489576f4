"""Operator "delta": gated DeltaNet (arXiv 2412.06464), a state that is corrected instead of only added to.

Parameter names, shapes and initialisation are those of fla.layers.GatedDeltaNet (flash-linear-attention 0.6), so
weights move freely; its defaults: gate, short convolutions, no negative eigenvalues.

Shapes: B batch, L positions, H heads, N size of keys, P size of values, K chunks, Q positions of a chunk.
Paper's letters: q, k [N], v [P] query, key and value, alpha_t = exp(decay_t) what is kept, beta_t writing strength.
    S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,       o_t = S_t^T q_t / sqrt(N)
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_trm import TRMConfig
from .layers_trm import Operator, rms_norm
from .mamba2_trm import decay_between, depthwise_conv, draw_dt_bias, running_sum, split_chunks
from .packed_linear_trm import Layer, PackedLinear, with_children, with_packed_linears

CHUNK = 64  # a power of two
UNIT_EPS = 1e-6  # fla's l2norm
FASTEST_DECAY, SLOWEST_DECAY = 16.0, 1e-3  # fla draws the rates from 0, whose logarithm is no number


class GatedDeltaNet(Operator):
    """Projections -> short causal convolutions -> gated delta rule -> RMSNorm -> gate -> o_proj; in raster order."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        H, D = config.delta_num_heads, config.hidden_size
        keys, values = H * config.delta_key_dim, H * config.delta_value_dim
        self.n_heads, self.eps = H, config.rms_norm_eps
        self.q_proj = nn.Linear(D, keys, bias=False)
        self.k_proj = nn.Linear(D, keys, bias=False)
        self.v_proj = nn.Linear(D, values, bias=False)
        self.a_proj = nn.Linear(D, H, bias=False)
        self.b_proj = nn.Linear(D, H, bias=False)
        self.g_proj = nn.Linear(D, values, bias=False)
        self.q_conv1d = nn.Conv1d(keys, keys, config.delta_d_conv, groups=keys, bias=False)
        self.k_conv1d = nn.Conv1d(keys, keys, config.delta_d_conv, groups=keys, bias=False)
        self.v_conv1d = nn.Conv1d(values, values, config.delta_d_conv, groups=values, bias=False)
        self.A_log = nn.Parameter(torch.empty(H))
        self.dt_bias = nn.Parameter(torch.empty(H))
        self.o_norm = nn.Module()  # fla's name for a weight that all heads share
        self.o_norm.weight = nn.Parameter(torch.empty(config.delta_value_dim))
        self.o_proj = nn.Linear(values, D, bias=False)

    def init_parameters(self) -> None:
        """fla's: rates uniform up to 16, dt log-uniform in [0.001, 0.1]."""
        init.copy_(self.A_log, torch.empty(self.n_heads, device=self.A_log.device).uniform_(SLOWEST_DECAY, FASTEST_DECAY).log())
        init.copy_(self.dt_bias, draw_dt_bias(self.dt_bias))
        init.ones_(self.o_norm.weight)  # type: ignore[arg-type]

    def forward(self, x_BLD: Tensor) -> Tensor:
        q, k, v, gate = (
            x.unflatten(-1, (self.n_heads, -1))
            for x in (
                F.silu(depthwise_conv(self.q_proj(x_BLD), self.q_conv1d)),
                F.silu(depthwise_conv(self.k_proj(x_BLD), self.k_conv1d)),
                F.silu(depthwise_conv(self.v_proj(x_BLD), self.v_conv1d)),
                self.g_proj(x_BLD),
            )
        )
        a_BLH, b_BLH = self.a_proj(x_BLD), self.b_proj(x_BLD)
        device = x_BLD.device.type
        # In float32 at least, autocast or not: the corrections of a chunk build on one another.
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            wide = torch.promote_types(v.dtype, torch.float32)
            decay_BLH = -self.A_log.to(wide).exp() * F.softplus(a_BLH.to(wide) + self.dt_bias.to(wide))
            y_BLHP = gated_delta_rule(
                unit(q.to(wide)) * q.shape[-1] ** -0.5, unit(k.to(wide)), v.to(wide), decay_BLH, b_BLH.to(wide).sigmoid()
            )
        normed = rms_norm(y_BLHP, self.eps).to(v.dtype) * self.o_norm.weight.to(v.dtype)  # type: ignore[operator]
        return self.o_proj((normed * F.silu(gate)).flatten(-2))

    def packed(self, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
        """The forward, its rates and writing strengths never in 8 bits: they act over all positions."""
        small = {name: PackedLinear(getattr(self, name).weight, None, dtype) for name in ("a_proj", "b_proj")}
        return with_children(with_packed_linears(self, linear), **small)


def unit(x: Tensor) -> Tensor:
    """x / |x| over the last axis."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + UNIT_EPS)


def gated_delta_rule(q_BLHN: Tensor, k_BLHN: Tensor, v_BLHP: Tensor, decay_BLH: Tensor, beta_BLH: Tensor) -> Tensor:
    """o [B, L, H, P] of the recurrence above, of scaled queries, in chunks (paper, section 3.3: the WY form).

    What position i of a chunk writes is its value less what the state, as its predecessors leave it, has under its key:
    w_i = beta_i (v_i - S^T k_i), a triangular system over the chunk, whose inverse is the same for every state.

    Args:
        decay_BLH: logarithm of alpha, negative. beta_BLH: in (0, 1).
    """
    L = q_BLHN.shape[1]
    chunk = min(CHUNK, 1 << (L - 1).bit_length())
    q, k, v, decay, beta = (
        split_chunks(t, chunk).transpose(2, 3) for t in (q_BLHN, k_BLHN, v_BLHP, decay_BLH, beta_BLH)
    )
    total_BKHQ = running_sum(decay, 3)
    since_start = total_BKHQ.exp()[..., None]
    to_end = (total_BKHQ[..., -1:] - total_BKHQ).exp()[..., None]
    kept_BKHQQ = decay_between(total_BKHQ)
    written_k = k * beta[..., None]
    solve_BKHQQ = inverse_of_unit_lower((written_k @ k.mT * kept_BKHQQ).tril(-1))
    from_values = solve_BKHQQ @ (v * beta[..., None])
    from_state = solve_BKHQQ @ (written_k * since_start)
    read_BKHQQ = (q @ k.mT * kept_BKHQQ).tril()
    read_state, add_state = q * since_start, (k * to_end).mT
    state_BHNP, outputs = None, []
    for i in range(q.shape[1]):
        written = from_values[:, i] if state_BHNP is None else from_values[:, i] - from_state[:, i] @ state_BHNP
        y_BHQP = read_BKHQQ[:, i] @ written
        outputs.append(y_BHQP if state_BHNP is None else y_BHQP + read_state[:, i] @ state_BHNP)
        added = add_state[:, i] @ written
        state_BHNP = added if state_BHNP is None else since_start[:, i, :, -1:] * state_BHNP + added
    return torch.stack(outputs, dim=1).transpose(2, 3).flatten(1, 2)[:, :L]


def inverse_of_unit_lower(A_QQ: Tensor) -> Tensor:
    """(I + A)^-1 of a strictly lower triangular A [..., Q, Q], Q a power of two; by halves, in products alone.

    As stable as forward substitution, unlike a series of powers of A; and every exporter knows products.
    """
    half = A_QQ.shape[-1] // 2
    if half == 0:
        return torch.ones_like(A_QQ)
    upper, lower = inverse_of_unit_lower(torch.stack((A_QQ[..., :half, :half], A_QQ[..., half:, half:]))).unbind(0)
    between = -(lower @ A_QQ[..., half:, :half] @ upper)
    return torch.cat((torch.cat((upper, torch.zeros_like(upper)), -1), torch.cat((between, lower), -1)), -2)
