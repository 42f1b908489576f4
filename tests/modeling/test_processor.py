"""Where bfloat16 pays, on processors that this one is not."""

from pathlib import Path

import pytest
import torch

from modeling_trm.engines_trm import int8_rest
from modeling_trm.processor_trm import bfloat16_pays, has_bfloat16, processor_facts
from modeling_trm.utils.machine import computes_in_bf16

# vendor, flags, does PyTorch find AVX512-BF16 and AMX -> does bfloat16 pay.
PROCESSORS = {
    "Genoa": ("AuthenticAMD", "avx512f avx512_bf16", True, False, True),
    "Cooper Lake": ("GenuineIntel", "avx512f avx512_bf16", True, False, True),
    "Sapphire Rapids": ("GenuineIntel", "avx512_bf16 amx_bf16 avx512_fp16 amx_tile", True, True, True),
    "Sapphire Rapids, AMX hidden": ("GenuineIntel", "avx512_bf16 avx512_fp16", True, False, False),
    "an AMD with AVX512-FP16": ("AuthenticAMD", "avx512_bf16 avx512_fp16", True, False, True),
    "Ice Lake": ("GenuineIntel", "avx512f avx512_vnni", False, False, False),
    "Rome": ("AuthenticAMD", "avx2", False, False, False),
    "another system": (None, "", True, False, True),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_bfloat16_pays_where_its_products_are_the_faster_ones(name: str, tmp_path: Path, monkeypatch) -> None:
    vendor, flags, avx512_bf16, amx, pays = PROCESSORS[name]
    core = f"vendor_id\t: {vendor}\nflags\t\t: fpu {flags} sse\n\n"
    if vendor is not None:
        (tmp_path / "cpuinfo").write_text(core + core.replace("avx512_fp16", "of another"))
    monkeypatch.setattr("modeling_trm.processor_trm.CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert bfloat16_pays() == computes_in_bf16("cpu") == pays
    assert has_bfloat16() == (avx512_bf16 or amx)
    assert int8_rest() == (torch.bfloat16 if pays else torch.float32)


def test_facts_are_those_of_the_first_processor(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("modeling_trm.processor_trm.CPUINFO", tmp_path / "cpuinfo")
    assert processor_facts() == {}
    (tmp_path / "cpuinfo").write_text("model name\t: A: B\nbugs\t\t:\n\nmodel name\t: C\n")
    assert processor_facts() == {"model name": "A: B", "bugs": ""}
