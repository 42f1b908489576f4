"""How many threads a run on a CPU computes with."""

import os

import torch

from ..utils.machine import available_cores


def use_all_cores() -> list[str]:
    """Undo what `accelerate launch` does to a single process on a CPU: OMP_NUM_THREADS=1, without a word.

    Its mark is the variable below, which it sets for every process that it starts. Several processes keep their one
    thread each, and so does whoever gives this process a single core (taskset).

    Returns:
        What was done, a line for the user; empty where nothing was.
    """
    cores = available_cores()
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) == 1
    if not launched or os.environ.get("OMP_NUM_THREADS") != "1" or cores == 1:
        return []
    torch.set_num_threads(cores)
    return [f"{cores} threads, one a core; accelerate launch had set one (--num_cpu_threads_per_process)"]
