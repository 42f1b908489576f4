"""Each part at tiny sizes: its lines, that its calls do the work they are named after, what it skips and why."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

import modeling_trm
from modeling_trm import TRMConfig, TRMForGridReasoning
from modeling_trm.benchmarking import (
    engines,
    growth,
    mamba2_layer,
    peak,
    puzzle_table,
    run,
    ssd,
    supervision,
    training_step,
)
from modeling_trm.benchmarking.engines import Engine
from modeling_trm.benchmarking.settings import Settings, random_ids, random_model
from modeling_trm.benchmarking.ssd import ssd_missing
from modeling_trm.commands import benchmark
from modeling_trm.configuration_trm import SsdBackend
from modeling_trm.engines_trm import ENGINES as OWN_ENGINES
from modeling_trm.mamba2_trm import Mamba2
from modeling_trm.puzzle_table_trm import PuzzleTable
from modeling_trm.training.ema import ExponentialMovingAverage
from modeling_trm.utils.flops import flops
from tests.benchmarking.conftest import measured

pytestmark = pytest.mark.usefixtures("tiny_presets")
NO_PACKING = OWN_ENGINES["packed"].missing(TRMForGridReasoning(TRMConfig(hidden_size=32, num_attention_heads=1)))
MakeSettings = Callable[..., Settings]


def test_the_script_knows_the_names_of_parts_and_engines() -> None:
    assert tuple(run.PARTS) == benchmark.PARTS
    assert tuple(engines.ENGINES) == benchmark.ENGINES
    assert {*benchmark.SSD_BACKENDS} == {*get_args(SsdBackend)}


@pytest.mark.parametrize(("part", "steps"), [("supervision", 1), ("solving", 4)])
def test_supervision_and_solving(part: str, steps: int, settings: MakeSettings, tiny_config: Any) -> None:
    found = measured(part, settings(dtypes=["float32", "bfloat16"]))
    keys = [(line["batch"], line["preset"], line["dtype"]) for line in found.lines]
    assert keys == [(b, p, t) for b in (1, 2) for p in ("trm-attn", "tr-mamba2mlpt") for t in ("float32", "bfloat16")]
    assert all(len(line["seconds"]) == 2 and line["L"] == 20 for line in found.lines)
    assert {line["work"] for line in found.lines} == {"one step" if steps == 1 else "4 steps"}
    config = tiny_config("trm-attn", seq_len=18, mlp_multiple_of=256)
    line = found.lines[4]
    rate = 2 * steps * flops(config) / (line["median_ms"] / 1e3)
    assert line["gflop_per_second"] == pytest.approx(rate / 1e9)
    assert line["share_of_peak"] > 0


def test_calls_above_the_bound_are_skipped(settings: MakeSettings) -> None:
    found = measured("supervision", settings(max_tflop=1e-9))
    assert found.lines == []
    assert [s["what"] for s in found.skipped][:1] == ["trm-attn, one step, L 20, batch 1"]
    assert "more than --max-tflop 1e-09" in found.skipped[0]["reason"]


def test_engines_are_measured_side_by_side_and_a_missing_one_is_named(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def traced(model: Any, settings: Settings, dtype: str) -> Any:
        solve = engines.ENGINES["eager"].prepare(model, settings, dtype)
        return lambda *args, **options: (used.append(dtype), solve(*args, **options))[1]

    monkeypatch.setitem(engines.ENGINES, "traced", Engine(traced, lambda *_: None))
    monkeypatch.setitem(engines.ENGINES, "absent", Engine(traced, lambda *_: "not on this machine"))
    found = measured(
        "supervision", settings(engines=["eager", "absent", "traced"], batch_sizes=[1], presets=["mamba2"])
    )
    assert [line["engine"] for line in found.lines] == ["eager", "traced"] and used
    assert found.skipped == [{"what": "engine absent, float32", "reason": "not on this machine"}]


def test_training_step_moves_every_parameter(settings: MakeSettings, tiny_model: Any) -> None:
    model = tiny_model("tr-mamba2attn").train()
    before = copy.deepcopy(model.state_dict())
    ids = torch.randint(1, 6, (2, 16))
    training_step.training_step(model, ids, settings(), "float32")()
    moved = {name for name, _ in model.named_parameters() if not torch.equal(model.state_dict()[name], before[name])}
    assert moved == {name for name, _ in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_part_takes_the_engines_that_have_gradients(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_step, "can_compile", lambda device: False)
    found = measured("training-step", settings(engines=["packed", "eager", "compiled"], batch_sizes=[2]))
    assert [(line["preset"], line["engine"]) for line in found.lines] == [
        ("trm-attn", "eager"),
        ("tr-mamba2mlpt", "eager"),
    ]
    assert found.skipped[0]["reason"] == "torch.compile finds no compiler here"


def test_training_part_takes_each_ssd_backend_of_the_presets_that_have_one(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_step, "ssd_missing", lambda backend, device: "no GPU" if backend == "cuda" else None)
    asked = settings(ssd_backends=["torch", "cuda", "auto"], batch_sizes=[2], rounds=1)
    found = measured("training-step", asked)
    assert [(line["preset"], line.get("SSD")) for line in found.lines] == [
        ("trm-attn", None),
        ("tr-mamba2mlpt", "torch"),
        ("tr-mamba2mlpt", "auto"),
    ]
    assert found.lines[1]["ratio"] != 1  # to the first preset, which takes turns with it
    assert found.skipped == [{"what": "training step, tr-mamba2mlpt, cuda, L 20, batch 2", "reason": "no GPU"}]


def test_a_training_step_is_measured_as_in_a_run(settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(training_step, "keep_freed_memory", lambda: kept.append(True))
    assert list(training_step.groups(settings(batch_sizes=[]))) == [] and kept


def test_a_line_runs_the_ssd_backend_that_it_names(settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    chosen = Mamba2._choose_mix
    monkeypatch.setattr(
        Mamba2, "_choose_mix", lambda layer, x: (used.append(layer.config.ssd_backend), chosen(layer, x))[1]
    )
    asked = settings(ssd_backends=["torch", "auto"], batch_sizes=[1], presets=["tr-mamba2mlpt"])
    for line in next(training_step.groups(asked)).lines:
        line.call()
        assert {*used} == {line.labels["SSD"]}
        used.clear()


@pytest.mark.parametrize(
    ("backend", "reason"),
    [("auto", None), ("torch", None), ("cuda", "the device is cpu")],
)
def test_a_backend_that_cannot_run_says_why(backend: str, reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssd, "CUDA_KERNELS_MISSING", None)
    assert ssd_missing(backend, torch.device("cpu")) == reason
    monkeypatch.setattr(ssd, "CUDA_KERNELS_MISSING", "No module named 'causal_conv1d'")
    assert (ssd_missing(backend, torch.device("cuda")) is None) == (backend != "cuda")


def test_triton_needs_its_package_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    assert ssd_missing("triton", torch.device("cpu")) == "the tensor is on cpu"
    assert ssd_missing("triton", torch.device("cuda")) is None
    monkeypatch.setattr(modeling_trm, "ssd_triton_trm", None)
    monkeypatch.setitem(sys.modules, "modeling_trm.ssd_triton_trm", None)
    reason = ssd_missing("triton", torch.device("cuda"))
    assert reason is not None and "ssd_triton_trm" in reason


def test_in_a_limited_time_each_model_is_a_group_and_what_comes_too_late_is_listed(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still but for the first training step, which takes too long."""
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])

    def slow(model: Any, *_: Any) -> Callable[[], None]:
        return lambda: now.__setitem__(0, 99.0)

    monkeypatch.setattr(training_step, "training_step", slow)
    asked = settings(batch_sizes=[2], ssd_backends=["torch", "auto"], seconds=60.0)
    report: dict[str, Any] = {}
    assert run.run_parts(["training-step", "puzzle-table"], asked, report, lambda _: None)
    parts = report["parts"]
    assert [line["preset"] for line in parts["training-step"]["lines"]] == ["trm-attn"]
    spent = "--seconds 60 are spent"
    assert parts["training-step"]["skipped"] == [
        {"what": f"training step, tr-mamba2mlpt, {backend}, L 20, batch 2, float32, eager", "reason": spent}
        for backend in ("torch", "auto")
    ]
    assert parts["puzzle-table"] == {
        "lines": [],
        "checks": [],
        "skipped": [{"what": "the whole part", "reason": spent}],
    }


def test_a_profile_goes_into_the_figures_of_its_line(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "profile_line", lambda line, device, folder: {folder.name: line.labels["batch"]})
    report: dict[str, Any] = {}
    run.run_parts(["training-step"], settings(presets=["trm-attn"]), report, lambda _: None, tmp_path)
    assert [line["kinds_ms"] for line in report["parts"]["training-step"]["lines"]] == [
        {"training-step": 1},
        {"training-step": 2},
    ]
    assert not any("kinds_ms" in line for line in report["parts"]["peak"]["lines"])


def test_an_engine_that_answers_otherwise_is_not_timed(settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(model: Any, settings: Settings, dtype: str) -> Any:
        solve = engines.ENGINES["eager"].prepare(model, settings, dtype)
        return lambda ids, **options: solve(ids.flip(1), **options)

    monkeypatch.setitem(engines.ENGINES, "other", Engine(other, lambda *_: None))
    found = measured("supervision", settings(engines=["eager", "other"], batch_sizes=[1], presets=["trm-attn"]))
    assert found.lines == [] and [check["same"] for check in found.checks] == [False]


@pytest.mark.skipif(NO_PACKING is not None, reason=str(NO_PACKING))
def test_the_packed_engine_is_compared_with_the_eager_one(settings: MakeSettings) -> None:
    found = measured("supervision", settings(engines=["eager", "packed"], batch_sizes=[2]))
    assert [line["engine"] for line in found.lines] == ["eager", "packed"] * 2
    assert len(found.checks) == 2 and all(check["same"] for check in found.checks)


@pytest.mark.parametrize("length", [20, 300])
def test_mamba2_layer_gives_the_same_answers_in_both_precisions(settings: MakeSettings, length: int) -> None:
    found = measured("mamba2-layer", settings(lengths=[length], batch_sizes=[2], dtypes=["float32", "bfloat16"]))
    kinds = [(line["work"], line["layer"]) for line in found.lines if line["dtype"] == "float32"]
    layers = ("modeling_trm", "transformers Mamba2Mixer")
    assert kinds == [(work, layer) for work in ("forward", "forward and backward") for layer in layers]
    assert [check["same"] for check in found.checks] == [True, True]
    assert found.skipped == [{"what": "mamba_ssm.Mamba2", "reason": "runs on CUDA alone, the device is cpu"}]


@pytest.mark.parametrize("name", ["D", "in_proj.weight", "norm.weight"])
def test_mamba2_layer_with_other_weights_is_not_timed(
    settings: MakeSettings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = mamba2_layer._with
    monkeypatch.setattr(mamba2_layer, "_with", lambda w, layer: loaded(w | {name: 1.05 * w[name]}, layer))
    found = measured("mamba2-layer", settings(batch_sizes=[2]))
    assert found.lines == [] and not found.checks[0]["same"]
    assert "differ by" in found.skipped[-1]["reason"]


def test_mamba2_layer_is_not_run_where_theirs_would_fill_the_memory(settings: MakeSettings) -> None:
    found = measured("mamba2-layer", settings(lengths=[916], batch_sizes=[4096]))
    assert found.lines == [] and "Mamba2Mixer would take about" in found.skipped[1]["reason"]


def test_growth_has_the_ratio_to_the_presets_smallest_case(settings: MakeSettings) -> None:
    found = measured("growth", settings(presets=["trm-attn", "mamba2"], dtypes=["float32", "bfloat16"]))
    sizes = [(line["work"], line["L"], line["batch"], line["stack calls"]) for line in found.lines]
    one = [
        *(("length, trm-attn", length, 1, 2) for length in (20, 30)),
        *(("length, mamba2", length, 1, 2) for length in (20, 30)),
    ]
    assert sizes[:4] == one
    assert [s for s in sizes if s[0] == "cycles, mamba2"] == [("cycles, mamba2", 20, 1, n) for n in (2, 7, 21)]
    assert [s for s in sizes if s[0] == "steps, mamba2"] == [("steps, mamba2", 20, 1, n) for n in (2, 4)]
    assert [s for s in sizes if s[0] == "batch, mamba2"] == [("batch, mamba2", 20, b, 2) for b in (1, 3)]
    assert {line["dtype"] for line in found.lines} == {"float32"}
    firsts = {line["work"]: line["ratio"] for line in reversed(found.lines)}
    assert set(firsts.values()) == {1.0}
    assert growth.SHALLOW == {"H_cycles": 1, "L_cycles": 1}


def test_puzzle_table_sizes_take_turns_in_order(settings: MakeSettings) -> None:
    found = measured("puzzle-table", settings())
    assert [(line["rows"], line["work"]) for line in found.lines] == [
        (10, "sparse update"), (10, "dense update"), (30, "sparse update"), (30, "dense update"),
    ]  # fmt: skip


def test_sparse_and_dense_updates_move_the_batch_alike() -> None:
    """Rows of the batch by the same step; the others only decay in the dense one."""
    ids, gradient = torch.tensor([4, 1]), torch.randn(2, 3)
    before, weights = torch.randn(6, 3), {}
    for name in ("sparse_update", "dense_update"):
        table = PuzzleTable(6, 3)
        with torch.no_grad():
            table.weight.copy_(before)
        vars(puzzle_table)[name](table, iter([ids]), gradient)()
        weights[name] = table.weight.detach()
    torch.testing.assert_close(weights["sparse_update"][ids], weights["dense_update"][ids])
    others = [0, 2, 3, 5]
    assert torch.equal(weights["sparse_update"][others], before[others])
    torch.testing.assert_close(weights["dense_update"][others], before[others] * (1 - 1e-5))


def test_peak_is_of_the_fastest_product_that_is_float32(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"dtype": "float32", "size": 10, "seconds": [4.0, 2.0]},
        {"dtype": "float32", "size": 10, "seconds": [5.0, 1.0]},
        {"dtype": "bfloat16", "size": 10, "seconds": [0.5]},
    ]
    assert peak.peaks(lines) == {"float32": 2000.0, "bfloat16": 4000.0}
    monkeypatch.setattr(peak, "rounding", lambda precision, device: 3e-3)
    found = measured("peak", settings(dtypes=["float32", "bfloat16"]))
    assert [(line["dtype"], line["precision"]) for line in found.lines] == [
        ("float32", "highest"),
        ("bfloat16", "highest"),
    ]
    asked = measured("peak", settings(dtypes=["bfloat16"]))
    assert [line["dtype"] for line in asked.lines] == ["bfloat16"] and asked.skipped == []
    assert "an error of 3.0e-03" in found.skipped[0]["reason"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_rounding_is_measured() -> None:
    assert 0 < peak.rounding("highest", torch.device("cpu")) < peak.ROUNDING


def test_a_report_is_written_after_every_group(settings: MakeSettings) -> None:
    report: dict[str, Any] = {}
    seen: list[tuple[int, bool]] = []

    def write(now: dict[str, Any]) -> None:
        seen.append((sum(len(part["lines"]) for part in now["parts"].values()), now["finished"]))

    assert run.run_parts(["supervision"], settings(presets=["mamba2"]), report, write)
    first = len(report["parts"]["peak"]["lines"])
    assert seen == [(first, False), (first + 1, False), (first + 2, False), (first + 2, True)]


def test_the_calls_are_of_the_steps_and_batch_that_the_labels_say(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int, bool]] = []

    def solve(model: Any, ids: torch.Tensor, max_steps: int, engine: str) -> Any:
        assert engine == "eager"
        calls.append((len(ids), max_steps, torch.is_autocast_enabled("cpu")))
        return SimpleNamespace(answers=ids)

    monkeypatch.setattr(TRMForGridReasoning, "solve", solve)
    asked = settings(presets=["mamba2"], dtypes=["float32", "bfloat16"], batch_sizes=[3])
    for groups, steps in ((supervision.step_groups, 1), (supervision.solving_groups, 4)):
        for line in next(groups(asked)).lines:
            line.call()
            assert calls.pop() == (3, steps, line.labels["dtype"] == "bfloat16")
    for group in growth.groups(asked):
        for line in group.lines:
            line.call()
            size, steps, _ = calls.pop()
            assert size == line.labels["batch"]
            assert steps == (line.labels["stack calls"] // 2 if line.labels["work"].startswith("steps") else 1)


def test_inputs_and_weights_are_the_same_every_time(tiny_config: Any) -> None:
    config, cpu = tiny_config("trm-attn"), torch.device("cpu")
    assert torch.equal(random_ids(config, 3, cpu), random_ids(config, 3, cpu))
    first, second = random_model(config, cpu).state_dict(), random_model(config, cpu).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_training_step_has_the_weight_average(
    settings: MakeSettings, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[int] = []
    monkeypatch.setattr(ExponentialMovingAverage, "update", lambda average: updates.append(1))
    step = training_step.training_step(tiny_model("trm-attn"), torch.randint(1, 6, (2, 16)), settings(), "float32")
    step()
    step()
    assert updates == [1, 1]


def test_gradients_of_input_and_weights_are_compared_and_not_summed_up(settings: MakeSettings) -> None:
    layer = torch.nn.Linear(3, 3)
    x = torch.randn(2, 4, 3)
    first, second = (mamba2_layer.outputs_and_gradients(layer, x, settings(), "float32") for _ in range(2))
    assert list(first) == ["y", "x", "weight", "bias"]
    torch.testing.assert_close(first["bias"], x.sum((0, 1)))
    torch.testing.assert_close(second, first)


@pytest.mark.parametrize("name", ["eager", "packed"])
def test_an_engine_of_ours_is_asked_for_by_its_name(
    name: str, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not left to `solve`, whose choice is the fastest."""
    asked: list[str] = []
    monkeypatch.setattr(TRMForGridReasoning, "solve", lambda model, ids, engine="auto": asked.append(engine))
    model = object.__new__(TRMForGridReasoning)
    engines.ENGINES[name].prepare(model, settings(), "float32")(torch.ones(1, 2))
    assert asked == [name]
