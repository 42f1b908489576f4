"""scripts/benchmark.py: what it prints and writes; the figures themselves are nobody's to assert."""

import json
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import pytest

from modeling_trm.benchmarking import peak
from modeling_trm.commands import benchmark
from tests.conftest import IMAGE


@pytest.fixture(autouse=True)
def _small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peak.SIZES, "cpu", 64)


ONE_LAYER = "--part mamba2-layer --lengths 18 --batch-sizes 1 --dtype float32 --rounds 1".split()


def test_puzzle_table_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--rows", "200", "50", "--table-batch", "8", "--rounds", "3", "--device", "cpu"]
    assert benchmark.main(["--part", "puzzle-table", *sizes, "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert list(report["parts"]) == ["peak", "puzzle-table"] and report["finished"]
    assert {"command", "hardware", "versions", "memory"} <= report.keys()
    assert set(report["peak_flop_per_second"]) == {"float32", "bfloat16"}
    lines = report["parts"]["puzzle-table"]["lines"]
    assert [(line["rows"], line["work"]) for line in lines] == [
        (50, "sparse update"), (50, "dense update"), (200, "sparse update"), (200, "dense update"),
    ]  # fmt: skip
    assert all(len(line["seconds"]) == 3 and min(line["seconds"]) > 0 for line in lines)
    printed = capsys.readouterr().out
    assert "| work | rows | batch | median, ms |" in printed and "| sparse update | 50 | 8 |" in printed
    assert (tmp_path / "benchmark.md").read_text() in printed


def test_profile_is_written_beside_the_report(tmp_path: Path) -> None:
    assert benchmark.main([*ONE_LAYER, "--device", "cpu", "--profile", "--output", str(tmp_path)]) == 0
    names = sorted(path.name for path in (tmp_path / "profile" / "mamba2-layer").glob("forward_*"))
    assert names[0] == "forward_modeling_trm_L18_batch1_float32.json" and len(names) == 4


def test_a_gpus_defaults_are_one_command_and_what_is_given_wins(tmp_path: Path) -> None:
    """Where a call may take a hundredth of what a CPU's may, all are too large: all are listed, and why."""
    short = benchmark.parse_arguments(["--gpu", "--presets", "trm-attn", "--seconds", "30", "--output", "x"])
    assert (short.presets, short.seconds, short.part) == (["trm-attn"], 30, ["training-step", "ssd"])
    assert (short.batch_sizes, short.lengths, short.dtype, short.profile) == ([384], [97], ["bfloat16"], True)
    assert short.rounds == 3 and not benchmark.parse_arguments(["--output", "x"]).profile
    on_a_cpu = ["--gpu", "--device", "cpu", "--output", str(tmp_path)]
    assert benchmark.make_settings(benchmark.parse_arguments(on_a_cpu)).max_tflop == 0.5
    assert benchmark.main([*on_a_cpu, "--max-tflop", "0.005"]) == 0
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert list(report["parts"]) == ["peak", "training-step", "ssd"]
    part, large = report["parts"]["training-step"], "more than --max-tflop 0.005"
    assert part["lines"] == [] and report["finished"] and date.fromisoformat(report["date"])
    skipped, scans = ({s["what"]: s["reason"] for s in p["skipped"]} for p in (part, report["parts"]["ssd"]))
    assert large in scans["L 97, batch 384, bfloat16"]
    assert large in skipped["training step, trm-mlp-t, L 97, batch 384"]
    assert large in skipped["training step, tr-mamba2attn, torch, L 97, batch 384"]
    assert "cpu" in skipped["training step, tr-mamba2mlpt, triton, L 97, batch 384"] or not find_spec("triton")
    assert len(skipped) == 8


def test_different_answers_end_in_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeling_trm.benchmarking.mamba2_layer.TOLERANCES", {"float32": 0.0})
    assert benchmark.main([*ONE_LAYER, "--device", "cpu", "--output", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert report["parts"]["mamba2-layer"]["lines"] == [] and report["finished"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--batch-sizes", "8", "0"], "--batch-sizes must be at least 1, got 0"),
        (["--lengths", "16"], "--lengths must be at least 17, got 16"),
        (["--threads", "0"], "--threads: 0 is not allowed; allowed: 1 to 1024"),
        (["--seconds", "0"], "--seconds must be above 0, got 0"),
        (["--ssd-backends", "nvcc"], "--ssd-backends: invalid choice: 'nvcc'"),
        (["--max-tflop", "0"], "--max-tflop must be above 0, got 0"),
        (["--max-tflop", "nan"], "--max-tflop: 'nan' is not allowed; allowed: finite"),
        (["--part", "all", "peak"], "--part all stands alone, got all peak"),
        (["--part", "puzzle-table", "--rows", "5000", "500"], "--rows must be at least --table-batch, 768, got 500"),
        (["--checkpoint", "x"], "--checkpoint is compared with the public code: give --reference too"),
        (["--presets", "trm-atn"], "--presets: 'trm-atn' is unknown; allowed: trm-attn, trm-mlp-t"),
        (["--mamba-ssm", "nowhere"], "--mamba-ssm nowhere: has no mamba_ssm/ops/triton/ssd_combined.py"),
        (["--reference", "nowhere"], "--reference nowhere: has no models/recursive_reasoning/trm.py"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments: list[str], named: str, refused, tmp_path: Path) -> None:
    assert named in refused(benchmark.main, [*arguments, "--device", "cpu", "--output", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_puzzles_are_those_of_the_checkpoints_task() -> None:
    given = ["--output", "x", "--reference", "y", "--checkpoint", str(IMAGE), "--puzzles", "5"]
    puzzles = benchmark.sample_puzzles(benchmark.parse_arguments(given))
    assert (puzzles.task, len(puzzles)) == ("sudoku", 5) and len(set(puzzles.sources)) > 1
    easy = benchmark.sample_puzzles(benchmark.parse_arguments([*given, "--sources", "gen_easy"]))
    assert set(easy.sources) == {"gen_easy"} and len(easy) == 5
    with pytest.raises(ValueError, match="--sources gen: is unknown; allowed: gen_easy, "):
        benchmark.sample_puzzles(benchmark.parse_arguments([*given, "--sources", "gen"]))


@pytest.mark.parametrize("halt", ["0", "1", "1.5"])
def test_a_halt_probability_is_between_0_and_1(halt: str, refused) -> None:
    assert f"--halt must be between 0 and 1, got {halt}" in refused(
        benchmark.parse_arguments, ["--output", "x", "--halt", halt]
    )


def test_slow_parts_run_only_if_asked_for() -> None:
    default, everything = (benchmark.parse_arguments([*part, "--output", "x"]).part for part in ([], ["--part", "all"]))
    assert set(everything) - set(default) == {"solving", "growth"} and tuple(everything) == benchmark.PARTS
