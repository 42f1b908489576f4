"""The Markdown of a report."""

from typing import Any

from modeling_trm.benchmarking.report import markdown, table

LINE: dict[str, Any] = {
    "work": "one step",
    "rows": 10_000,
    "seconds": [0.002, 0.001, 0.004],
    "median_ms": 2.0,
    "lowest_ms": 1.0,
    "highest_ms": 1234.5,
    "ratio": 1.5,
    "gflop_per_second": 81.26,
    "share_of_peak": 0.333,
    "peak_memory_bytes": 42_000_000,
}


def test_a_row_states_labels_median_range_ratio_rate_share_and_memory() -> None:
    unknown = LINE | {"gflop_per_second": None, "share_of_peak": None, "peak_memory_bytes": None, "solved": "3 of 4"}
    assert table([LINE, unknown]) == [
        "| work | rows | solved | median, ms | range, ms | ratio | GFLOP/s | of peak | memory, MB |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        "| one step | 10,000 | - | 2.00 | 1.00 to 1,234 | 1.50 | 81.3 | 33 % | 42 |",
        "| one step | 10,000 | 3 of 4 | 2.00 | 1.00 to 1,234 | 1.50 | - | - | - |",
    ]


def test_checks_and_skipped_lines_are_listed() -> None:
    checks = [
        {"what": "mixer", "error": 1e-6, "allowed": 1e-4, "same": True},
        {"what": "other", "error": 0.5, "allowed": 1e-4, "same": False},
        {"what": "diverged", "error": None, "allowed": 1e-4, "same": False},
    ]
    report = {
        "hardware": "a machine",
        "command": "python x",
        "memory": "resident",
        "peak_flop_per_second": {"float32": 118e9},
        "parts": {"layer": {"lines": [], "checks": checks, "skipped": [{"what": "mamba_ssm", "reason": "no CUDA"}]}},
    }
    text = markdown(report)
    assert "Peak of a matrix product: float32 118 GFLOP/s. Memory: resident." in text
    assert text[text.index("## layer") :].splitlines() == [
        "## layer",
        "",
        "- same answers: mixer: 1.0e-06, allowed 1.0e-04",
        "- DIFFERENT ANSWERS: other: 5.0e-01, allowed 1.0e-04",
        "- DIFFERENT ANSWERS: diverged: not a number, allowed 1.0e-04",
        "- skipped: mamba_ssm: no CUDA",
    ]
