"""torch.compile of the stack: what it needs on a machine, and a stack that runs its code."""

import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

COMPILERS = {"cpu": ("g++", "clang++"), "gpu": ("gcc", "clang", "cc")}
MOST_FORMS = 64  # of one function: every architecture, precision and grid size of a process is one


def find_compiler(device: torch.device) -> str | None:
    """Path of the compiler that torch.compile needs for the device, C++ for a CPU and C for a GPU; None without one."""
    return next(filter(None, map(shutil.which, COMPILERS["cpu" if device.type == "cpu" else "gpu"])), None)


def python_header() -> Path:
    """Where Python's own header should lie, which torch.compile needs as well."""
    return Path(sysconfig.get_paths()["include"]) / "Python.h"


def can_compile(device: torch.device) -> bool:
    """True where torch.compile finds what it needs."""
    return python_header().exists() and find_compiler(device) is not None


def allow_forms() -> None:
    """As many forms of a function as a process may need: past PyTorch's bound of 8 it would go on uncompiled."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_FORMS)


class CompiledStack(nn.Module):
    """A Stack, [B, L, D] -> [B, L, D], by torch.compile's code; the stack itself stays as it is.

    PyTorch keeps the code for the life of the process: a second size of batch makes it general, further ones cost
    nothing.
    """

    def __init__(self, stack: Any) -> None:
        super().__init__()
        allow_forms()
        self.prepare, self.run = stack.prepare, torch.compile(stack.forward)

    def forward(self, h_BLD: Tensor, prepared: Sequence[tuple[Tensor, ...]]) -> Tensor:
        return self.run(h_BLD, prepared)
