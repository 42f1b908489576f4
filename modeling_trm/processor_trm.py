"""What this processor is, and whether bfloat16 pays on it."""

from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")  # of Linux


def processor_facts() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo, as {"flags": "fpu vme ...", ...}; none on another system."""
    if not CPUINFO.exists():
        return {}
    first = CPUINFO.read_text(encoding="utf-8").split("\n\n", 1)[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def has_bfloat16() -> bool:
    """True where the processor multiplies in bfloat16."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def bfloat16_pays() -> bool:
    """True where its products are faster than float32's: with AMX, and by AVX-512's instruction unless it is Intel's.

    Intel's cores since Sapphire Rapids (they have AVX512-FP16) begin one of it where they begin four of float32's, of
    half the work each, so bfloat16 takes twice as long; they are made for AMX, which virtual machines may hide.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    facts = processor_facts()
    slow = facts.get("vendor_id") == "GenuineIntel" and "avx512_fp16" in facts["flags"].split()
    return has_bfloat16() and not slow
