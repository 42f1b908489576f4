"""The operators of the stack and the post-norm stack itself, one sequence, one head, one position at a time.

Sources: attention, SwiGLU, MLP-t and post-norm from TRM, arXiv 2510.04871; RoPE, arXiv 2104.09864; the normalised gate,
arXiv 2601.19085; symbol fields, arXiv 2603.02193; Mamba-2, arXiv 2405.21060, with the projections, convolution and
gated norm of mamba_ssm.Mamba2; Mamba-3, arXiv 2603.15569, with those of mamba_ssm's; gated DeltaNet, arXiv 2412.06464,
with those of flash-linear-attention; the convolution inside the MLP, arXiv 2512.14693.

Shapes: B batch, K symbol fields, L positions, D channels, H heads, P head size, G groups, N state. `config` is anything
with TRMConfig's fields; `weights` maps an operator's parameter names to tensors.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def rms_norm(x: Tensor, axis: int, eps: float) -> Tensor:
    return x / torch.sqrt((x**2).mean(axis, keepdim=True) + eps)


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def rotate(x_LP: Tensor, theta: float) -> Tensor:
    """RoPE: entries p and p + P/2 of position l are turned by the angle l * theta^(-2p/P)."""
    L, P = x_LP.shape
    return turn(x_LP, [[pos * theta ** (-2 * p / P) for p in range(P // 2)] for pos in range(L)])


def rotate_2d(x_LP: Tensor, theta: float, config: Any) -> Tensor:
    """The first P/4 planes turn by the row, the others by the column; prefix position i of n is at (i - n, i - n)."""
    n, P = config.puzzle_prefix_len, x_LP.shape[1]
    width = config.grid_width or math.isqrt(len(x_LP) - n)
    places = [(i - n, i - n) for i in range(n)] + [divmod(cell, width) for cell in range(len(x_LP) - n)]
    return turn(x_LP, [[at * theta ** (-4 * p / P) for at in place for p in range(P // 4)] for place in places])


def turn(x_LP: Tensor, angles: list[list[float]]) -> Tensor:
    """As complex numbers, entry p with entry p + P/2."""
    P, angles = x_LP.shape[1], torch.tensor(angles, dtype=x_LP.dtype)
    turned = torch.complex(x_LP[:, : P // 2], x_LP[:, P // 2 :]) * torch.complex(angles.cos(), angles.sin())
    return torch.cat((turned.real, turned.imag), dim=1)


def attention(weights: Weights, config: Any, x_BLD: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(P)) v, head by head and without mask; the heads lie side by side within q, k and v."""
    H, D = config.num_attention_heads, config.hidden_size
    P = D // H
    sequences = []
    for x_LD in x_BLD:
        heads = []
        for h in range(H):
            q, k, v = (x_LD @ weights["qkv_proj.weight"][part * D + h * P :][:P].T for part in range(3))
            if config.position_embedding == "rope":
                q, k = rotate(q, config.rope_theta), rotate(k, config.rope_theta)
            elif config.position_embedding == "rope2d":
                q, k = rotate_2d(q, config.rope_theta, config), rotate_2d(k, config.rope_theta, config)
            heads.append(head(q, k, v))
        sequences.append(torch.cat(heads, dim=1) @ weights["o_proj.weight"].T)
    return torch.stack(sequences)


def head(q_LP: Tensor, k_LP: Tensor, v_LP: Tensor) -> Tensor:
    scores_LL = torch.exp(q_LP @ k_LP.T / math.sqrt(q_LP.shape[1]))
    return scores_LL @ v_LP / scores_LL.sum(1, keepdim=True)


def gated_mlp(weights: Weights, config: Any, x: Tensor) -> Tensor:
    """down(gate(g, v)) of the rows of x: SwiGLU g sigmoid(g) v, or sigmoid(g) rms_norm(g v); gate rows come first."""
    return gate(weights, config, x) @ weights["down_proj.weight"].T


def gate(weights: Weights, config: Any, x: Tensor) -> Tensor:
    inner = weights["down_proj.weight"].shape[1]
    g = x @ weights["gate_up_proj.weight"][:inner].T
    v = x @ weights["gate_up_proj.weight"][inner:].T
    if config.mlp_gate_bias is not None:
        g = g + weights["gate_bias"]
    return sigmoid(g) * (g * v if config.mlp_gate == "silu" else rms_norm(g * v, -1, config.rms_norm_eps))


def mlp(weights: Weights, config: Any, x_BLD: Tensor) -> Tensor:
    """The gated MLP on the channels of each position."""
    return torch.stack([gated_mlp(weights, config, x_LD) for x_LD in x_BLD])


def mlp_t(weights: Weights, config: Any, x_BLD: Tensor) -> Tensor:
    """The gated MLP on the positions of each channel."""
    return torch.stack([gated_mlp(weights, config, x_LD.T).T for x_LD in x_BLD])


def ssm(x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor) -> Tensor:
    """h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t;  y_t = C_t h_t: one step after the other (arXiv 2405.21060, eq. 1)."""
    heads_per_group = x_BLHP.shape[2] // B_BLGN.shape[2]
    B_BLHN = torch.repeat_interleave(B_BLGN, heads_per_group, dim=2)
    C_BLHN = torch.repeat_interleave(C_BLGN, heads_per_group, dim=2)
    h_BHPN = x_BLHP.new_zeros(*x_BLHP.shape[:1], *x_BLHP.shape[2:], B_BLGN.shape[3])
    y = []
    for t in range(x_BLHP.shape[1]):
        dt_BH11 = dt_BLH[:, t, :, None, None]
        input_BHPN = dt_BH11 * x_BLHP[:, t, :, :, None] * B_BLHN[:, t, :, None, :]
        h_BHPN = torch.exp(dt_BH11 * A_H[:, None, None]) * h_BHPN + input_BHPN
        y.append((h_BHPN * C_BLHN[:, t, :, None, :]).sum(-1))
    return torch.stack(y, dim=1)


def conv(x_BLC: Tensor, weight_C1K: Tensor, bias_C: Tensor, before: int) -> Tensor:
    """y_t = bias + sum_k weight_k x_{t - before + k}, x = 0 before the start and after the end; channel by channel."""
    L, K = x_BLC.shape[1], weight_C1K.shape[-1]
    y = []
    for t in range(L):
        taps = [weight_C1K[:, 0, k] * x_BLC[:, t - before + k] for k in range(K) if 0 <= t - before + k < L]
        y.append(bias_C + sum(taps))
    return torch.stack(y, dim=1)


def causal_conv(x_BLC: Tensor, weight_C1K: Tensor, bias_C: Tensor) -> Tensor:
    return conv(x_BLC, weight_C1K, bias_C, weight_C1K.shape[-1] - 1)


def conv_mlp(weights: Weights, config: Any, x_BLD: Tensor) -> Tensor:
    """down(silu(conv(gate))), the convolution padded by half its width on both sides and cut to the length."""
    hidden = conv(
        torch.stack([gate(weights, config, x_LD) for x_LD in x_BLD]),
        weights["dwconv.weight"],
        weights["dwconv.bias"],
        config.mlp_conv_kernel // 2,
    )
    return (hidden * sigmoid(hidden)) @ weights["down_proj.weight"].T


def conv2d(weights: Weights, config: Any, x_BLD: Tensor) -> Tensor:
    """out(silu(g) * sum over the neighbours in the grid of weight * v); zero in the prefix."""
    prefix, k = config.puzzle_prefix_len, config.conv2d_kernel
    width = config.grid_width or math.isqrt(x_BLD.shape[1] - prefix)
    height = (x_BLD.shape[1] - prefix) // width
    g, v = (x_BLD[:, prefix:] @ weights["in_proj.weight"].T).split(config.hidden_size, dim=-1)
    y = [torch.zeros_like(x_BLD[:, 0])] * prefix
    for row, column in itertools.product(range(height), range(width)):
        seen = torch.zeros_like(g[:, 0])
        for i, j in itertools.product(range(k), range(k)):
            r, c = row + i - k // 2, column + j - k // 2
            if 0 <= r < height and 0 <= c < width:
                seen = seen + weights["conv.weight"][:, 0, i, j] * v[:, r * width + c]
        own = g[:, row * width + column]
        y.append((own * sigmoid(own) * seen) @ weights["out_proj.weight"].T)
    return torch.stack(y, dim=1)


def axial(weights: Weights, config: Any, x_BLD: Tensor) -> Tensor:
    """Of each cell, kind of line and head: softmax(q . k / sqrt(P)) over the cells of its line, times their v."""
    prefix, heads, P = config.puzzle_prefix_len, config.axial_heads, config.axial_head_dim
    width = config.grid_width or math.isqrt(x_BLD.shape[1] - prefix)
    height = (x_BLD.shape[1] - prefix) // width
    high, wide = math.isqrt(height), math.isqrt(width)
    qkv = x_BLD[:, prefix:] @ weights["qkv_proj.weight"].T
    y = [torch.zeros_like(x_BLD[:, 0])] * prefix
    for row, column in itertools.product(range(height), range(width)):
        lines = {
            "rows": [(row, c) for c in range(width)],
            "columns": [(r, column) for r in range(height)],
            "boxes": [(row // high * high + i, column // wide * wide + j) for i in range(high) for j in range(wide)],
        }
        seen = []
        for i, kind in enumerate(config.axial_lines):
            own = qkv[:, :, 3 * i * heads * P : 3 * (i + 1) * heads * P].unflatten(-1, (3, heads, P))
            line = [own[:, r * width + c] for r, c in lines[kind]]
            query = own[:, row * width + column, 0]
            scores = torch.stack([(query * cell[:, 1]).sum(-1) / math.sqrt(P) for cell in line], dim=-1)
            weight = scores.exp() / scores.exp().sum(-1, keepdim=True)
            seen.append(sum(weight[..., j, None] * cell[:, 2] for j, cell in enumerate(line)).flatten(1))
        y.append(torch.cat(seen, dim=-1) @ weights["o_proj.weight"].T)
    return torch.stack(y, dim=1)


def mamba2(weights: Weights, config: Any, x_BLD: Tensor) -> Tensor:
    """in_proj -> z, xBC, dt; silu(conv(xBC)) -> x, B, C; recurrence + D x; rms_norm(y silu(z)) per group; out_proj."""
    B, L, _ = x_BLD.shape
    N, G, P = config.mamba_d_state, config.mamba_n_groups, config.mamba_head_dim
    inner = config.mamba_expand * config.hidden_size
    H = inner // P
    projected = x_BLD @ weights["in_proj.weight"].T
    z, xBC, dt = projected.split([inner, inner + 2 * G * N, H], dim=-1)
    xBC = causal_conv(xBC, weights["conv1d.weight"], weights["conv1d.bias"])
    x, B_maps, C_maps = (xBC * sigmoid(xBC)).split([inner, G * N, G * N], dim=-1)
    dt = torch.log1p(torch.exp(dt + weights["dt_bias"]))
    x_BLHP = x.reshape(B, L, H, P)
    A_H = -torch.exp(weights["A_log"])
    y = ssm(x_BLHP, dt, A_H, B_maps.reshape(B, L, G, N), C_maps.reshape(B, L, G, N))
    y = (y + weights["D"][:, None] * x_BLHP).reshape(B, L, inner)
    gated = (y * z * sigmoid(z)).reshape(B, L, G, inner // G)
    normed = rms_norm(gated, -1, config.rms_norm_eps).reshape(B, L, inner) * weights["norm.weight"]
    return normed @ weights["out_proj.weight"].T


def turn_pairs(x_BHN: Tensor, angles_BHR: Tensor) -> Tensor:
    """Entries 2r and 2r + 1 as a complex number, times exp(i angle_r); what lies beyond R pairs stays."""
    R = angles_BHR.shape[-1]
    pairs = torch.view_as_complex(x_BHN[..., : 2 * R].reshape(*x_BHN.shape[:-1], R, 2).contiguous())
    turned = torch.view_as_real(pairs * torch.complex(angles_BHR.cos(), angles_BHR.sin())).flatten(-2)
    return torch.cat((turned, x_BHN[..., 2 * R :]), dim=-1)


def mamba3(weights: Weights, config: Any, x_BLD: Tensor) -> Tensor:
    """The exponential trapezoid rule, one step after the other:

    h_t = a_t h_{t-1} + (1 - lambda_t) dt_t a_t B_{t-1} x_{t-1} + lambda_t dt_t B_t x_t;  y_t = C_t h_t + D x_t.
    """
    B, L, _ = x_BLD.shape
    N, G, P = config.mamba_d_state, config.mamba_n_groups, config.mamba_head_dim
    inner = config.mamba_expand * config.hidden_size
    H, R = inner // P, int(N * config.mamba_rope_fraction) // 2
    projected = x_BLD @ weights["in_proj.weight"].T
    z, x, keys, queries, dt, A, share, angles = projected.split([inner, inner, G * N, G * N, H, H, H, R], dim=-1)
    dt = torch.log1p(torch.exp(dt + weights["dt_bias"]))
    decay = torch.exp(-torch.clamp(torch.log1p(torch.exp(A)), min=1e-4) * dt)
    share, angles = sigmoid(share), math.pi * torch.tanh(angles)

    def of_heads(maps_BX: Tensor, name: str) -> Tensor:
        normed = rms_norm(maps_BX.reshape(B, G, N), -1, config.rms_norm_eps) * weights[f"{name}_norm.weight"]
        return torch.repeat_interleave(normed, H // G, dim=1) + weights[f"{name}_bias"][:, 0]

    angle_BHR = x_BLD.new_zeros(B, H, R)
    h_BHPN, before_BHPN = x_BLD.new_zeros(2, B, H, P, N)
    outputs = []
    for t in range(L):
        angle_BHR = angle_BHR + angles[:, t, None] * dt[:, t, :, None]
        B_BHN = turn_pairs(of_heads(keys[:, t], "B"), angle_BHR)
        C_BHN = turn_pairs(of_heads(queries[:, t], "C"), angle_BHR)
        x_BHP = x[:, t].reshape(B, H, P)
        now_BHPN = x_BHP[..., :, None] * B_BHN[..., None, :]
        dt_t, decay_t, share_t = (values[:, t, :, None, None] for values in (dt, decay, share))
        h_BHPN = decay_t * h_BHPN + (1 - share_t) * dt_t * decay_t * before_BHPN + share_t * dt_t * now_BHPN
        before_BHPN = now_BHPN
        outputs.append((h_BHPN * C_BHN[..., None, :]).sum(-1) + weights["D"][:, None] * x_BHP)
    y = torch.stack(outputs, dim=1).reshape(B, L, inner)
    return (y * z * sigmoid(z)) @ weights["out_proj.weight"].T


def delta_rule(q_BLHN: Tensor, k_BLHN: Tensor, v_BLHP: Tensor, decay_BLH: Tensor, beta_BLH: Tensor) -> Tensor:
    """S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T;  o_t = S_t^T q_t, one step after the other."""
    B, L, H, N = k_BLHN.shape
    state_BHNP = v_BLHP.new_zeros(B, H, N, v_BLHP.shape[-1])
    outputs = []
    for t in range(L):
        k_BHN1, beta = k_BLHN[:, t, ..., None], beta_BLH[:, t, :, None, None]
        erase_BHNN = torch.eye(N, dtype=v_BLHP.dtype) - beta * k_BHN1 * k_BHN1.transpose(-1, -2)
        kept_BHNP = torch.exp(decay_BLH[:, t, :, None, None]) * (erase_BHNN @ state_BHNP)
        state_BHNP = kept_BHNP + beta * k_BHN1 * v_BLHP[:, t, :, None, :]
        outputs.append((state_BHNP * q_BLHN[:, t, ..., None]).sum(-2))
    return torch.stack(outputs, dim=1)


def delta(weights: Weights, config: Any, x_BLD: Tensor) -> Tensor:
    """silu(conv(x W)) -> q, k, v; q and k of unit length; delta rule of q / sqrt(N); rms_norm of each head, gate."""
    B, L, _ = x_BLD.shape
    H, N = config.delta_heads, config.delta_key_dim

    def projected(name: str) -> Tensor:
        return x_BLD @ weights[f"{name}_proj.weight"].T

    def short(name: str) -> Tensor:
        mixed = causal_conv(projected(name), weights[f"{name}_conv1d.weight"], torch.zeros(1, dtype=x_BLD.dtype))
        return (mixed * sigmoid(mixed)).reshape(B, L, H, -1)

    q, k = (x / torch.sqrt((x**2).sum(-1, keepdim=True) + 1e-6) for x in (short("q"), short("k")))
    decay = -torch.exp(weights["A_log"]) * torch.log1p(torch.exp(projected("a") + weights["dt_bias"]))
    o = delta_rule(q / math.sqrt(N), k, short("v"), decay, sigmoid(projected("b")))
    g = projected("g").reshape(B, L, H, -1)
    normed = rms_norm(o, -1, config.rms_norm_eps) * weights["o_norm.weight"]
    return (normed * g * sigmoid(g)).reshape(B, L, -1) @ weights["o_proj.weight"].T


def symbols(weights: Weights, config: Any, x_BKLD: Tensor) -> Tensor:
    """Field k at a cell: W mean of the other fields there, or attention to them (arXiv 2603.02193), head by head."""
    K, D = x_BKLD.shape[1], x_BKLD.shape[3]
    P, fields = D // config.num_attention_heads, []
    for k in range(K):
        others_BKLD = torch.stack([x_BKLD[:, other] for other in range(K) if other != k], dim=1)
        if config.symbol_mixing == "mean":
            mixed = others_BKLD.mean(1)
        else:
            heads = []
            for h in range(config.num_attention_heads):
                W_q, W_k, W_v = (weights["qkv_proj.weight"][part * D + h * P :][:P] for part in range(3))
                q_BLP, k_BKLP, v_BKLP = x_BKLD[:, k] @ W_q.T, others_BKLD @ W_k.T, others_BKLD @ W_v.T
                scores = torch.exp((k_BKLP * q_BLP[:, None]).sum(-1, keepdim=True) / math.sqrt(P))
                heads.append((scores * v_BKLP).sum(1) / scores.sum(1))
            mixed = torch.cat(heads, dim=-1)
        fields.append(mixed @ weights["o_proj.weight"].T)
    return torch.stack(fields, dim=1)


ORACLES: dict[str, Callable[[Weights, Any, Tensor], Tensor]] = {
    "attention": attention,
    "mamba2": mamba2,
    "mlp_t": mlp_t,
    "mlp": mlp,
    "mamba3": mamba3,
    "delta": delta,
    "conv_mlp": conv_mlp,
    "conv2d": conv2d,
    "axial": axial,
    "symbols": symbols,
}
ALL_FIELDS = ("symbols",)  # take [B, K, L, D]; the others one field at a time
IN_ORDER = ("mamba2", "mamba3", "delta", "conv_mlp")  # take cell after cell
# The reference normalises the transposed tensor of its MLP-t, so over positions; everything else over channels.
NORM_AXIS = {"mlp_t": 1}


def scan_order(config: Any, order: str, positions: int) -> list[int]:
    """The positions in the order in which they are read; the prefix first."""
    prefix = config.puzzle_prefix_len
    cells = list(range(prefix, positions))
    if "transposed" in order:
        width = config.grid_width or math.isqrt(len(cells))
        cells = [cell for column in range(width) for cell in cells[column::width]]
    return list(range(prefix)) + (cells[::-1] if "reversed" in order else cells)


def in_frame(name: str, weights: Weights, config: Any, h: Tensor, order: str) -> Tensor:
    """The operator on the latent [B, L, D] or [B, K, L, D], each field a sequence of its own, in that order."""
    if name in ALL_FIELDS:
        return ORACLES[name](weights, config, h)
    if h.ndim == 4:
        return in_frame(name, weights, config, h.flatten(0, 1), order).reshape(h.shape)
    read = scan_order(config, order, h.shape[1])
    y = ORACLES[name](weights, config, torch.stack([h[:, position] for position in read], dim=1))
    return torch.stack([y[:, read.index(position)] for position in range(h.shape[1])], dim=1)


def stack(weights: Weights, config: Any, h: Tensor) -> Tensor:
    """h = rms_norm(h + operator(h)) after every sublayer; the weights of sublayer i are named `i.`..."""
    scans = 0
    for i, name in enumerate(config.block_operators):
        own = {key.removeprefix(f"{i}."): value for key, value in weights.items() if key.startswith(f"{i}.")}
        order = config.scan_orders[scans % len(config.scan_orders)] if name in IN_ORDER else "raster"
        scans += name in IN_ORDER
        axis = {1: -2, 2: -1}[NORM_AXIS.get(name, 2)]
        h = rms_norm(h + in_frame(name, own, config, h, order), axis, config.rms_norm_eps)
    return h
