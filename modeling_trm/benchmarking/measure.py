"""Time the lines of a group: everything takes turns within a round, so that a busy moment hits all alike.

A figure counts as a ratio to another line of the same group. Before the rounds every line is called once or twice
untimed; the later of these calls is the one whose memory is measured. On a GPU it is always twice: what the first call
compiles takes memory and time, the call itself little.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .memory import peak_memory

WARM_UP_SECONDS = 2.0  # a first call as short as this is followed by a second one


@dataclass(frozen=True)
class Line:
    """One thing that is timed.

    labels: the columns that say what it is; "work" names what is compared: a ratio is to the first line of that work.
    flops: of one call, None where they are not known. calls: so many are timed together.
    profile: whether --profile records it. warm_up: what is called before the rounds, if not the same.
    result: what is known after the rounds besides times, further columns of the report.
    """

    labels: dict[str, Any]
    call: Callable[[], object]
    flops: int | None = None
    calls: int = 1
    profile: bool = False
    warm_up: Callable[[], object] | None = None
    result: Callable[[], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Skipped:
    """What was not measured, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Check:
    """Whether two sides gave the same answers: the largest difference over the largest number, and what is allowed."""

    what: str
    error: float
    allowed: float

    @property
    def same(self) -> bool:
        return self.error <= self.allowed  # False for NaN

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no NaN: None is the error of answers that are no numbers."""
        return {**vars(self), "error": self.error if math.isfinite(self.error) else None, "same": self.same}


@dataclass(frozen=True)
class Group:
    """Lines that take turns, what was compared beforehand, what is left out; rounds: None for the run's own."""

    lines: Sequence[Line] = ()
    checks: Sequence[Check] = ()
    skipped: Sequence[Skipped] = ()
    rounds: int | None = None


@dataclass
class Measured:
    """The figures of a part, as JSON has them."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, group: Group, rounds: int, device: torch.device, peaks: dict[str, float], name: str
    ) -> list[dict[str, Any]]:
        """Measure a group, unless its two sides answer differently: then a ratio would say nothing. Its new lines."""
        checks = [check.to_dict() for check in group.checks]
        self.checks += [check for check in checks if check not in self.checks]  # several groups may rest on one
        self.skipped += [vars(skipped) for skipped in group.skipped]
        different = [check for check in group.checks if not check.same]
        if different:
            reason = "; ".join(f"{c.what}: differ by {c.error:.2g}, allowed {c.allowed:g}" for c in different)
            self.skipped += [vars(Skipped(describe(line.labels), reason)) for line in group.lines]
            return []
        try:
            lines = measure(group.lines, rounds, device, peaks, name)
        except torch.OutOfMemoryError as error:  # of a GPU: smaller groups may fit
            reason = str(error).split(". ")[0]
            self.skipped += [vars(Skipped(describe(line.labels), reason)) for line in group.lines]
            return []
        self.lines += lines
        return lines


def compare(what: str, actual: Tensor, expected: Tensor, allowed: float) -> Check:
    """The tensors may be on any device and of any type."""
    actual, expected = actual.cpu().double(), expected.cpu().double()
    return Check(what, float((actual - expected).abs().max() / expected.abs().max()), allowed)


def describe(labels: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" if isinstance(value, int) else str(value) for name, value in labels.items())


def measure(
    lines: Sequence[Line], rounds: int, device: torch.device, peaks: dict[str, float], name: str = "measuring"
) -> list[dict[str, Any]]:
    """The figures of each line.

    Args:
        peaks: the machine's FLOP/s by dtype, of which the achieved share is given.
    """
    seconds: list[list[float]] = [[] for _ in lines]
    with tqdm(total=(rounds + 1) * len(lines), desc=name, leave=False) as bar:
        memory = [_turn(warm_up, line, device, bar) for line in lines]
        for _ in range(rounds):
            for taken, line in zip(seconds, lines):
                taken.append(_turn(timed, line, device, bar))
    firsts: dict[str, float] = {}
    for line, taken in zip(lines, seconds):
        firsts.setdefault(line.labels["work"], median(taken))
    return [
        figures(line, taken, bytes_, firsts[line.labels["work"]], peaks)
        for line, taken, bytes_ in zip(lines, seconds, memory)
    ]


def _turn(function: Callable[[Line, torch.device], Any], line: Line, device: torch.device, bar: tqdm) -> Any:
    result = function(line, device)
    bar.update()
    return result


def figures(
    line: Line, seconds: list[float], memory: int | None, first: float, peaks: dict[str, float]
) -> dict[str, Any]:
    """The line's entry in the report; `first`: the median of the line that its ratio is to."""
    middle = median(seconds)
    rate = None if line.flops is None else line.flops / middle
    peak = peaks.get(line.labels.get("dtype", ""))
    return {
        **line.labels,
        **({} if line.result is None else line.result()),
        "seconds": seconds,
        "median_ms": 1000 * middle,
        "lowest_ms": 1000 * min(seconds),
        "highest_ms": 1000 * max(seconds),
        "ratio": middle / first,
        "gflop_per_second": None if rate is None else rate / 1e9,
        "share_of_peak": None if rate is None or peak is None else rate / peak,
        "peak_memory_bytes": memory,
    }


def warm_up(line: Line, device: torch.device) -> int | None:
    call, started = line.warm_up or line.call, time.perf_counter()
    memory = peak_memory(call, device)
    if device.type == "cuda" or time.perf_counter() - started < WARM_UP_SECONDS:
        memory = peak_memory(call, device)
    return memory


def timed(line: Line, device: torch.device) -> float:
    """Seconds a call."""
    started = time.perf_counter()
    for _ in range(line.calls):
        line.call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / line.calls
