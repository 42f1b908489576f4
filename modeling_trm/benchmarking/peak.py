"""The machine's largest FLOP/s: the product of two square matrices, by type; what the other parts' shares are of.

float32 is measured at both of PyTorch's settings: on a CPU "medium" hands the product to oneDNN, which may be faster,
or may round to bfloat16 where the processor has matrix units for it; then it is not float32 and is left out.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .measure import Group, Line, Skipped, compare
from .settings import Settings

SIZES = {"cpu": 2048, "cuda": 8192}
CALLS = {"cpu": 2, "cuda": 20}
ROUNDING = 1e-5  # of a float32 product of 256; in bfloat16 it is 3e-3


def groups(settings: Settings) -> Iterator[Group]:
    kind = settings.device.type
    size, calls = SIZES.get(kind, SIZES["cpu"]), CALLS.get(kind, CALLS["cpu"])
    wide = torch.randn(size, size, device=settings.device)
    narrow = wide.bfloat16()
    every = {
        ("float32", "highest"): _product(wide, "highest"),
        ("float32", "medium"): _product(wide, "medium"),
        ("bfloat16", "highest"): _product(narrow, "highest"),
    }
    kinds = {key: call for key, call in every.items() if key[0] in settings.dtypes}
    skipped: list[Skipped] = []
    error = rounding("medium", settings.device)
    if error > ROUNDING and ("float32", "medium") in kinds:
        del kinds["float32", "medium"]
        reason = f"not computed in float32 here: an error of {error:.1e}"
        skipped.append(Skipped("float32 product at float32_matmul_precision medium", reason))
    lines = [
        Line({"work": "matrix product", "size": size, "dtype": dtype, "precision": precision}, call, 2 * size**3, calls)
        for (dtype, precision), call in kinds.items()
    ]
    yield Group(lines, skipped=skipped)


def rounding(precision: str, device: torch.device) -> float:
    """Largest error of a float32 product at that setting, relative to its largest number."""
    matrix = torch.randn(256, 256)
    product = _product(matrix.to(device), precision)()
    return compare("a product", product, matrix.double() @ matrix.double(), ROUNDING).error


def _product(matrix: Tensor, precision: str) -> Callable[[], Tensor]:
    def run() -> Tensor:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            return matrix @ matrix
        finally:
            torch.set_float32_matmul_precision(before)

    return run


def peaks(lines: list[dict[str, Any]]) -> dict[str, float]:
    """FLOP/s by dtype: the fastest round of the measured lines."""
    fastest: dict[str, float] = {}
    for line in lines:
        rate = 2 * line["size"] ** 3 / min(line["seconds"])
        fastest[line["dtype"]] = max(rate, fastest.get(line["dtype"], 0.0))
    return fastest
