"""Malformed inputs of every kind: none ends in a traceback, none is silently taken. `make campaign` tries many more."""

from pathlib import Path

from tests.robustness.inputs import cases, judge


def test_malformed_inputs(tmp_path: Path) -> None:
    assert [wrong for case in cases(seed=0, each=60, folder=tmp_path) if (wrong := judge(case)) is not None] == []
