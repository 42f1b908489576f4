"""Which kernels of Mamba-2 can run on a device."""

import torch

from ..ssd_cuda_trm import CUDA_KERNELS_MISSING


def ssd_missing(backend: str, device: torch.device) -> str | None:
    """Why that ssd_backend cannot run there; None if it can."""
    if backend == "cuda":
        return CUDA_KERNELS_MISSING or (None if device.type == "cuda" else f"the device is {device}")
    if backend == "triton":
        try:
            from ..ssd_triton_trm import triton_missing  # optional, and slow to import
        except ImportError as error:
            return str(error)
        return triton_missing(device)
    return None
