"""The figures of a run as Markdown, from the JSON report."""

from typing import Any

# Behind the labels of a part's lines.
FIGURES = ("median, ms", "range, ms", "ratio", "GFLOP/s", "of peak", "memory, MB")
NOT_LABELS = frozenset(
    "seconds median_ms lowest_ms highest_ms ratio gflop_per_second share_of_peak peak_memory_bytes kinds_ms".split()
)
NOT_KNOWN = "-"


def markdown(report: dict[str, Any]) -> str:
    """A section a part: its table, what was compared, what was skipped."""
    peaks = ", ".join(f"{dtype} {rate / 1e9:,.0f} GFLOP/s" for dtype, rate in report["peak_flop_per_second"].items())
    lines = [f"{report['hardware']}, {report['date']}", "", f"`{report['command']}`", ""]
    lines += [f"Peak of a matrix product: {peaks or 'not measured'}. Memory: {report['memory']}.", ""]
    for name, part in report["parts"].items():
        lines += [f"## {name}", ""]
        if part["lines"]:
            lines += [*table(part["lines"]), ""]
        profiled = [line for line in part["lines"] if "kinds_ms" in line]
        if profiled:
            lines += ["One call of each, profiled: ms by kind of kernel, on a CPU of operator.", ""]
            lines += [*kinds_table(profiled), ""]
        for check in part["checks"]:
            verdict = "same answers" if check["same"] else "DIFFERENT ANSWERS"
            error = "not a number" if check["error"] is None else f"{check['error']:.1e}"
            lines.append(f"- {verdict}: {check['what']}: {error}, allowed {check['allowed']:.1e}")
        lines += [f"- skipped: {skipped['what']}: {skipped['reason']}" for skipped in part["skipped"]]
        if part["checks"] or part["skipped"]:
            lines.append("")
    return "\n".join(lines)


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Rows of a Markdown table; a ratio is to the first line of the same work of those that took turns."""
    labels = _labels(lines)
    rows = [f"| {' | '.join([*labels, *FIGURES])} |", f"|{'---|' * len(labels)}{'---:|' * len(FIGURES)}"]
    for line in lines:
        cells = [_label(line.get(name, NOT_KNOWN)) for name in labels]
        rows.append(f"| {' | '.join([*cells, *_cells(line)])} |")
    return rows


def kinds_table(lines: list[dict[str, Any]]) -> list[str]:
    """Rows of a Markdown table: the milliseconds of each kind and their sum."""
    labels = _labels(lines)
    kinds = list(dict.fromkeys(kind for line in lines for kind in line["kinds_ms"]))
    head = [*labels, *kinds, "sum"]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(labels)}{'---:|' * (len(kinds) + 1)}"]
    for line in lines:
        spent = line["kinds_ms"]
        cells = [_label(line.get(name, NOT_KNOWN)) for name in labels]
        cells += [_three_digits(spent[kind]) if kind in spent else NOT_KNOWN for kind in kinds]
        rows.append(f"| {' | '.join([*cells, _three_digits(sum(spent.values()))])} |")
    return rows


def _labels(lines: list[dict[str, Any]]) -> list[str]:
    return [name for name in dict.fromkeys(name for line in lines for name in line) if name not in NOT_LABELS]


def _cells(line: dict[str, Any]) -> list[str]:
    rate, share, memory = line["gflop_per_second"], line["share_of_peak"], line["peak_memory_bytes"]
    return [
        _three_digits(line["median_ms"]),
        f"{_three_digits(line['lowest_ms'])} to {_three_digits(line['highest_ms'])}",
        f"{line['ratio']:.2f}",
        NOT_KNOWN if rate is None else _three_digits(rate),
        NOT_KNOWN if share is None else f"{100 * share:.0f} %",
        NOT_KNOWN if memory is None else f"{memory / 1e6:,.0f}",
    ]


def _label(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _three_digits(value: float) -> str:
    """Three digits, or all before the point."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"
