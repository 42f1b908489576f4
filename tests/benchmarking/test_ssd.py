"""The part "ssd": ours beside a checkout whose scan is the recurrence, one position after another."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from modeling_trm.benchmarking import ssd
from modeling_trm.benchmarking.settings import Settings
from modeling_trm.mamba2_trm import torch_product
from tests.benchmarking.conftest import measured

pytestmark = pytest.mark.usefixtures("tiny_presets")
MakeSettings = Callable[..., Settings]
THEIR_CODE = """
import torch

def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size):
    assert chunk_size == 128
    heads = x.shape[2] // B.shape[2]
    B, C = B.repeat_interleave(heads, 2), C.repeat_interleave(heads, 2)
    state, rows = 0, []
    for t in range(x.shape[1]):
        kept = torch.exp(dt[:, t] * A)[..., None, None]
        state = kept * state + (dt[:, t, :, None] * B[:, t])[..., None] * x[:, t, :, None]
        rows.append(SCALE * (C[:, t, :, None].float() @ state).squeeze(2))
    return torch.stack(rows, 1).to(x.dtype)
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """checkout(scale): its outputs are `scale` times the recurrence's; the package itself does not import."""

    def write(scale: float = 1.0) -> Path:
        path = tmp_path / "mamba" / ssd.THEIR_FILE
        path.parent.mkdir(parents=True)
        path.write_text(f"SCALE = {scale}\n{THEIR_CODE}", encoding="utf-8")
        (tmp_path / "mamba" / "mamba_ssm" / "__init__.py").write_text("import selective_scan_cuda\n", encoding="utf-8")
        monkeypatch.setattr(ssd, "THEIR_DEVICE", "cpu")
        return tmp_path / "mamba"

    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "mamba_ssm"}
    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "mamba_ssm"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.parametrize("length", [20, 300])
def test_ours_and_a_checkouts_take_turns_after_the_same_answers(
    length: int, settings: MakeSettings, checkout: Callable[..., Path]
) -> None:
    asked = settings(lengths=[length], batch_sizes=[2], dtypes=["bfloat16"], mamba_ssm=checkout())
    found = measured("ssd", asked)
    assert [(line["work"], line["SSD"]) for line in found.lines] == [
        (work, name) for work in ("forward", "forward and backward") for name in ("PyTorch", "mamba_ssm")
    ]
    assert [(check["what"], check["same"]) for check in found.checks] == [(f"mamba_ssm, L {length}, float32", True)]
    assert found.checks[0]["error"] < 1e-5
    assert [skipped["what"] for skipped in found.skipped] == ["Triton"]


def test_a_scan_that_computes_something_else_is_not_timed(
    settings: MakeSettings, checkout: Callable[..., Path]
) -> None:
    found = measured("ssd", settings(batch_sizes=[2], mamba_ssm=checkout(1.05)))
    assert found.lines == [] and [check["same"] for check in found.checks] == [False]


def test_what_cannot_run_is_listed(settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured("ssd", settings(batch_sizes=[2], max_tflop=1e-9))
    assert found.lines == []
    assert [skipped["what"] for skipped in found.skipped] == ["Triton", "mamba_ssm", "L 20, batch 2, float32"]
    assert found.skipped[1]["reason"] == "runs on CUDA alone, the device is cpu"
    monkeypatch.setattr(ssd, "THEIR_DEVICE", "cpu")
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    reason = measured("ssd", settings(batch_sizes=[1])).skipped[1]["reason"]
    assert reason.startswith("does not import: ") and reason.endswith("--mamba-ssm takes a checkout")


def test_the_calls_are_of_the_type_and_batch_that_the_labels_say() -> None:
    seen: list[tuple[torch.Size, torch.dtype, torch.dtype]] = []

    def scan(x: torch.Tensor, dt: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append((x.shape[:2], x.dtype, dt.dtype))
        return ssd.our_scan(torch_product)(x, dt, *rest)

    config = ssd.preset_config("mamba2", 20)
    inputs = ssd.random_inputs(config, 3, torch.bfloat16, torch.device("cpu"))
    assert not ssd.forward(scan, inputs).requires_grad
    y, *gradients = ssd.outputs_and_gradients(scan, inputs)
    assert seen == [(torch.Size((3, 20)), torch.bfloat16, torch.float32)] * 2
    assert [(g.shape, g.dtype) for g in gradients] == [(t.shape, t.dtype) for t in inputs] and y.shape == inputs[
        0
    ].shape
    again = ssd.random_inputs(config, 3, torch.bfloat16, torch.device("cpu"))
    assert all(torch.equal(one, other) for one, other in zip(inputs, again))
