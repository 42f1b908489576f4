"""What is freed is kept for the next array, where glibc allocates."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_trm import memory_trm
from modeling_trm.training.trainer import Trainer

MEASURE = """
import resource, torch
from modeling_trm.memory_trm import keep_freed_memory
assert keep_freed_memory()
fetched = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def forward_and_back(x, depth):  # 8 MB a layer are kept until its gradient
    return x if depth == 0 else forward_and_back(torch.ones(2**21) + x, depth - 1) + 1
for round in range(13):
    if round == 3:
        before = fetched()
    forward_and_back(torch.ones(2**21), 30)
print(fetched() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have bounds of their own")
def test_pages_are_not_fetched_anew() -> None:
    """What a training step does to memory. Seen: up to 4,096; without it 260,000 to 430,000."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", MEASURE]
    shown = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    assert int(shown.stdout) < 20_000


@pytest.mark.parametrize(("system", "library"), [("Darwin", ""), ("Windows", ""), ("Linux", "")])  # the last is musl
def test_other_libraries_are_left_alone(system: str, library: str, monkeypatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    monkeypatch.setattr(memory_trm.ctypes, "CDLL", lambda name: pytest.fail("no library is asked"))
    assert not memory_trm.keep_freed_memory()


def test_a_training_begins_with_it(monkeypatch) -> None:
    def kept() -> bool:
        raise InterruptedError

    monkeypatch.setattr("modeling_trm.training.trainer.keep_freed_memory", kept)
    with pytest.raises(InterruptedError):
        Trainer(*[None] * 3)  # type: ignore[arg-type]
