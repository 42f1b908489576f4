"""The product of Mamba-2's dual form in Triton: ssd_backend="triton".

On an H200 it equals the PyTorch path and makes a hybrid's compiled training step 1.1 to 1.3 times faster; no other card
has been tried, so it is never chosen by itself (dev/LOG.md).

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

# Of a program: the side of a block, the fastest of those tried on an H200 for 384 sequences of 82 positions, 16 heads
# of 64 (dev/LOG.md). Backward a block has up to ROWS rows, and few registers, for more programs at a time: else
# the compiler keeps addresses there. Triton 3.9 asks for a word on fused multiply-adds, the default until then.
SIDE, FORWARD = 32, {"num_warps": 2, "enable_fp_fusion": True}
ROWS, BACKWARD = 32, {"num_warps": 4, "num_stages": 1, "maxnreg": 128, "enable_fp_fusion": True}
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
        _ssd_forward[(u.shape[0] * u.shape[2], triton.cdiv(u.shape[1], block))](
            scores, cumulative, u, y, **sizes, **FORWARD
        )
    return y


@torch.library.custom_op(f"{NAMESPACE}::ssd_product_backward", mutates_args=())
def ssd_product_backward(dy: Tensor, scores: Tensor, cumulative: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the scores, of the running sums and of u."""
    dy, scores, cumulative, u = dy.contiguous(), scores.contiguous(), cumulative.contiguous(), u.contiguous()
    dscores, du = torch.empty_like(scores), torch.empty_like(u)
    sizes, block = _sizes(scores, u)
    B, L, H, _ = u.shape
    blocks, rows = triton.cdiv(L, block), min(max(block, triton.next_power_of_2(L)), ROWS)
    dc = cumulative.new_empty(blocks + 1, B, H, L)  # a part from every block of columns, and one from all
    with torch.cuda.device_of(u):
        _ssd_backward[(B * scores.shape[1] * blocks,)](
            dy, scores, cumulative, u, dscores, du, dc, **sizes, ROWS=rows, TILES=triton.cdiv(L, rows), **BACKWARD
        )
    return dscores, dc.sum(0), du


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
def _decay(c_ptr, i, j, L):
    """exp(c_i - c_j) where j <= i < L, else 0; masked before exp: else inf * 0 = NaN."""
    c_i, c_j = tl.load(c_ptr + i, mask=i < L, other=0.0), tl.load(c_ptr + j, mask=j < L, other=0.0)
    inside = (j[None, :] <= i[:, None]) & (i[:, None] < L)
    return tl.exp(tl.where(inside, c_i[:, None] - c_j[None, :], float("-inf")))


@triton.jit
def _load_scores(scores_ptr, i, j, L):
    """The scores where j <= i < L, else 0: what is not read may be infinite."""
    inside = (j[None, :] <= i[:, None]) & (i[:, None] < L)
    return tl.load(scores_ptr + i[:, None] * L + j[None, :], mask=inside, other=0.0)


@triton.jit
def _ssd_forward(
    scores_ptr, c_ptr, u_ptr, y_ptr,
    L: tl.constexpr, H: tl.constexpr, P: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """A block of rows of y for one head."""
    batch, head, rows = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H, tl.program_id(1)
    scores_ptr += (batch * G + head // (H // G)) * L * L
    c_ptr += (batch * H + head) * L
    start = (batch * L * H + head) * P
    i = rows * BLOCK + tl.arange(0, BLOCK)
    y = tl.full((BLOCK, WIDTH), 0.0, tl.float32)
    for columns in range(rows + 1):
        u = _load_head(u_ptr + start, columns, L, H, P, BLOCK, WIDTH)
        j = columns * BLOCK + tl.arange(0, BLOCK)
        weights = _load_scores(scores_ptr, i, j, L).to(tl.float32) * _decay(c_ptr, i, j, L)
        y = tl.dot(weights.to(u.dtype), u, y, input_precision="ieee")
    _store_head(y_ptr + start, y, rows, L, H, P, BLOCK, WIDTH)


@triton.jit
def _append(values, value):
    return values + (value,)  # noqa: RUF005  # Triton does not unpack


@triton.jit
def _zeros(TILES: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    tiles = ()
    for _ in tl.static_range(TILES):
        tiles = _append(tiles, tl.full((ROWS, BLOCK), 0.0, tl.float32))
    return tiles


@triton.jit
def _ssd_backward(
    dy_ptr, scores_ptr, c_ptr, u_ptr, dscores_ptr, du_ptr, dc_ptr,
    L: tl.constexpr, H: tl.constexpr, P: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """For a block of columns of one group and all rows, in TILES of ROWS: dscores, du of each head, and parts of dc.

    dW_ij = dy_i u_j, dscores_ij = sum_h dW_ij exp(c_i - c_j), and dc_i = sum_j M_ij - sum_j M_ji of M_ij = dW_ij W_ij:
    a part of the first sum from each block of columns, and the second. The diagonal of M would cancel and is left out;
    no sum passes through bfloat16.
    """
    blocks = tl.cdiv(L, BLOCK)  # those of a group run side by side, and find its dy in the cache
    columns, batch = tl.program_id(0) % blocks, (tl.program_id(0) // (blocks * G)).to(tl.int64)
    group = tl.program_id(0) // blocks % G
    scores_ptr += (batch * G + group) * L * L
    dscores_ptr += (batch * G + group) * L * L
    part = (tl.num_programs(0) // (blocks * G)).to(tl.int64) * H * L  # numbers in a part of dc
    j = columns * BLOCK + tl.arange(0, BLOCK)
    scores, dscores = (), _zeros(TILES, ROWS, BLOCK)
    for tile in tl.static_range(TILES):
        scores = _append(scores, _load_scores(scores_ptr, tile * ROWS + tl.arange(0, ROWS), j, L))
    for head in range(group * (H // G), (group + 1) * (H // G)):
        start, sums = (batch * L * H + head) * P, (batch * H + head) * L
        u = _load_head(u_ptr + start, columns, L, H, P, BLOCK, WIDTH)
        du, over_i, new_dscores = tl.full((BLOCK, WIDTH), 0.0, tl.float32), tl.full((BLOCK,), 0.0, tl.float32), ()
        for tile in tl.static_range(TILES):
            i = tile * ROWS + tl.arange(0, ROWS)
            tile_dscores, over_j = dscores[tile], tl.full((ROWS,), 0.0, tl.float32)
            if (tile + 1) * ROWS > columns * BLOCK:  # else all of it lies above the diagonal
                dy = _load_head(dy_ptr + start, tile, L, H, P, ROWS, WIDTH)
                decay = _decay(c_ptr + sums, i, j, L)
                dweights = tl.dot(dy, tl.trans(u), input_precision="ieee")
                tile_dscores += dweights * decay
                weights = scores[tile].to(tl.float32) * decay
                du = tl.dot(tl.trans(weights.to(dy.dtype)), dy, du, input_precision="ieee")
                changes = tl.where(i[:, None] > j[None, :], dweights * weights, 0.0)
                over_i += tl.sum(changes, axis=0)
                over_j = tl.sum(changes, axis=1)
            new_dscores = _append(new_dscores, tile_dscores)
            tl.store(dc_ptr + columns * part + sums + i, over_j, mask=i < L)
        dscores = new_dscores
        tl.store(dc_ptr + blocks * part + sums + j, -over_i, mask=j < L)
        _store_head(du_ptr + start, du, columns, L, H, P, BLOCK, WIDTH)
    for tile in tl.static_range(TILES):
        i = tile * ROWS + tl.arange(0, ROWS)
        inside = (i[:, None] < L) & (j[None, :] < L)
        block_ptr = dscores_ptr + i[:, None] * L + j[None, :]
        tl.store(block_ptr, dscores[tile].to(dscores_ptr.dtype.element_ty), mask=inside)


# Asked once, here: inside torch.compile the question what a kernel is breaks the graph.
NEEDS_CUDA = isinstance(_ssd_forward, triton.JITFunction)  # not in Triton's interpreter
