"""Whether every preset really runs: a small model of random weights, one supervision step on each device."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from ..configuration_trm import PRESETS, TRMConfig
from ..modeling_trm import TRMForGridReasoning
from .findings import Finding

SMALL: dict[str, Any] = {
    "vocab_size": 11,
    "seq_len": 81,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "mamba_d_state": 32,
    "mamba_head_dim": 64,
    "H_cycles": 1,
    "L_cycles": 2,
}


def check_models(device: torch.device) -> Iterator[Finding]:
    """One finding a preset; on the CPU a failure is fatal."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # which path Mamba-2 takes is a finding of its own
    try:
        for preset in PRESETS:
            name = f"{preset} on {device}"
            try:
                milliseconds = _run(TRMConfig.from_preset(preset, **SMALL), device)
            except (RuntimeError, ValueError, TypeError, AttributeError, ImportError) as error:
                reason = " ".join(str(error).split())
                yield Finding("models", name, f"does not run: {reason}", _advice(device), fatal=device.type == "cpu")
            else:
                yield Finding("models", name, f"runs, {milliseconds:.0f} ms for one small supervision step")
    finally:
        transformers_logging.set_verbosity(verbosity)


def _run(config: TRMConfig, device: torch.device) -> float:
    """Milliseconds of the second of two steps. Raises RuntimeError when the answer is not finite."""
    model = TRMForGridReasoning(config).eval().to(device)
    input_ids = torch.arange(config.seq_len, device=device)[None] % config.vocab_size
    with torch.no_grad():
        model(input_ids)
        started = time.perf_counter()
        logits = model(input_ids).logits
        is_finite = bool(logits.isfinite().all())  # waits for the device
        milliseconds = 1000 * (time.perf_counter() - started)
    if not is_finite:
        raise RuntimeError("its logits are NaN or infinite")
    return milliseconds


def _advice(device: torch.device) -> str:
    if device.type == "cpu":
        return "install the versions named above: pip install -c constraints.txt -e ."
    return "use --device cpu, or ssd_backend='torch' where Mamba-2 fails"
