"""How much memory a call takes at its peak, above what was in use before it.

On CUDA what PyTorch has allocated. On a CPU the resident memory of the process, whose high-water mark Linux can set
back (proc(5), /proc/PID/clear_refs); small calls may find room in what the allocator has kept, and show nothing.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_HIGH_WATER_MARK = "5"
METHODS = {
    "cuda": "torch.cuda.max_memory_allocated during a call less memory_allocated before it",
    "cpu": "highest resident memory of the process during a call less that before it (Linux only)",
}


def peak_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes; None where it cannot be told. The call is made in any case."""
    if device.type == "cuda":
        return _peak_of_gpu(call, device)
    if device.type == "cpu" and _reset_high_water_mark():
        before = _resident("VmRSS")
        call()
        return max(_resident("VmHWM") - before, 0)
    call()
    return None


def _peak_of_gpu(call: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _reset_high_water_mark() -> bool:
    try:
        CLEAR_REFS.write_text(RESET_HIGH_WATER_MARK, encoding="ascii")
    except OSError:  # another system, or a container that forbids it
        return False
    ctypes.CDLL(None).malloc_trim(0)  # so that the call cannot use what earlier ones have left
    return True


def _resident(field: str) -> int:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])
