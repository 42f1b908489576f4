"""The plots of votes are pictures that follow the reports, for the smallest and the largest of them."""

import copy
from pathlib import Path

import pytest

from modeling_trm.voting.plots import entropy_distribution, pass_at_k_curves, rank_histogram
from modeling_trm.voting.report import summarise_votes
from tests.voting.samples import random_inputs, records_of

pytestmark = pytest.mark.usefixtures("whole_pictures")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def report() -> dict:
    return summarise_votes(records_of(random_inputs(0)))


def size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == PNG
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_pictures_follow_the_data(tmp_path: Path, report: dict) -> None:
    other = copy.deepcopy(report)
    other["pass_at_k"]["pass@2"] = {"value": 0.99, "ci95": [0.9, 1.0]}
    other["rank_histogram"] = {"ranks": {"1": 3, "4000": 1}, "absent": 9}
    other["inputs"][0]["entropy_bits"] = 9.0
    draws = (lambda one, path: pass_at_k_curves({"tiny": one}, path), rank_histogram, entropy_distribution)
    for draw in draws:
        paths = [draw(one, tmp_path / f"{number}.png") for number, one in enumerate((report, report, other))]
        first, same, changed = (path.read_bytes() for path in paths)
        assert first == same
        assert first != changed
        assert size(paths[0])[0] > 700 and size(paths[0])[1] > 400


def test_several_models_and_long_names(tmp_path: Path, report: dict) -> None:
    two = pass_at_k_curves({"a" * 200: report, "b": report}, tmp_path / "two.png")
    assert size(two) == size(pass_at_k_curves({"a": report}, tmp_path / "one.png"))
    assert two.read_bytes() != (tmp_path / "one.png").read_bytes()
    titled = pass_at_k_curves({"a": report}, tmp_path / "titled.png", title="Something else")
    assert titled.read_bytes() != (tmp_path / "one.png").read_bytes()


@pytest.mark.parametrize(
    "inputs",
    [
        [("a", 0, "1", [])],
        [("a", 0, "1", [("1", 0.5)])],
        [("a", 0, None, [("1", 0.5), ("2", 0.5)]), ("b", 0, "1", [("1", 0.5)])],
    ],
)
def test_smallest_reports(tmp_path: Path, inputs) -> None:
    small = summarise_votes(records_of(inputs, task="maze"), k=[1])
    size(pass_at_k_curves({"tiny": small}, tmp_path / "curve.png"))
    size(rank_histogram(small, tmp_path / "rank.png"))
    size(entropy_distribution(small, tmp_path / "entropy.png"))


def test_refusals(tmp_path: Path, report: dict) -> None:
    unknown = summarise_votes(records_of([("a", 0, None, [("1", 0.5)])]))
    with pytest.raises(ValueError, match="report 'x' has no pass@K"):
        pass_at_k_curves({"x": unknown}, tmp_path / "x.png")
    for count in (0, 7):
        with pytest.raises(ValueError, match=f"reports must hold 1 to 6 models, got {count}"):
            pass_at_k_curves({str(number): report for number in range(count)}, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
