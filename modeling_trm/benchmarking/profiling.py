"""Where the time of a line goes: by kind of kernel, by operator, and as a trace for ui.perfetto.dev."""

import re
import tempfile
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ..utils.files import write_bytes, write_text
from .measure import Line

OPERATORS = 25
OPTIMISER, REST = "optimiser", "norms, elementwise, rest"
# Of a kernel's name, on a CPU an operator's: the first that is found in it. What inductor fuses is named after all that
# it took in ("triton_poi_fused_convolution_mm_3"), and is elementwise work or a sum; cuDNN's convolutions are called
# gemm too, attention's kernels cutlass. mamba_ssm's kernels: _chunk_scan_fwd_kernel and the like.
KINDS = (
    (REST, r"^triton_(?!tem|mm|bmm)"),
    ("SSD", r"ssd_|_chunk_(scan|state|cumsum)|_bmm_chunk|_state_passing"),
    ("convolution", r"conv(?!ert)"),
    ("attention", r"attention|flash|fmha|sdpa"),
    ("matrix products", r"gemm|gemv|nvjet|cutlass|cublas|xmma|splitk|^triton_|_linear|::(mm|\w+mm|matmul|linear)$"),
    ("copies", r"copy|copies|memcpy|memset|::(clone|contiguous|to|cat)$"),
)
OPTIMISER_SPAN = "Optimizer.step#"  # how torch.optim announces a step to the profiler
SPANS = ("Optimizer.", "Torch-Compiled Region", "## ")  # around kernels that are there themselves


def profile_line(line: Line, device: torch.device, folder: Path) -> dict[str, float]:
    """Record one call: its milliseconds by kind.

    Writes NAME.json, the trace, and NAME.txt, the table of operators; NAME is made of the labels.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True, acc_events=True) as recorded:
        line.call()
        if on_gpu:
            torch.cuda.synchronize(device)
    name = file_name(line.labels)
    with tempfile.TemporaryDirectory() as temporary:
        trace = Path(temporary, "trace.json")
        recorded.export_chrome_trace(str(trace))
        write_bytes(folder / f"{name}.json", trace.read_bytes())
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    operators = recorded.key_averages().table(sort_by=order, row_limit=OPERATORS)
    write_text(folder / f"{name}.txt", operators + "\n")
    return by_kind(recorded.events() or (), DeviceType.CUDA if on_gpu else DeviceType.CPU)


def by_kind(events: Iterable[Any], device: DeviceType) -> dict[str, float]:
    """Milliseconds of each kind, the longest first, of a profile's FunctionEvents.

    On a GPU of its kernels: the operators that launched them, and the spans around them, have the same time once more.
    On a CPU of operators without what they call. What runs during a step of an optimiser is the optimiser's.
    """
    own = [event for event in events if event.device_type == device]
    steps = sorted(_interval(event) for event in own if event.name.startswith(OPTIMISER_SPAN))
    found: dict[str, float] = {}
    for event in own:
        if device == DeviceType.CPU:
            microseconds = event.self_cpu_time_total
        elif event.is_user_annotation or event.name.startswith(SPANS):
            continue
        else:
            microseconds = event.time_range.elapsed_us()
        kind = OPTIMISER if _within(event, steps) else kind_of(event.name)
        found[kind] = found.get(kind, 0.0) + microseconds / 1e3
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def kind_of(name: str) -> str:
    return next((kind for kind, pattern in KINDS if re.search(pattern, name, re.IGNORECASE)), REST)


def _interval(event: Any) -> tuple[float, float]:
    return event.time_range.start, event.time_range.end


def _within(event: Any, steps: list[tuple[float, float]]) -> bool:
    """Whether it lies in one of the steps, which follow one another."""
    start, end = _interval(event)
    last = bisect_right(steps, (start, float("inf"))) - 1
    return last >= 0 and end <= steps[last][1]


def file_name(labels: dict[str, Any]) -> str:
    words = [f"{name}{value}" if isinstance(value, int) else str(value) for name, value in labels.items()]
    return re.sub(r"[^\w.]+", "-", "_".join(words))
