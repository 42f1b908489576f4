"""The kernels of causal_conv1d and mamba_ssm: ssd_backend="cuda", and "auto" on CUDA tensors where both import.

Each is one operation of torch.library with its gradient, so that torch.compile keeps it whole as one node of its graph:
left to itself it would trace into the packages' code.

Shapes: B batch, L positions, C channels, K width, H heads, P head size, G groups, N state.
"""

import re
from typing import Any

import torch
from torch import Tensor

try:
    # What the packages' own autograd functions call.
    from causal_conv1d.cpp_functions import causal_conv1d_bwd_function, causal_conv1d_fwd_function
    from mamba_ssm.ops.triton.ssd_combined import _mamba_chunk_scan_combined_bwd, _mamba_chunk_scan_combined_fwd

    CUDA_KERNELS_MISSING = None
except ImportError as error:
    CUDA_KERNELS_MISSING = str(error)

# A copy of this file that comes with a checkpoint has operators of its own.
NAMESPACE = re.sub(r"\W", "_", __name__)
CHUNK = 128  # and not the default 256: at 97 positions that pads the work 2.6 times


@torch.library.custom_op(f"{NAMESPACE}::conv_silu", mutates_args=())
def conv_silu(x_BLC: Tensor, weight_CK: Tensor, bias_C: Tensor) -> Tensor:
    """silu of the causal depthwise convolution along L: [B, L, C]."""
    return causal_conv1d_fwd_function(x_BLC.mT, weight_CK, bias_C, None, None, None, True).mT.contiguous()


@torch.library.custom_op(f"{NAMESPACE}::conv_silu_backward", mutates_args=())
def conv_silu_backward(
    dy_BLC: Tensor, x_BLC: Tensor, weight_CK: Tensor, bias_C: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, of the weight and of the bias."""
    dy_BCL = dy_BLC.contiguous().mT
    dx, dweight, dbias, _ = causal_conv1d_bwd_function(
        x_BLC.mT, weight_CK, bias_C, dy_BCL, None, None, None, None, False, True
    )
    return dx.mT.contiguous(), dweight, dbias


@torch.library.custom_op(f"{NAMESPACE}::ssd_scan", mutates_args=())
def ssd_scan(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, D_H: Tensor, dt_bias_H: Tensor
) -> Tensor:
    """y [B, L, H, P] of Mamba-2's recurrence with its skip term, for step sizes softplus(dt + dt_bias)."""
    given = {"D": D_H, "dt_bias": dt_bias_H, "dt_softplus": True}
    y_BLHP, *_ = _mamba_chunk_scan_combined_fwd(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, CHUNK, **given)
    return y_BLHP


@torch.library.custom_op(f"{NAMESPACE}::ssd_scan_backward", mutates_args=())
def ssd_scan_backward(
    dy: Tensor, y: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C, D and dt_bias."""
    given = {"D": D, "dt_bias": dt_bias, "dt_softplus": True}
    dx, ddt, dA, dB, dC, dD, _, ddt_bias, _ = _mamba_chunk_scan_combined_bwd(dy, x, dt, A, B, C, y, CHUNK, **given)
    found = zip((dx, ddt, dA, dB, dC, dD, ddt_bias), (x, dt, A, B, C, D, dt_bias), strict=True)
    return tuple(gradient.to(tensor.dtype).contiguous() for gradient, tensor in found)


@conv_silu.register_fake
def _(x_BLC: Tensor, weight_CK: Tensor, bias_C: Tensor) -> Tensor:
    return _like(x_BLC)


@conv_silu_backward.register_fake
def _(dy_BLC: Tensor, x_BLC: Tensor, weight_CK: Tensor, bias_C: Tensor) -> tuple[Tensor, ...]:
    return _like(x_BLC), _like(weight_CK), _like(bias_C)


@ssd_scan.register_fake
def _(x_BLHP: Tensor, *_: Tensor) -> Tensor:
    return _like(x_BLHP)


@ssd_scan_backward.register_fake
def _(dy: Tensor, y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(map(_like, inputs))


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _keep_output_and_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs)


conv_silu.register_autograd(lambda ctx, dy: conv_silu_backward(dy, *ctx.saved_tensors), setup_context=_keep_inputs)
ssd_scan.register_autograd(
    lambda ctx, dy: ssd_scan_backward(dy, *ctx.saved_tensors), setup_context=_keep_output_and_inputs
)
