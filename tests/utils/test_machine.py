"""The machine in words."""

import os
from pathlib import Path

import pytest

from modeling_trm.utils.machine import _processor_name, available_cores, describe_machine


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AMD EPYC", "AMD EPYC (family 25, model 17)"),
        ("Intel(R) Xeon(R) Platinum 8481C", "Intel(R) Xeon(R) Platinum 8481C"),
    ],
)
def test_a_processor_is_told_from_others_of_its_name(name: str, expected: str, tmp_path: Path, monkeypatch) -> None:
    cores = "".join(f"processor\t: {core}\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {name}\n\n" for core in "01")
    (tmp_path / "cpuinfo").write_text(cores)
    monkeypatch.setattr("modeling_trm.processor_trm.CPUINFO", tmp_path / "cpuinfo")
    assert _processor_name() == expected
    assert " threads, " in describe_machine()


def test_cores_where_the_system_does_not_tell_those_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows."""
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3})
    assert available_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores() == 6
