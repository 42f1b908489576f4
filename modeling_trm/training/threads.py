"""A run on a CPU: how many threads it computes with, and what it is told of a recipe that was made for a GPU."""

import os
from math import prod
from pathlib import Path

import torch

from ..configuration_trm import TRMConfig
from ..utils.flops import training_flops
from ..utils.machine import available_cores

# Numbers that a step's operators pass on and its gradient needs: shipped recipes for a CPU have up to 9e7, those for
# a GPU from 4.5e8.
GPU_SIZED = 2e8
LAUNCHER = Path(f"/proc/{os.getppid()}/environ")  # Linux: what the parent process was started with
TWO_CORES = 4e11  # FLOP/s at best (dev/LOG.md)


def use_all_cores() -> list[str]:
    """Undo what `accelerate launch` does to a single process on a CPU: OMP_NUM_THREADS=1, without a word.

    Its mark is the variable below, which it sets for every process that it starts. Several processes keep their one
    thread each, and so does whoever gives this process a single core (taskset) or said OMP_NUM_THREADS to the launcher.

    Returns:
        What was done, a line for the user; empty where nothing was.
    """
    cores = available_cores()
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) == 1
    if not launched or os.environ.get("OMP_NUM_THREADS") != "1" or cores == 1 or _launcher_was_told():
        return []
    torch.set_num_threads(cores)
    return [f"{cores} threads, one a core; accelerate launch had set one (--num_cpu_threads_per_process)"]


def _launcher_was_told() -> bool:
    """Whether OMP_NUM_THREADS is the user's own; not known where the system keeps no environment of processes."""
    try:
        return any(one.startswith(b"OMP_NUM_THREADS=") for one in LAUNCHER.read_bytes().split(b"\0"))
    except OSError:
        return False


def gpu_sized(config: TRMConfig, batch_size: int, device: torch.device) -> list[str]:
    """A line for whoever runs such a recipe on a CPU, before hours or the memory are gone; empty elsewhere."""
    calls = config.L_cycles + (config.num_latents == 2)  # of the stack, in the cycle that has a gradient
    if device.type != "cpu" or batch_size * prod(config.latent_shape) * calls * len(config.block_operators) < GPU_SIZED:
        return []
    flops = batch_size * training_flops(config)
    return [
        f"a step is {flops:.1e} FLOP, {flops / TWO_CORES:,.0f} s or more of two CPU cores, and {batch_size} puzzles at "
        "once need gigabytes (--gradient_accumulation 16: fewer); made for a CPU: quickstart, and the recipes with "
        "cpu in their name"
    ]
