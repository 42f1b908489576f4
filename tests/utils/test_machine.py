"""The machine in words."""

from pathlib import Path

import pytest

from modeling_trm.utils.machine import _processor_name, describe_machine


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AMD EPYC", "AMD EPYC (family 25, model 17)"),
        ("Intel(R) Xeon(R) Platinum 8481C", "Intel(R) Xeon(R) Platinum 8481C"),
    ],
)
def test_a_processor_is_told_from_others_of_its_name(name: str, expected: str, tmp_path: Path) -> None:
    cores = "".join(f"processor\t: {core}\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {name}\n\n" for core in "01")
    (tmp_path / "cpuinfo").write_text(cores)
    assert _processor_name(tmp_path / "cpuinfo") == expected
    assert " threads, " in describe_machine()
