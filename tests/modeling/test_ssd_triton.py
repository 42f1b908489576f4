"""ssd_backend="triton": its kernels in Triton's interpreter, compiled for a GPU that is not here, and its refusals.

Each runs in a process of its own: TRITON_INTERPRET is read when triton is imported, which torch.compile may have done.
"""

import os
import subprocess
import sys
from collections import Counter
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
import warnings
import torch
import triton
from triton.backends.compiler import GPUTarget
from modeling_trm import conv_triton_trm as convolution, ssd_triton_trm as kernels

class NoGPU:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)

def compiled(kernel, *arguments, warmup, **options):  # what every launch comes to
    found = run(kernel, *arguments, warmup=True, **options)
    assert "cubin" in found.asm and found.metadata.shared <= 48 * 1024, (kernel, options, found.metadata.shared)
    print(kernel.__name__, found.metadata.shared)

warnings.simplefilter("error")  # as where our tests run on a GPU
triton.runtime.driver.set_active(NoGPU())
run, triton.JITFunction.run = triton.JITFunction.run, compiled
# Heads of another size than the block, so that no two axes are taken for each other; Triton compiles a size of 1 in.
for dtype, L, H, P, G in ((torch.float32, 31, 4, 17, 2), (torch.bfloat16, 82, 4, 16, 1), (torch.bfloat16, 1, 1, 3, 1)):
    scores, u = torch.empty(2, G, L, L, dtype=dtype), torch.empty(2, L, H, P, dtype=dtype)
    cumulative = torch.empty(2, H, L)
    kernels.ssd_product(scores, cumulative, u)
    kernels.ssd_product_backward(u, scores, cumulative, u)
for dtype, K in ((torch.bfloat16, 4), (torch.float32, 2)):
    x, weight, bias = torch.empty(2, 97, 96, dtype=dtype)[..., 16:86], torch.empty(70, K), torch.empty(70)
    convolution.conv_silu(x, weight, bias)
    convolution.conv_silu_backward(x, x, weight, bias)
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
    """Every launch of the operators, with its own sizes and options, becomes a compilation by NVIDIA's assembler."""
    report = run("-c", COMPILED, TRITON_CACHE_DIR=str(tmp_path))
    assert Counter(line.split()[0] for line in report.splitlines()) == {
        "_ssd_forward": 3, "_ssd_backward": 3, "_conv_forward": 2, "_conv_backward": 2,
    }  # fmt: skip


def test_they_are_not_imported_before_they_are_asked_for_and_a_refusal_says_why() -> None:
    missing, on_a_cpu = run("-c", REFUSED).splitlines()
    assert "ssd_backend='triton' cannot be used: " in missing and "pip install triton" in missing
    if find_spec("triton") is not None:
        assert "ssd_backend='triton' cannot be used: the tensor is on cpu." in on_a_cpu
        assert "'auto' or 'torch'" in on_a_cpu
