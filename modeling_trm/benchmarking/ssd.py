"""Mamba-2's state-space dual form alone: ours in PyTorch and in Triton, and on CUDA mamba_ssm's Triton kernels.

Source: arXiv 2405.21060, section 6. Forward, and forward with the gradients of all inputs. Beforehand what is not
compiled is asked for the same answers in float32.
Shapes: B batch, L positions, H heads, P head size, G groups, N state. A scan takes x [B, L, H, P], dt [B, L, H] and
A [H], both float32, and B and C [B, L, G, N].
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from ..compiling_trm import can_compile
from ..configuration_trm import TRMConfig
from ..mamba2_trm import Product, scale, ssd, torch_product
from ..ssd_cuda_trm import CHUNK, CUDA_KERNELS_MISSING
from ..utils.flops import ssd_flops
from .measure import Check, Group, Line, Skipped, compare
from .settings import Settings, preset_config

Scan = Callable[..., Tensor]
THEIRS, THEIR_DEVICE = "mamba_ssm", "cuda"
THEIR_FILE = Path("mamba_ssm", "ops", "triton", "ssd_combined.py")
TOLERANCE = 1e-2  # of a float32 answer: mamba_ssm's products keep 10 bits of their factors (TF32)
CHECKED = 2  # sequences whose answers are compared


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


def groups(settings: Settings) -> Iterator[Group]:
    skipped: list[Skipped] = []
    scans = _scans(settings, skipped)
    yield Group(skipped=skipped)
    for length, batch_size, dtype in product(settings.lengths, settings.batch_sizes, settings.dtypes):
        config = preset_config("mamba2", length)
        cost = batch_size * ssd_flops(config)
        labels = {"L": config.num_positions, "batch": batch_size, "dtype": dtype}
        excess = settings.excess(3 * cost)
        if excess is not None:
            yield Group(skipped=[Skipped(f"L {config.num_positions}, batch {batch_size}, {dtype}", excess)])
            continue
        inputs = random_inputs(config, batch_size, getattr(torch, dtype), settings.device)
        lines = []
        for work, call, factor in (("forward", forward, 1), ("forward and backward", outputs_and_gradients, 3)):
            for name, scan in scans.items():
                named = {"work": work, "SSD": name, **labels}
                lines.append(Line(named, partial(call, scan, inputs), factor * cost, profile=True))
        yield Group(lines, list(_checks(scans, config, settings.device)))


def _scans(settings: Settings, skipped: list[Skipped]) -> dict[str, Scan]:
    """By name; ours in PyTorch first."""
    found = {"PyTorch": our_scan(torch_product)}
    reason = ssd_missing("triton", settings.device)
    if reason is None:
        from ..ssd_triton_trm import triton_product

        found["Triton"] = our_scan(triton_product)
    else:
        skipped.append(Skipped("Triton", reason))
    if "compiled" in settings.engines and can_compile(settings.device):
        found |= {f"{name}, compiled": torch.compile(scan, dynamic=False) for name, scan in found.items()}
    if settings.device.type != THEIR_DEVICE:
        skipped.append(Skipped(THEIRS, f"runs on CUDA alone, the device is {settings.device}"))
        return found
    try:
        found[THEIRS] = partial(load_scan(settings.mamba_ssm), chunk_size=CHUNK)
    except ImportError as error:
        skipped.append(Skipped(THEIRS, f"does not import: {error}; --mamba-ssm takes a checkout"))
    return found


def our_scan(product: Product) -> Scan:
    def scan(x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor) -> Tensor:
        return ssd(scale(x_BLHP, dt_BLH), dt_BLH * A_H, B_BLGN, C_BLGN, product)

    return scan


def load_scan(checkout: Path | None) -> Scan:
    """mamba_ssm's: the installed one, or of a checkout the Triton files alone; the package itself has to be built."""
    if checkout is not None:
        package = ModuleType("mamba_ssm")
        package.__path__ = [str(checkout / "mamba_ssm")]
        sys.modules["mamba_ssm"] = package
    return importlib.import_module(".".join(THEIR_FILE.with_suffix("").parts)).mamba_chunk_scan_combined


def random_inputs(config: TRMConfig, batch_size: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """x, dt, A, B and C in the ranges of a layer's initialisation; the same ones every time."""
    torch.manual_seed(0)
    rows = (batch_size, config.num_positions)
    dt_BLH = torch.empty(*rows, config.mamba_n_heads).uniform_(0.001, 0.1)
    A_H = -torch.empty(config.mamba_n_heads).uniform_(1, 16)
    x_BLHP = torch.randn(*rows, config.mamba_n_heads, config.mamba_head_dim)
    B_BLGN, C_BLGN = torch.randn(2, *rows, config.mamba_n_groups, config.mamba_d_state)
    moved = (t.to(device) for t in (x_BLHP.to(dtype), dt_BLH, A_H, B_BLGN.to(dtype), C_BLGN.to(dtype)))
    return list(moved)


def forward(scan: Scan, inputs: list[Tensor]) -> Tensor:
    """y; the inputs ask for no gradients."""
    return scan(*inputs)


def outputs_and_gradients(scan: Scan, inputs: list[Tensor]) -> list[Tensor]:
    """y and the gradients of x, dt, A, B and C, for a fixed gradient of y."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    y_BLHP = scan(*leaves)
    return [y_BLHP.detach(), *torch.autograd.grad(y_BLHP, leaves, inputs[0].flip(1).to(y_BLHP.dtype))]


def _checks(scans: dict[str, Scan], config: TRMConfig, device: torch.device) -> Iterator[Check]:
    """Each other scan against the first: the largest difference of y and all gradients."""
    inputs = random_inputs(config, CHECKED, torch.float32, device)
    (_, first), *others = ((name, scan) for name, scan in scans.items() if not name.endswith("compiled"))
    expected = outputs_and_gradients(first, inputs)
    for name, scan in others:
        what = f"{name}, L {config.num_positions}, float32"
        found = outputs_and_gradients(scan, inputs)
        yield max((compare(what, *pair, TOLERANCE) for pair in zip(found, expected)), key=lambda check: check.error)
