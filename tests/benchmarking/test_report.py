"""The Markdown of a report."""

from typing import Any

from modeling_trm.benchmarking.report import kinds_table, markdown, table

FIGURES: dict[str, Any] = {
    "seconds": [0.002, 0.001, 0.004],
    "median_ms": 2.0,
    "lowest_ms": 1.0,
    "highest_ms": 1234.5,
    "ratio": 1.5,
    "gflop_per_second": 81.26,
    "share_of_peak": 0.333,
    "peak_memory_bytes": 42_000_000,
}
LINE: dict[str, Any] = {"work": "one step", "rows": 10_000, **FIGURES}
REPORT: dict[str, Any] = {
    "hardware": "a machine",
    "date": "2026-11-27",
    "command": "python x",
    "memory": "resident",
    "peak_flop_per_second": {"float32": 118e9},
}


def test_a_row_states_labels_median_range_ratio_rate_share_and_memory() -> None:
    unknown = LINE | {"gflop_per_second": None, "share_of_peak": None, "peak_memory_bytes": None, "solved": "3 of 4"}
    assert table([LINE, unknown]) == [
        "| work | rows | solved | median, ms | range, ms | ratio | GFLOP/s | of peak | memory, MB |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        "| one step | 10,000 | - | 2.00 | 1.00 to 1,234 | 1.50 | 81.3 | 33 % | 42 |",
        "| one step | 10,000 | 3 of 4 | 2.00 | 1.00 to 1,234 | 1.50 | - | - | - |",
    ]


def test_a_profile_is_a_table_of_kinds_with_their_sum() -> None:
    one = {"work": "one step", "L": 97, **FIGURES, "kinds_ms": {"matrix products": 2.5, "SSD": 0.25}}
    two = {"work": "two", "SSD": "torch", **FIGURES, "kinds_ms": {"matrix products": 100.0, "copies": 20.0}}
    rows = [
        "| work | L | SSD | matrix products | SSD | copies | sum |",
        "|---|---|---|---:|---:|---:|---:|",
        "| one step | 97 | - | 2.50 | 0.25 | - | 2.75 |",
        "| two | - | torch | 100 | - | 20.0 | 120 |",
    ]
    assert kinds_table([one, two]) == rows
    part = {"lines": [one, two, LINE], "checks": [], "skipped": []}
    text = markdown({**REPORT, "parts": {"training-step": part}})
    assert "\n".join(rows) in text and "kinds_ms" not in text
    assert "profiled" not in markdown({**REPORT, "parts": {"x": {**part, "lines": [LINE]}}})


def test_checks_and_skipped_lines_are_listed() -> None:
    checks = [
        {"what": "mixer", "error": 1e-6, "allowed": 1e-4, "same": True},
        {"what": "other", "error": 0.5, "allowed": 1e-4, "same": False},
        {"what": "diverged", "error": None, "allowed": 1e-4, "same": False},
    ]
    report = {
        **REPORT,
        "parts": {"layer": {"lines": [], "checks": checks, "skipped": [{"what": "mamba_ssm", "reason": "no CUDA"}]}},
    }
    text = markdown(report)
    assert text.startswith("a machine, 2026-11-27\n\n`python x`\n")
    assert "Peak of a matrix product: float32 118 GFLOP/s. Memory: resident." in text
    assert text[text.index("## layer") :].splitlines() == [
        "## layer",
        "",
        "- same answers: mixer: 1.0e-06, allowed 1.0e-04",
        "- DIFFERENT ANSWERS: other: 5.0e-01, allowed 1.0e-04",
        "- DIFFERENT ANSWERS: diverged: not a number, allowed 1.0e-04",
        "- skipped: mamba_ssm: no CUDA",
    ]
