"""The part "reference-training" against a stand-in for the public code: the published loss, of tests.oracles."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling_trm.benchmarking import run
from modeling_trm.benchmarking.settings import Settings
from tests.benchmarking.conftest import measured

pytestmark = pytest.mark.usefixtures("tiny_presets")
MakeSettings = Callable[..., Settings]
CHECKOUT = os.environ.get("TRM_REFERENCE")


def test_without_a_checkout_everything_is_skipped(settings: MakeSettings) -> None:
    found = measured("reference-training", settings())
    assert found.skipped == [{"what": "everything", "reason": "needs --reference, a checkout of the public code"}]


def test_the_public_loss_has_the_same_gradients(settings: MakeSettings, public_code: Callable[..., Path]) -> None:
    asked = settings(reference=public_code(), presets=["trm-attn", "trm-mlp-t", "mamba2"])
    found = measured("reference-training", asked)
    assert [(line["work"], line["batch"], line["engine"]) for line in found.lines] == [
        (f"gradients, {preset}", batch, engine)
        for preset in ("trm-attn", "trm-mlp-t")
        for batch in (1, 2)
        for engine in ("reference, eager", "eager")
    ]
    assert len(found.checks) == 2 and all(check["error"] < 1e-4 for check in found.checks)
    assert found.skipped[0]["what"] == "mamba2" and "cannot express this" in found.skipped[0]["reason"]


def test_another_loss_than_the_reference_is_not_timed(settings: MakeSettings, public_code: Callable[..., Path]) -> None:
    report: dict[str, Any] = {}
    asked = settings(reference=public_code(1.01), presets=["trm-attn"])
    assert not run.run_parts(["reference-training"], asked, report, lambda _: None)
    part = report["parts"]["reference-training"]
    assert part["lines"] == [] and [check["same"] for check in part["checks"]] == [False]


def test_what_takes_too_long_is_skipped(settings: MakeSettings, public_code: Callable[..., Path]) -> None:
    found = measured("reference-training", settings(reference=public_code(), presets=["trm-attn"], max_tflop=1e-9))
    assert [skipped["what"] for skipped in found.skipped] == ["trm-attn, batch 1", "trm-attn, batch 2"]


@pytest.mark.skipif(not CHECKOUT, reason="needs TRM_REFERENCE, a checkout of the public code")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_public_code_itself(dtype: str, settings: MakeSettings, public_code: Callable[..., Path]) -> None:
    """`public_code` only for its care of imported modules."""
    asked = settings(reference=Path(str(CHECKOUT)), presets=["trm-attn", "trm-mlp-t"], dtypes=[dtype])
    found = measured("reference-training", asked)
    assert len(found.lines) == 2 * 2 * 2
    assert all(check["same"] for check in found.checks) and len(found.checks) == 2 * (1 + (dtype == "bfloat16"))
