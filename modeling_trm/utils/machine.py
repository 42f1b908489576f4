"""The machine: in words, with the library versions a figure was measured with, and what it can do."""

import os
import platform
import re
from importlib import metadata

import torch

from ..processor_trm import bfloat16_pays, processor_facts

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


def available_cores() -> int:
    """The cores that this process may use; those of the machine where the system does not say (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def library_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a figure depends on; "not installed" for one run from a checkout."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def computes_in_bf16(device_type: str) -> bool:
    """True where bf16 is faster than float32: GPUs since Ampere, some CPUs."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bfloat16_pays()


def _processor_name() -> str:
    """With family and model where the name has no number, as in a virtual machine: they tell the generation."""
    facts = processor_facts()
    if not facts:  # on Linux, platform.processor() is empty or "x86_64"
        return platform.processor() or platform.machine()
    name = facts.get("model name", platform.machine())
    if re.search(r"\d", name) or not {"cpu family", "model"} <= facts.keys():
        return name
    return f"{name} (family {facts['cpu family']}, model {facts['model']})"
