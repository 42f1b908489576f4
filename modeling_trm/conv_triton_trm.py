"""silu of Mamba-2's causal depthwise convolution in Triton, part of ssd_backend="triton".

    y_t = silu(p_t),    p_t = bias + sum_k weight_k x_{t - (K - 1) + k}        (arXiv 2405.21060, section 7.1)

One kernel forward and one backward, which makes p anew: neither p nor a shifted copy of x goes to memory, and each is
loaded or made once a position. No atomics: every sum has one order, so two runs give the same bits. Everything between
loads and stores is float32.

Shapes: B batch, L positions, C channels, K width. A program has a block of columns n, the channels of all sequences one
after another, and takes their positions t one at a time: the K values that meet at a position wait in registers.
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
WIDEST = 4  # of the kernel: so many positions of a column still fit in registers
# Of a program: its columns, and the positions it loads at once (forward: all that it has). More columns a thread or
# more positions leave registers for fewer programs at a time. Among the fastest of those tried on an H200 (dev/LOG.md).
# Triton 3.9 asks for a word on fused multiply-adds, which were the default until then.
FORWARD = {"ROWS": 8, "CHANNELS": 128, "num_warps": 1, "enable_fp_fusion": True}
BACKWARD = {"ROWS": 8, "CHANNELS": 128, "num_warps": 2, "enable_fp_fusion": True}


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
    blocks = triton.cdiv(B * C, FORWARD["CHANNELS"]) * triton.cdiv(L, FORWARD["ROWS"])
    with torch.cuda.device_of(x):
        _conv_forward[(blocks,)](
            x, weight, bias, y, B * C, L, C, x.stride(0), x.stride(1), K=weight.shape[1], **FORWARD
        )
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
    dweight = torch.empty((B, C, K), dtype=torch.float32, device=x.device)
    dbias = torch.empty((B, C), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _conv_backward[(triton.cdiv(B * C, BACKWARD["CHANNELS"]),)](
            dy, x, weight, bias, dx, dweight, dbias, B * C, L, C, x.stride(0), x.stride(1), K=K, **BACKWARD
        )
    return dx, dweight.sum(0).to(weight.dtype), dbias.sum(0).to(bias.dtype)


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
# A tuple has one number of every column for each of K (or ROWS) positions or taps; Triton unrolls what walks over it.


@triton.jit
def _append(values, value):
    return values + (value,)  # noqa: RUF005  # Triton does not unpack


@triton.jit
def _parameters(weight_ptr, bias_ptr, c, inside, K: tl.constexpr):
    """The K weights and the bias of every column."""
    weights = ()
    for k in tl.static_range(K):
        weights = _append(weights, tl.load(weight_ptr + c * K + k, mask=inside, other=0.0).to(tl.float32))
    return weights, tl.load(bias_ptr + c, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _exist(t, inside, L):
    """Mask of the columns at position t, which Triton's interpreter may have as a number: of it comes no mask."""
    t = tl.full((1,), t, tl.int32)
    return inside & (t >= 0) & (t < L)


@triton.jit
def _load(ptr, first, row, L, inside, ROWS: tl.constexpr):
    """ROWS positions of every column, 0 outside of the sequence. They are `row` numbers apart; ptr is at position 0."""
    loaded = ()
    for step in tl.static_range(ROWS):
        t = first + step
        loaded = _append(loaded, tl.load(ptr + t * row, mask=_exist(t, inside, L), other=0.0))
    return loaded


@triton.jit
def _convolved(window, weights, bias, K: tl.constexpr):
    """p at the last position of the window."""
    p = bias
    for k in tl.static_range(K):
        p += weights[k] * window[k].to(tl.float32)
    return p


@triton.jit
def _conv_forward(
    x_ptr, weight_ptr, bias_ptr, y_ptr, columns, L: tl.constexpr, C: tl.constexpr, x_batch, x_row: tl.constexpr,
    K: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """ROWS positions of a block of columns."""
    blocks = tl.cdiv(L, ROWS)  # of the same columns; they run side by side, and find x in the cache
    n = tl.program_id(0) // blocks * CHANNELS + tl.arange(0, CHANNELS)
    batch, c, inside = (n // C).to(tl.int64), n % C, n < columns
    start = tl.program_id(0) % blocks * ROWS
    x = _load(x_ptr + (batch * x_batch + c), start - (K - 1), x_row, L, inside, ROWS + K - 1)
    weights, bias = _parameters(weight_ptr, bias_ptr, c, inside, K)
    y_ptr += batch * (L * C) + c
    for step in tl.static_range(ROWS):
        p = _convolved(x[step : step + K], weights, bias, K)
        y = p * tl.sigmoid(p)
        tl.store(y_ptr + (start + step) * C, y.to(y_ptr.dtype.element_ty), mask=_exist(start + step, inside, L))


@triton.jit
def _conv_backward(
    dy_ptr, x_ptr, weight_ptr, bias_ptr, dx_ptr, dweight_ptr, dbias_ptr, columns,
    L: tl.constexpr, C: tl.constexpr, x_batch, x_row: tl.constexpr,
    K: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """All positions of a block of columns: dx, and their sums over the positions for the weight and the bias.

    dp_t = dy_t silu'(p_t),    dx_t = sum_s weight_{K-1-s} dp_{t+s},    dweight_k = sum_t dp_t x_{t-(K-1)+k}.
    """
    n = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    batch, c, inside = (n // C).to(tl.int64), n % C, n < columns
    x_ptr += batch * x_batch + c
    dy_ptr += batch * (L * C) + c
    dx_ptr += batch * (L * C) + c
    weights, bias = _parameters(weight_ptr, bias_ptr, c, inside, K)
    dbias = tl.full((CHANNELS,), 0.0, tl.float32)
    x, dp, dweight = (), (), ()  # x and dp of the positions t - (K - 1) to t
    for _ in tl.static_range(K):
        x, dp, dweight = _append(x, dbias), _append(dp, dbias), _append(dweight, dbias)
    for start in range(0, L + K - 1, ROWS):  # dx_t is known K - 1 positions later
        next_x = _load(x_ptr, start, x_row, L, inside, ROWS)
        next_dy = _load(dy_ptr, start, C, L, inside, ROWS)
        for step in tl.static_range(ROWS):
            x = _append(x[1:], next_x[step].to(tl.float32))
            p = _convolved(x, weights, bias, K)
            gate = tl.sigmoid(p)
            dp = _append(dp[1:], next_dy[step].to(tl.float32) * gate * (1 + p * (1 - gate)))
            dbias += dp[K - 1]
            dx, sums = tl.full((CHANNELS,), 0.0, tl.float32), ()
            for k in tl.static_range(K):
                dx += weights[K - 1 - k] * dp[k]
                sums = _append(sums, dweight[k] + dp[K - 1] * x[k])
            dweight = sums
            t = start + step - (K - 1)
            tl.store(dx_ptr + t * C, dx.to(dx_ptr.dtype.element_ty), mask=_exist(t, inside, L))
    for k in tl.static_range(K):
        tl.store(dweight_ptr + n.to(tl.int64) * K + k, dweight[k], mask=inside)
    tl.store(dbias_ptr + n, dbias, mask=inside)
