"""scripts/benchmark.py: what it prints and writes; the figures themselves are nobody's to assert."""

import json
from pathlib import Path

import pytest

from scripts import benchmark


def test_puzzle_table_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--rows", "200", "50", "--batch-size", "8", "--rounds", "3", "--device", "cpu"]
    assert benchmark.main(["--part", "puzzle-table", *sizes, "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert report["part"] == "puzzle-table"
    assert list(report["seconds"]) == ["50 rows", "200 rows"]
    for kinds in report["seconds"].values():
        assert list(kinds) == ["sparse update", "dense update"]
        assert all(len(rounds) == 3 and min(rounds) > 0 for rounds in kinds.values())
    lines = capsys.readouterr().out.splitlines()
    header = lines.index("| puzzle-table | sparse update, ms | ratio | dense update, ms | ratio |")
    assert [line.split(" | ")[0] for line in lines[header + 2 : header + 4]] == ["| 50 rows", "| 200 rows"]
    assert lines[header + 2].split(" | ")[2] == "1.00"


def test_table_states_median_range_and_ratio() -> None:
    seconds = {
        "trm-attn": {"inference step": [0.002, 0.001, 0.004], "training step": [0.010, 0.030, 0.020]},
        "mamba2": {"inference step": [0.003, 0.003, 0.003], "training step": [0.010, 0.010, 0.010]},
    }
    assert benchmark.markdown_table("presets", seconds).splitlines() == [
        "| presets | inference step, ms | ratio | training step, ms | ratio |",
        "|---|---:|---:|---:|---:|",
        "| trm-attn | 2 (1 to 4) | 1.00 | 20 (10 to 30) | 1.00 |",
        "| mamba2 | 3 (3 to 3) | 1.50 | 10 (10 to 10) | 0.50 |",
    ]


def test_sparse_and_dense_updates_move_the_batch_alike() -> None:
    """Rows of the batch by the same step; the others only decay in the dense one."""
    import torch

    from modeling_trm.puzzle_table_trm import PuzzleTable

    ids, gradient = torch.tensor([4, 1]), torch.randn(2, 3)
    before, weights = torch.randn(6, 3), {}
    for name in ("sparse_update", "dense_update"):
        table = PuzzleTable(6, 3)
        with torch.no_grad():
            table.weight.copy_(before)
        vars(benchmark)[name](table, iter([ids]), gradient)()
        weights[name] = table.weight.detach()
    torch.testing.assert_close(weights["sparse_update"][ids], weights["dense_update"][ids])
    others = [0, 2, 3, 5]
    assert torch.equal(weights["sparse_update"][others], before[others])
    torch.testing.assert_close(weights["dense_update"][others], before[others] * (1 - 1e-5))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--part", "puzzle-table", "--rows", "5000", "500"], "--rows must be at least the batch size, 768, got 500"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        benchmark.main([*arguments, "--output", "unused"])
    assert end.value.code == 2
    assert named in capsys.readouterr().err
