"""Where the time of a line goes: a trace for chrome://tracing or ui.perfetto.dev, and the operators that take most."""

import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ..utils.files import write_bytes, write_text
from .measure import Line

OPERATORS = 25


def profile_line(line: Line, device: torch.device, folder: Path) -> list[Path]:
    """Record one call. Writes NAME.json, the trace, and NAME.txt, the table; NAME is made of the labels."""
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
        written = write_bytes(folder / f"{name}.json", trace.read_bytes())
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    operators = recorded.key_averages().table(sort_by=order, row_limit=OPERATORS)
    return [written, write_text(folder / f"{name}.txt", operators + "\n")]


def file_name(labels: dict[str, Any]) -> str:
    words = [f"{name}{value}" if isinstance(value, int) else str(value) for name, value in labels.items()]
    return re.sub(r"[^\w.]+", "-", "_".join(words))
