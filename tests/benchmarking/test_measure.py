"""Turns, medians, ratios and what is not timed. No figure of a clock is asserted: the clock is replaced."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_trm.benchmarking import measure as measuring
from modeling_trm.benchmarking import memory
from modeling_trm.benchmarking.measure import Check, Group, Line, Measured, Skipped, compare, measure, warm_up
from modeling_trm.benchmarking.memory import peak_memory

CPU = torch.device("cpu")
MB = 1_000_000


class Clock:
    """Time passes only in the calls made by `call`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.order = 0.0, list[str]()
        monkeypatch.setattr(measuring.time, "perf_counter", lambda: self.now)

    def call(self, name: str, *seconds: float) -> Any:
        """A function that takes these times in turn, the last one ever after."""
        left = list(seconds)

        def run() -> None:
            self.order.append(name)
            self.now += left.pop(0) if left[1:] else left[0]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_lines_take_turns_after_a_warm_up(clock: Clock) -> None:
    lines = [Line({"work": "w"}, clock.call(name, 9.0)) for name in "abc"]
    measure(lines, 3, CPU, {})
    assert "".join(clock.order) == "abc" + "abc" * 3


def test_a_short_call_is_warmed_up_twice_and_several_calls_are_timed_together(clock: Clock) -> None:
    lines = [Line({"work": "w"}, clock.call("a", 0.5)), Line({"work": "w"}, clock.call("b", 0.5), calls=3)]
    found = measure(lines, 2, CPU, {})
    assert "".join(clock.order) == "aabb" + "abbb" * 2
    assert found[1]["seconds"] == [0.5, 0.5]


def test_on_a_gpu_the_first_call_is_never_the_last_before_the_rounds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles; the memory is that of the second."""
    taken = iter((500, 20))
    monkeypatch.setattr(measuring, "peak_memory", lambda call, device: (call(), next(taken))[1])
    assert warm_up(Line({"work": "w"}, clock.call("a", 60, 1)), torch.device("cuda")) == 20
    assert clock.order == ["a", "a"]


def test_lines_for_which_a_gpu_has_no_room_are_listed(clock: Clock) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    part = Measured()
    assert part.add(Group([Line({"work": "w", "batch": 384}, full)]), 2, CPU, {}, "part") == []
    assert part.skipped == [{"what": "w, batch 384", "reason": "CUDA out of memory"}] and part.lines == []


def test_median_range_ratio_and_share_of_the_peak(clock: Clock) -> None:
    slow = Line({"work": "step", "dtype": "float32"}, clock.call("a", 9, 4, 1, 2), flops=6_000)
    fast = Line({"work": "step", "dtype": "bfloat16"}, clock.call("b", 9, 1, 1, 1), flops=6_000)
    other = Line({"work": "more"}, clock.call("c", 9, 8, 8, 8))
    found = measure([slow, fast, other], 3, CPU, {"float32": 12_000.0})
    assert [line["median_ms"] for line in found] == [2_000, 1_000, 8_000]
    assert (found[0]["lowest_ms"], found[0]["highest_ms"], found[0]["seconds"]) == (1_000, 4_000, [4, 1, 2])
    assert [line["ratio"] for line in found] == [1, 0.5, 1]  # the last one is another work
    assert [line["share_of_peak"] for line in found] == [0.25, None, None]
    assert [line["gflop_per_second"] for line in found] == [3e-6, 6e-6, None]


def test_a_warm_up_and_a_result_of_ones_own(clock: Clock) -> None:
    line = Line({"work": "w"}, clock.call("a", 1), warm_up=clock.call("w", 9), result=lambda: {"solved": "1 of 2"})
    assert measure([line], 2, CPU, {})[0]["solved"] == "1 of 2"
    assert "".join(clock.order) == "waa"


@pytest.mark.parametrize("error", [0.2, math.nan])
def test_different_answers_are_not_timed(error: float, clock: Clock) -> None:
    part = Measured()
    lines = [Line({"work": "w", "L": 97}, clock.call("a", 1))]
    part.add(Group(lines, [Check("theirs", error, 0.1)], [Skipped("x", "why")]), 2, CPU, {}, "part")
    assert part.lines == [] and clock.order == []
    assert part.skipped[1]["what"] == "w, L 97" and "theirs: differ by" in part.skipped[1]["reason"]
    assert not part.checks[0]["same"]
    json.dumps(vars(part), allow_nan=False)


def test_same_answers_are_timed_once_said_and_by_the_groups_own_rounds(clock: Clock) -> None:
    part = Measured()
    group = Group([Line({"work": "w"}, clock.call("a", 9))], [Check("theirs", 0.1, 0.1)])
    for _ in range(2):
        part.add(group, 3, CPU, {}, "part")
    assert [len(line["seconds"]) for line in part.lines] == [3, 3]
    assert part.checks == [{"what": "theirs", "error": 0.1, "allowed": 0.1, "same": True}]


def test_compare_is_relative_to_the_largest_number() -> None:
    check = compare("x", torch.tensor([1.0, 50.0]), torch.tensor([2.0, 50.0], dtype=torch.bfloat16), 0.01)
    assert check.error == 0.02 and not check.same
    assert not compare("x", torch.tensor([math.nan]), torch.tensor([1.0]), 10).same


def test_peak_memory_is_what_the_high_water_mark_rises_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From files as Linux has them: what is really resident depends on everything else that runs."""
    status, clear_refs = tmp_path / "status", tmp_path / "clear_refs"
    monkeypatch.setattr(memory, "STATUS", status)
    monkeypatch.setattr(memory, "CLEAR_REFS", clear_refs)
    status.write_text("Name:\tpython\nVmHWM:\t    900 kB\nVmRSS:\t    700 kB\n", encoding="ascii")

    def call() -> None:
        assert clear_refs.read_text(encoding="ascii") == "5"
        status.write_text("VmHWM:\t    1700 kB\nVmRSS:\t    800 kB\n", encoding="ascii")

    assert peak_memory(call, CPU) == 1000 * 1024
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path)  # cannot be written to
    assert peak_memory(call, CPU) is None


def test_the_peak_memory_of_a_large_call_is_seen() -> None:
    found = peak_memory(lambda: torch.ones(64 * MB), CPU)
    assert found is None or found > 0  # of 256 MB; None where Linux's high-water mark is missing


@pytest.mark.cuda
def test_peak_memory_of_a_gpu() -> None:
    found = peak_memory(lambda: torch.ones(16 * MB, device="cuda"), torch.device("cuda"))
    assert found is not None and 64 * MB <= found < 64 * MB + 2**21  # PyTorch hands out large pieces in units of 2 MiB


def test_peak_memory_is_unknown_where_it_cannot_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    made: list[int] = []
    monkeypatch.setattr("modeling_trm.benchmarking.memory.CLEAR_REFS", tmp_path / "none" / "clear_refs")
    assert peak_memory(lambda: made.append(1), CPU) is None
    assert made == [1]
