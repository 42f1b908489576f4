"""Training whose weights are the same bits in every run, on CUDA too. On a CPU they are without it.

Source: PyTorch's notes on reproducibility (https://docs.pytorch.org/docs/stable/notes/randomness.html); mamba_ssm reads
MAMBA_DETERMINISTIC for its backward pass (mamba_ssm/utils/determinism.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# cuBLAS reads its own once, at its first product: a process that has used CUDA before must have been started with it.
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "MAMBA_DETERMINISTIC": "1"}


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Within the block PyTorch takes deterministic algorithms, or raises; afterwards what held before."""
    flags = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    environment = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(flags[0], warn_only=flags[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic
        for name, value in environment.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
