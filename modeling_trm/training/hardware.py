"""What the machine can do: decides the recipe's "auto" settings."""

import shutil
import sysconfig
from pathlib import Path

import torch


def computes_in_bf16(device_type: str) -> bool:
    """True where bf16 is faster than float32: GPUs since Ampere, CPUs with AVX-512 or AMX instructions for it."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def has_compiler(device: torch.device) -> bool:
    """True where torch.compile finds what it needs: Python's headers, and a C++ compiler (on a GPU: a C compiler)."""
    headers = (Path(sysconfig.get_paths()["include"]) / "Python.h").exists()
    compilers = ("g++", "clang++") if device.type == "cpu" else ("gcc", "clang", "cc")
    return headers and any(shutil.which(name) for name in compilers)
