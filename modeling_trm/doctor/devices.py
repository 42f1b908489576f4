"""Devices, and which paths attention, Mamba-2 and torch.compile take on them; asked of torch, not guessed.

Shapes: B batch, H heads, L positions, P head size.
"""

import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..compiling_trm import COMPILERS, find_compiler, python_header
from ..configuration_trm import TRMConfig
from ..engines_trm import ENGINES, resolve_engine
from ..mamba2_trm import CHUNK, CUDA_KERNELS_MISSING, ONE_CHUNK_UP_TO
from ..modeling_trm import TRMForGridReasoning
from ..utils.machine import computes_in_bf16, describe_machine
from .findings import Finding

GIB = 2**30
LENGTHS = {97: "Sudoku", 916: "mazes and ARC"}  # cells and 16 positions of the prefix
HEADS, HEAD_SIZE = 8, 64  # of the published attention models
BACKENDS = {
    SDPBackend.FLASH_ATTENTION: "flash",
    SDPBackend.EFFICIENT_ATTENTION: "memory-efficient",
    SDPBackend.CUDNN_ATTENTION: "cuDNN",
    SDPBackend.MATH: "math",
}


def usable_devices() -> list[torch.device]:
    """The CPU, then every CUDA device, then Apple's GPU."""
    names = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [torch.device(name) for name in [*names, *(["mps"] if torch.backends.mps.is_available() else [])]]


def check_devices() -> Iterator[Finding]:
    yield Finding("devices", "cpu", f"{describe_machine()}; {_memory()}; {', '.join(_cpu_features())}")
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        bf16 = "bfloat16" if computes_in_bf16("cuda") else "no bfloat16"
        value = f"{about.name}, capability {about.major}.{about.minor}, {about.total_memory / GIB:.0f} GiB, {bf16}"
        yield Finding("devices", f"cuda:{number}", value)
    if torch.cuda.device_count() == 0:
        built = torch.version.cuda or torch.version.hip
        why = f"torch was built for {built}, but finds no GPU" if built else "this torch was built for the CPU alone"
        yield Finding("devices", "cuda", f"none: {why}")
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "Apple's GPU")


def check_paths(device: torch.device) -> Iterator[Finding]:
    """Which code Mamba-2, attention and torch.compile run on the device, and why."""
    value, todo = _ssd(device)
    yield Finding("paths", f"Mamba-2 on {device}", value, todo)
    if device.type == "cuda":
        yield Finding("paths", f"Mamba-2's Triton kernels on {device}", _triton())
    if device.type == "cpu":  # elsewhere there is one, the model itself
        yield Finding("paths", f"engines of solve() on {device}", _engines())
    if device.type in ("cpu", "cuda"):  # torch answers these questions for the CPU and for CUDA
        for length, what in LENGTHS.items():
            yield Finding("paths", f"attention on {device}, {length} positions ({what})", _attention(device, length))
        yield _compiler(device)


def _ssd(device: torch.device) -> tuple[str, str | None]:
    form = f"PyTorch path, one chunk up to {ONE_CHUNK_UP_TO} positions, chunks of {CHUNK} above"
    if device.type != "cuda":
        return f"{form}; the compiled kernels are for CUDA devices alone", None
    if CUDA_KERNELS_MISSING is None:
        return f"compiled kernels; set_kernels(ssd_backend='torch') chooses the {form}", None
    return f"{form}; the compiled kernels are not here: {CUDA_KERNELS_MISSING}", "pip install 'modeling-trm[cuda]'"


def _triton() -> str:
    """Asked for by name alone, so its absence is nothing to mend."""
    chosen = "chosen by ssd_backend='triton' alone"
    return f"here; {chosen}" if find_spec("triton") else f"not installed (pip install triton); {chosen}"


def _engines() -> str:
    """What `solve(engine=...)` takes for a float32 model, what it takes by itself, and why not the others."""
    config = TRMConfig.from_preset("trm-attn", vocab_size=11, seq_len=1, hidden_size=64, num_attention_heads=1)
    model = TRMForGridReasoning(config)
    reasons = {name: engine.missing(model) for name, engine in ENGINES.items()}
    able = ", ".join(name for name, reason in reasons.items() if reason is None)
    missing = "".join(f"; not {name}: {reason}" for name, reason in reasons.items() if reason is not None)
    return f"{able} (by itself: {resolve_engine(model, 'auto')}){missing}"


def _attention(device: torch.device, length: int) -> str:
    """What scaled_dot_product_attention picks by itself in each type, and which backends can do it at all."""
    texts = []
    for dtype in (torch.float32, torch.bfloat16):
        q_BHLP = torch.zeros(1, HEADS, length, HEAD_SIZE, device=device, dtype=dtype)
        able = [name for backend, name in BACKENDS.items() if _can_attend(backend, q_BHLP)]
        # The function that scaled_dot_product_attention itself asks.
        picked = BACKENDS.get(SDPBackend(int(torch._fused_sdp_choice(q_BHLP, q_BHLP, q_BHLP))), "another backend")
        texts.append(f"{str(dtype).removeprefix('torch.')} takes {picked} (can: {', '.join(able) or 'none'})")
    return "; ".join(texts)


def _can_attend(backend: SDPBackend, q_BHLP: Tensor) -> bool:
    with warnings.catch_warnings(), sdpa_kernel(backend):
        warnings.simplefilter("ignore")  # torch warns of each reason why a backend cannot
        try:
            F.scaled_dot_product_attention(q_BHLP, q_BHLP, q_BHLP)
        except RuntimeError:
            return False
    return True


def _compiler(device: torch.device) -> Finding:
    name = f"torch.compile on {device}"
    found, headers = find_compiler(device), python_header()
    if found is None:
        wanted = " or ".join(COMPILERS["cpu" if device.type == "cpu" else "gpu"])
        return Finding("paths", name, f"no compiler ({wanted}): models run uncompiled", f"install {wanted}")
    if not headers.exists():
        todo = "install Python's headers (Debian: python3-dev)"
        return Finding("paths", name, f"no {headers}: models run uncompiled", todo)
    return Finding("paths", name, f"can compile with {found}")


def _cpu_features() -> list[str]:
    cpu = torch.cpu
    known = {
        "AVX2": cpu._is_avx2_supported(),
        "AVX-512": cpu._is_avx512_supported(),
        "AVX-512 bf16": cpu._is_avx512_bf16_supported(),
        "AVX-512 VNNI": cpu._is_vnni_supported(),
        "AMX": cpu._is_amx_tile_supported(),
    }
    speed = "bfloat16 is faster than float32" if computes_in_bf16("cpu") else "float32 is faster than bfloat16"
    return [*(name for name, has in known.items() if has), speed]


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "memory not known on this system"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{total / GIB:.0f} GiB of memory"
