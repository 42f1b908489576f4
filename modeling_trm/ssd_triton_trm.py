"""The product of Mamba-2's dual form in Triton: ssd_backend="triton".

On an H200 it equals the PyTorch path; a whole training step has not been timed since it compiles as one graph, so it is
never chosen by itself (dev/LOG.md).

    y_i = sum_{j <= i} W_ij u_j,    W_ij = scores_ij exp(c_i - c_j)        (arXiv 2405.21060, section 3.3)

Nothing of size [B, H, L, L] goes to memory: the weights W are made block by block from the scores, which the heads of a
group share, and the running sums c. The scores themselves are a matrix product of PyTorch's, with its gradient.
No atomics: every sum has one order, so two runs give the same bits.

Shapes: B batch, L positions, H heads, P head size, G groups. Blocks: i rows (outputs), j columns (inputs).
All kernels take contiguous tensors; exp, c and every sum are float32, a product's factors have the inputs' type. They
are multiplied as they are (input_precision "ieee"): of float32, Triton's default, TF32, would keep 10 bits, which
PyTorch's matmul does only when asked to.
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

# Of a program, the fastest of those tried on an H200 for 384 sequences of 82 positions, 16 heads of 64 (dev/LOG.md).
SIDE, WARPS = 32, {"forward": 2, "inputs": 4, "scores": 4}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# A copy of this file that comes with a checkpoint has operators of its own.
NAMESPACE = re.sub(r"\W", "_", __name__)


def triton_missing(device: torch.device) -> str | None:
    """Why the kernels cannot run on the device; None if they can. Their interpreter (a debugging aid) runs anywhere."""
    return f"the tensor is on {device}" if NEEDS_CUDA and device.type != "cuda" else None


def triton_product(scores_BGLL: Tensor, cumulative_BHL: Tensor, u_BLHP: Tensor) -> Tensor:
    """y [B, L, H, P] in the type of the scores, of which the part above the diagonal is not read.

    Args:
        scores_BGLL: C B^T of each group. cumulative_BHL: c, float32, falling along L. u_BLHP: dt x.

    Raises:
        TypeError: a type that the kernels do not compute in.
    """
    if scores_BGLL.dtype not in DTYPES:
        raise TypeError(f"ssd_backend='triton' computes in {', '.join(map(str, DTYPES))}, not in {scores_BGLL.dtype}")
    # Autocast rounds the scores alone, as it does both factors of the PyTorch path's products.
    return ssd_product(scores_BGLL, cumulative_BHL.float(), u_BLHP.to(scores_BGLL.dtype))


@torch.library.custom_op(f"{NAMESPACE}::ssd_product", mutates_args=())
def ssd_product(scores: Tensor, cumulative: Tensor, u: Tensor) -> Tensor:
    scores, cumulative, u = scores.contiguous(), cumulative.contiguous(), u.contiguous()
    y = torch.empty_like(u)
    sizes, block = _sizes(scores, u)
    with torch.cuda.device_of(u):
        _forward[(u.shape[0] * u.shape[2], triton.cdiv(u.shape[1], block))](
            scores, cumulative, u, y, **sizes, num_warps=WARPS["forward"]
        )
    return y


@torch.library.custom_op(f"{NAMESPACE}::ssd_product_backward", mutates_args=())
def ssd_product_backward(dy: Tensor, scores: Tensor, cumulative: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the scores, of the running sums and of u."""
    dy, scores, cumulative, u = dy.contiguous(), scores.contiguous(), cumulative.contiguous(), u.contiguous()
    dscores, du, columns = torch.empty_like(scores), torch.empty_like(u), torch.empty_like(cumulative)
    sizes, block = _sizes(scores, u)
    B, L, H, _ = u.shape
    blocks = triton.cdiv(L, block)
    rows = cumulative.new_zeros(blocks, B, H, L)  # one part from every block of columns
    with torch.cuda.device_of(u):
        _backward_inputs[(B * H, blocks)](
            dy, scores, cumulative, u, du, columns, rows, **sizes, num_warps=WARPS["inputs"]
        )
        _backward_scores[(B * scores.shape[1], blocks, blocks)](
            dy, cumulative, u, dscores, **sizes, num_warps=WARPS["scores"]
        )
    return dscores, rows.sum(0) - columns, du


@ssd_product.register_fake
def _(scores: Tensor, cumulative: Tensor, u: Tensor) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@ssd_product_backward.register_fake
def _(dy: Tensor, scores: Tensor, cumulative: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dscores, dcumulative, du = (
        torch.empty_like(t, memory_format=torch.contiguous_format) for t in (scores, cumulative, u)
    )
    return dscores, dcumulative, du


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return ssd_product_backward(dy, *ctx.saved_tensors)


ssd_product.register_autograd(_gradients, setup_context=_keep)


def _sizes(scores: Tensor, u: Tensor) -> tuple[dict[str, int], int]:
    """What every kernel is compiled for, and the side of a block of positions: a power of two, 16 at least (tl.dot)."""
    _, L, H, P = u.shape
    block = min(max(16, triton.next_power_of_2(L)), SIDE)
    width = max(16, triton.next_power_of_2(P))
    return {"L": L, "H": H, "P": P, "G": scores.shape[1], "BLOCK": block, "WIDTH": width}, block


# --- kernels --------------------------------------------------------------------------------------------------------
# A `head_ptr` points at position 0 of one head in [B, L, H, P], whose rows lie H * P apart.


@triton.jit
def _load_head(head_ptr, block, L, H, P, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """[BLOCK, WIDTH] positions and channels of a head, 0 outside."""
    i, p = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    inside = (i[:, None] < L) & (p[None, :] < P)
    return tl.load(head_ptr + i[:, None] * H * P + p[None, :], mask=inside, other=0.0)


@triton.jit
def _store_head(head_ptr, value, block, L, H, P, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    i, p = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    inside = (i[:, None] < L) & (p[None, :] < P)
    tl.store(head_ptr + i[:, None] * H * P + p[None, :], value.to(head_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _decay(c_ptr, rows, columns, L, BLOCK: tl.constexpr):
    """[BLOCK, BLOCK] exp(c_i - c_j) where j <= i < L, else 0; masked before exp: else inf * 0 = NaN."""
    i, j = rows * BLOCK + tl.arange(0, BLOCK), columns * BLOCK + tl.arange(0, BLOCK)
    c_i, c_j = tl.load(c_ptr + i, mask=i < L, other=0.0), tl.load(c_ptr + j, mask=j < L, other=0.0)
    inside = (j[None, :] <= i[:, None]) & (i[:, None] < L)
    return tl.exp(tl.where(inside, c_i[:, None] - c_j[None, :], float("-inf")))


@triton.jit
def _weights(scores_ptr, c_ptr, rows, columns, L, BLOCK: tl.constexpr):
    """[BLOCK, BLOCK] W in float32. What is not read may be infinite: 0 and not inf * 0."""
    i, j = rows * BLOCK + tl.arange(0, BLOCK), columns * BLOCK + tl.arange(0, BLOCK)
    inside = (j[None, :] <= i[:, None]) & (i[:, None] < L)
    scores = tl.load(scores_ptr + i[:, None] * L + j[None, :], mask=inside, other=0.0)
    return scores.to(tl.float32) * _decay(c_ptr, rows, columns, L, BLOCK)


@triton.jit
def _forward(
    scores_ptr, c_ptr, u_ptr, y_ptr,
    L: tl.constexpr, H: tl.constexpr, P: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """A block of rows of y for one head."""
    batch, head, rows = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H, tl.program_id(1)
    scores_ptr += (batch * G + head // (H // G)) * L * L
    c_ptr += (batch * H + head) * L
    start = (batch * L * H + head) * P
    y = tl.full((BLOCK, WIDTH), 0.0, tl.float32)
    for columns in range(rows + 1):
        u = _load_head(u_ptr + start, columns, L, H, P, BLOCK, WIDTH)
        weights = _weights(scores_ptr, c_ptr, rows, columns, L, BLOCK)
        y = tl.dot(weights.to(u.dtype), u, y, input_precision="ieee")
    _store_head(y_ptr + start, y, rows, L, H, P, BLOCK, WIDTH)


@triton.jit
def _backward_inputs(
    dy_ptr, scores_ptr, c_ptr, u_ptr, du_ptr, columns_ptr, rows_ptr,
    L: tl.constexpr, H: tl.constexpr, P: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """For a block of columns of one head: du, and the sums of M_ij = dW_ij W_ij over i and, as one part of it, over j.

    dc_i = sum_j M_ij - sum_j M_ji. The diagonal would cancel and is left out; no sum passes through bfloat16.
    """
    batch, head, columns = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H, tl.program_id(1)
    scores_ptr += (batch * G + head // (H // G)) * L * L
    c_ptr += (batch * H + head) * L
    part_ptr = rows_ptr + (columns * tl.num_programs(0).to(tl.int64) + tl.program_id(0)) * L
    start = (batch * L * H + head) * P
    j = columns * BLOCK + tl.arange(0, BLOCK)
    u = _load_head(u_ptr + start, columns, L, H, P, BLOCK, WIDTH)
    du = tl.full((BLOCK, WIDTH), 0.0, tl.float32)
    over_i = tl.full((BLOCK,), 0.0, tl.float32)
    for rows in range(columns, tl.num_programs(1)):
        i = rows * BLOCK + tl.arange(0, BLOCK)
        dy = _load_head(dy_ptr + start, rows, L, H, P, BLOCK, WIDTH)
        weights = _weights(scores_ptr, c_ptr, rows, columns, L, BLOCK)
        du = tl.dot(tl.trans(weights.to(dy.dtype)), dy, du, input_precision="ieee")
        changes = tl.dot(dy, tl.trans(u), input_precision="ieee") * weights
        changes = tl.where(i[:, None] > j[None, :], changes, 0.0)
        over_i += tl.sum(changes, axis=0)
        tl.store(part_ptr + i, tl.sum(changes, axis=1), mask=i < L)
    _store_head(du_ptr + start, du, columns, L, H, P, BLOCK, WIDTH)
    tl.store(columns_ptr + (batch * H + head) * L + j, over_i, mask=j < L)


@triton.jit
def _backward_scores(
    dy_ptr, c_ptr, u_ptr, dscores_ptr,
    L: tl.constexpr, H: tl.constexpr, P: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """A block of the gradient of the scores of one group: sum_h exp(c_i - c_j) dy_i u_j over its heads; 0 for j > i."""
    batch, group = (tl.program_id(0) // G).to(tl.int64), tl.program_id(0) % G
    rows, columns = tl.program_id(1), tl.program_id(2)
    dscores = tl.full((BLOCK, BLOCK), 0.0, tl.float32)
    if columns <= rows:
        for head in range(group * (H // G), (group + 1) * (H // G)):
            start = (batch * L * H + head) * P
            dy = _load_head(dy_ptr + start, rows, L, H, P, BLOCK, WIDTH)
            u = _load_head(u_ptr + start, columns, L, H, P, BLOCK, WIDTH)
            changes = tl.dot(dy, tl.trans(u), input_precision="ieee")
            dscores += changes * _decay(c_ptr + (batch * H + head) * L, rows, columns, L, BLOCK)
    i, j = rows * BLOCK + tl.arange(0, BLOCK), columns * BLOCK + tl.arange(0, BLOCK)
    inside = (i[:, None] < L) & (j[None, :] < L)
    dscores_ptr += (batch * G + group) * L * L + i[:, None] * L + j[None, :]
    tl.store(dscores_ptr, dscores.to(dscores_ptr.dtype.element_ty), mask=inside)


# Asked once, here: inside torch.compile the question what a kernel is breaks the graph.
NEEDS_CUDA = isinstance(_forward, triton.JITFunction)  # not in Triton's interpreter
