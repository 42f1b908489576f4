"""The recursion of arXiv 2510.04871 (figure 3), written out; `stack` is any function of one tensor.

    two latents:   repeat H times: repeat L times: z_L = stack(z_L + z_H + x);  then z_H = stack(z_H + z_L)
    one latent:    repeat H times: repeat L times: z = stack(z + x)
Gradient flows through the last of the H cycles only: what the ones before it made is cut off.
"""

from collections.abc import Callable

from torch import Tensor

Function = Callable[[Tensor], Tensor]


def two_latents(stack: Function, z_H: Tensor, z_L: Tensor, x: Tensor, H: int, L: int, cut: bool = True):
    for h in range(H):
        for _ in range(L):
            z_L = stack(z_L + z_H + x)
        z_H = stack(z_H + z_L)
        if cut and h < H - 1:
            z_H, z_L = z_H.detach(), z_L.detach()
    return z_H, z_L


def one_latent(stack: Function, z: Tensor, x: Tensor, H: int, L: int, cut: bool = True):
    for h in range(H):
        for _ in range(L):
            z = stack(z + x)
        if cut and h < H - 1:
            z = z.detach()
    return z, None
