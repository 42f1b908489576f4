"""ssd_backend="triton": its kernels in Triton's interpreter, compiled for a GPU that is not here, and its refusals.

Each runs in a process of its own: TRITON_INTERPRET is read when triton is imported, which torch.compile may have done.
"""

import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest
from packaging.version import Version

from tests.forked import run_forked

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

REFUSED = """
import sys
import torch
from modeling_trm import TRMConfig, TRMForGridReasoning
def call(backend):
    model = TRMForGridReasoning(TRMConfig.from_preset("mamba2", hidden_size=64, seq_len=4, ssd_backend=backend))
    model(torch.zeros(1, 4, dtype=torch.long))
def refused():
    try:
        call("triton")
    except (RuntimeError, ImportError) as error:
        print(error)
call("auto")
assert "modeling_trm.ssd_triton_trm" not in sys.modules  # triton itself may be there: PyTorch's compiler imports it
triton, sys.modules["triton"] = sys.modules.get("triton"), None
refused()
del sys.modules["triton"]
if triton is not None:
    sys.modules["triton"] = triton
refused()
"""
COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from modeling_trm import conv_triton_trm as convolution, ssd_triton_trm as kernels

def compiled(kernel, pointers, given):
    signature = {
        name: "constexpr" if name in given else f"*{pointers[name]}" if name.endswith("_ptr") else "i32"
        for name in kernel.arg_names
    }
    found = triton.compile(triton.compiler.ASTSource(kernel, signature, given), target=GPUTarget("cuda", 90, 32))
    assert found.metadata.shared <= 48 * 1024, (kernel, pointers, given, found.metadata.shared)

wide = {"c_ptr", "dc_ptr"}
# Heads of another size than the block, so that no two axes are taken for each other; Triton compiles a size of 1 in.
variants = [
    ("fp32", {"BLOCK": 32, "WIDTH": 64, "L": 57, "H": 4, "P": 33, "G": 2}),
    ("bf16", {"BLOCK": 64, "WIDTH": 16, "L": 82, "H": 16, "P": 16, "G": 1}),
    ("bf16", {"BLOCK": 16, "WIDTH": 16, "L": 1, "H": 1, "P": 3, "G": 1}),
]
for kernel in (kernels._ssd_forward, kernels._ssd_backward):
    for factors, given in variants:
        pointers = {name: "fp32" if name in wide else factors for name in kernel.arg_names}
        rows = {"ROWS": given["BLOCK"], "TILES": triton.cdiv(given["L"], given["BLOCK"])}
        compiled(kernel, pointers, given if kernel is kernels._ssd_forward else given | rows)
wide = {"weight_ptr", "bias_ptr", "dweight_ptr", "dbias_ptr"}
shapes = {convolution._conv_forward: convolution.FORWARD, convolution._conv_backward: convolution.BACKWARD}
for kernel, shape in shapes.items():
    for factors, K in (("bf16", 4), ("fp32", 2)):
        pointers = {name: "fp32" if name in wide else factors for name in kernel.arg_names}
        sizes = {"K": K, "ROWS": shape["ROWS"], "CHANNELS": shape["CHANNELS"], "L": 97, "C": 70, "x_row": 96}
        compiled(kernel, pointers, sizes)
print("compiled")
"""


def run(*arguments: str, **environment: str) -> str:
    """The output of a Python process of its own. Fails with it when that fails."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "PYTEST_"))}
    own |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    if "TRITON_INTERPRET" in own:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    else:
        done = run_forked(*arguments, cwd=ROOT, env=own)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@needs_triton
def test_the_kernels_in_the_interpreter() -> None:
    if Version(metadata.version("triton")) < Version("3.9") and Version(numpy.__version__) >= Version("2.4"):
        pytest.skip(
            "interpreters before Triton 3.9 do not run with NumPy 2.4: a loop's bound is an array of one number"
        )
    cases = Path(__file__).with_name("ssd_triton_cases.py")
    report = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases), TRITON_INTERPRET="1")
    assert " passed" in report and "skipped" not in report, report


@pytest.mark.slow
@needs_triton
@pytest.mark.skipif(sys.platform != "linux", reason="Triton has its assembler on Linux alone")
def test_the_kernels_compile_for_a_gpu_without_one(tmp_path: Path) -> None:
    assert "compiled" in run("-c", COMPILED, TRITON_CACHE_DIR=str(tmp_path))


def test_they_are_not_imported_before_they_are_asked_for_and_a_refusal_says_why() -> None:
    missing, on_a_cpu = run("-c", REFUSED).splitlines()
    assert "ssd_backend='triton' cannot be used: " in missing and "pip install triton" in missing
    if find_spec("triton") is not None:
        assert "ssd_backend='triton' cannot be used: the tensor is on cpu." in on_a_cpu
        assert "'auto' or 'torch'" in on_a_cpu
