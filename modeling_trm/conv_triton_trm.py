"""silu of Mamba-2's causal depthwise convolution in Triton, part of ssd_backend="triton".

    y_t = silu(p_t),    p_t = bias + sum_k weight_k x_{t - (K - 1) + k}        (arXiv 2405.21060, section 7.1)

One kernel forward and one backward, which makes p anew: neither p nor a shifted copy of x goes to memory. No atomics:
every sum has one order, so two runs give the same bits. Everything between loads and stores is float32.

Shapes: B batch, L positions, C channels, K width. Of a program: t its positions, c its channels.
"""

import re
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(
        f"ssd_backend='triton' cannot be used: {error}. Install with pip install triton, or set ssd_backend='auto' or "
        f"'torch'."
    ) from error

# A copy of this file that comes with a checkpoint has operators of its own.
NAMESPACE = re.sub(r"\W", "_", __name__)
WIDEST = 4  # of the kernel, which keeps a sum of the weight's gradient for each of its columns
# Of a program, the fastest of those tried on an H200 for [384, 82, 1280] in bfloat16 (dev/LOG.md): forward each thread
# loads 16 bytes at once, backward fewer rows leave registers for more programs at a time.
FORWARD = {"ROWS": 8, "CHANNELS": 128, "num_warps": 4}
BACKWARD = {"ROWS": 4, "CHANNELS": 128, "num_warps": 4}


@torch.library.custom_op(f"{NAMESPACE}::conv_silu", mutates_args=())
def conv_silu(x_BLC: Tensor, weight_CK: Tensor, bias_C: Tensor) -> Tensor:
    """silu of the causal depthwise convolution along L: [B, L, C] in x's type.

    Args:
        x_BLC: channels adjacent in memory; positions may lie further apart (a slice of in_proj's output).
        weight_CK: K up to WIDEST. bias_C: in any float type, as the weight.
    """
    x, weight, bias = _adjacent(x_BLC), weight_CK.contiguous(), bias_C.contiguous()
    B, L, C = x.shape
    y = torch.empty((B, L, C), dtype=x.dtype, device=x.device)
    grid = B * triton.cdiv(L, FORWARD["ROWS"]), triton.cdiv(C, FORWARD["CHANNELS"])
    with torch.cuda.device_of(x):
        _forward[grid](x, weight, bias, y, L, C, x.stride(0), x.stride(1), K=weight.shape[1], **FORWARD)
    return y


@torch.library.custom_op(f"{NAMESPACE}::conv_silu_backward", mutates_args=())
def conv_silu_backward(
    dy_BLC: Tensor, x_BLC: Tensor, weight_CK: Tensor, bias_C: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, of the weight and of the bias."""
    dy, x, weight, bias = dy_BLC.contiguous(), _adjacent(x_BLC), weight_CK.contiguous(), bias_C.contiguous()
    B, L, C = x.shape
    K = weight.shape[1]
    dx = torch.empty((B, L, C), dtype=x.dtype, device=x.device)
    sums = torch.empty((B, K + 1, C), dtype=torch.float32, device=x.device)  # the last row is the bias's
    with torch.cuda.device_of(x):
        _backward[(B, triton.cdiv(C, BACKWARD["CHANNELS"]))](
            dy, x, weight, bias, dx, sums, L, C, x.stride(0), x.stride(1), K=K, **BACKWARD
        )
    return dx, sums[:, :K].sum(0).t().contiguous().to(weight.dtype), sums[:, K].sum(0).to(bias.dtype)


@conv_silu.register_fake
def _(x_BLC: Tensor, weight_CK: Tensor, bias_C: Tensor) -> Tensor:
    return torch.empty_like(x_BLC, memory_format=torch.contiguous_format)


@conv_silu_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dx, dweight, dbias = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, weight, bias))
    return dx, dweight, dbias


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return conv_silu_backward(dy, *ctx.saved_tensors)


conv_silu.register_autograd(_gradients, setup_context=_keep)


def _adjacent(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


# --- kernels --------------------------------------------------------------------------------------------------------
# An `x_ptr` points at position 0 of one sequence, whose positions lie `x_row` numbers apart.


@triton.jit
def _load(x_ptr, t, c, row, L, C):
    """[ROWS, CHANNELS] in float32, 0 outside of the sequence."""
    inside = (t[:, None] >= 0) & (t[:, None] < L) & (c[None, :] < C)
    return tl.load(x_ptr + t[:, None] * row + c[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _convolved(x_ptr, weight_ptr, bias_ptr, t, c, row, L, C, K: tl.constexpr, ROWS: tl.constexpr):
    """p at the positions t."""
    bias = tl.load(bias_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    p = bias[None, :] + tl.full((ROWS, 1), 0.0, tl.float32)
    for k in tl.static_range(K):
        weight = tl.load(weight_ptr + c * K + k, mask=c < C, other=0.0).to(tl.float32)
        p += weight[None, :] * _load(x_ptr, t - (K - 1) + k, c, row, L, C)
    return p


@triton.jit
def _forward(
    x_ptr, weight_ptr, bias_ptr, y_ptr, L: tl.constexpr, C: tl.constexpr, x_batch, x_row: tl.constexpr,
    K: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A block of positions and channels of one sequence."""
    blocks = tl.cdiv(L, ROWS)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    t = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    p = _convolved(x_ptr + batch * x_batch, weight_ptr, bias_ptr, t, c, x_row, L, C, K, ROWS)
    y = p * tl.sigmoid(p)
    inside = (t[:, None] < L) & (c[None, :] < C)
    tl.store(y_ptr + (batch * L + t[:, None]) * C + c[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    dy_ptr, x_ptr, weight_ptr, bias_ptr, dx_ptr, sums_ptr,
    L: tl.constexpr, C: tl.constexpr, x_batch, x_row: tl.constexpr,
    K: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """All positions of a block of channels of one sequence: dx, and its share of the sums over batch and positions.

    dp_t = dy_t silu'(p_t),    dx_t = sum_s weight_{K-1-s} dp_{t+s},    dweight_k = sum_t dp_t x_{t-(K-1)+k}.
    """
    batch = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    x_ptr += batch * x_batch
    dy_ptr += batch * L * C
    dw_0 = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
    dw_1, dw_2, dw_3, dbias = dw_0, dw_0, dw_0, dw_0
    for start in range(0, L, ROWS):
        t = start + tl.arange(0, ROWS)
        dx = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
        for s in tl.static_range(K):
            p = _convolved(x_ptr, weight_ptr, bias_ptr, t + s, c, x_row, L, C, K, ROWS)
            gate = tl.sigmoid(p)
            dp = _load(dy_ptr, t + s, c, C, L, C) * gate * (1 + p * (1 - gate))
            weight = tl.load(weight_ptr + c * K + (K - 1 - s), mask=c < C, other=0.0).to(tl.float32)
            dx += weight[None, :] * dp
            if s == 0:
                dbias += dp
                dw_0 += dp * _load(x_ptr, t - (K - 1), c, x_row, L, C)
                if K > 1:
                    dw_1 += dp * _load(x_ptr, t - (K - 2), c, x_row, L, C)
                if K > 2:
                    dw_2 += dp * _load(x_ptr, t - (K - 3), c, x_row, L, C)
                if K > 3:
                    dw_3 += dp * _load(x_ptr, t, c, x_row, L, C)
        inside = (t[:, None] < L) & (c[None, :] < C)
        tl.store(dx_ptr + (batch * L + t[:, None]) * C + c[None, :], dx.to(dx_ptr.dtype.element_ty), mask=inside)
    sums_ptr += batch * (K + 1) * C + c
    tl.store(sums_ptr, tl.sum(dw_0, axis=0), mask=c < C)
    if K > 1:
        tl.store(sums_ptr + C, tl.sum(dw_1, axis=0), mask=c < C)
    if K > 2:
        tl.store(sums_ptr + 2 * C, tl.sum(dw_2, axis=0), mask=c < C)
    if K > 3:
        tl.store(sums_ptr + 3 * C, tl.sum(dw_3, axis=0), mask=c < C)
    tl.store(sums_ptr + K * C, tl.sum(dbias, axis=0), mask=c < C)
