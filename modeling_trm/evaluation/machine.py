"""In words: the machine and the library versions that a figure was measured with."""

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = ("modeling-trm", "torch", "transformers", "numpy")


def describe_machine(device: torch.device | str = "cpu") -> str:
    """For example "NVIDIA H200, Linux x86_64" or "AMD EPYC 7B13, 2 threads, Linux x86_64"."""
    system = f"{platform.system()} {platform.machine()}"
    device = torch.device(device)
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {system}"
    if device.type == "cpu":
        return f"{_processor_name()}, {torch.get_num_threads()} of {os.cpu_count()} threads, {system}"
    return f"{device.type} device, {system}"


def library_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a figure depends on; "not installed" for one run from a checkout."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux; platform.processor() is empty or "x86_64" there
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
