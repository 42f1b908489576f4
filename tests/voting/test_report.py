"""The report's figures by hand, against the metric, and on records with nothing in them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from modeling_trm.metrics.pass_at_k.ranking import pass_at_k
from modeling_trm.voting.records import VoteRecords
from modeling_trm.voting.report import markdown_report, summarise_votes, write_report
from modeling_trm.voting.submission import build_submission, read_submission
from tests.voting.samples import random_inputs, records_of

# Task a, test 0: 8 votes: "1" x 4, "2" x 2, no grid x 2; right is "2".   Task a, test 1: "3" x 2; right is "3".
# Task b: 20 votes: "5" x 19, "6" x 1; right is "6", 5 % of the votes.      Task c: 4 x no grid; right is "7".
BY_HAND = [
    ("e/a", 0, "2", [("1", 0.5)] * 4 + [("2", 0.5)] * 2 + [("", 0.9)] * 2),
    ("e/a", 1, "3", [("3", 0.5)] * 2),
    ("e/b", 0, "6", [("5", 0.5)] * 19 + [("6", 0.5)]),
    ("e/c", 0, "7", [("", 0.9)] * 4),
]


def metric_arguments(records: VoteRecords) -> dict:
    cast = [records.of_input(number) for number in range(len(records.inputs))]
    return {
        "predictions": [predictions for predictions, _ in cast],
        "scores": [scores for _, scores in cast],
        "references": [test_input.reference for test_input in records.inputs],
        "task_ids": [test_input.task_id for test_input in records.inputs],
    }


def test_figures_by_hand() -> None:
    report = summarise_votes(records_of(BY_HAND), k=[1, 2, 5])
    values = {name: entry["value"] for name, entry in report["pass_at_k"].items()}
    assert values == pytest.approx({"pass@1": (1 / 2) / 3, "pass@2": 2 / 3, "pass@5": 2 / 3})
    assert report["coverage"]["value"] == pytest.approx(2 / 3)
    assert report["counts"] == {
        "tasks": 3, "inputs": 4, "scored_tasks": 3, "scored_inputs": 4, "votes": 34, "votes_without_grid": 6,
        "inputs_without_prediction": ["e/c, test 0"], "inputs_without_reference": [],
    }  # fmt: skip
    first, second, third, fourth = report["inputs"]
    assert first["entropy_bits"] == pytest.approx(1.5)  # shares 1/2, 1/4 and, without a grid, 1/4
    assert (first["top1_share"], first["top1_margin"], first["correct_share"]) == (0.5, 0.25, 0.25)
    assert (first["unique_candidates"], first["rank"], first["hard"], first["top1_grid"]) == (2, 2, False, "1")
    assert (second["entropy_bits"], second["top1_share"], second["top1_margin"], second["rank"]) == (0.0, 1.0, 1.0, 1)
    assert third["entropy_bits"] == pytest.approx(-(0.95 * math.log2(0.95) + 0.05 * math.log2(0.05)))
    assert (third["rank"], third["correct_share"], third["hard"]) == (2, 0.05, True)
    assert (fourth["entropy_bits"], fourth["top1_share"], fourth["rank"], fourth["hard"]) == (0.0, 0.0, None, True)
    assert report["means"] == pytest.approx(
        {
            "unique_candidates": (2 + 1 + 2 + 0) / 4,
            "entropy_bits": (1.5 + third["entropy_bits"]) / 4,
            "top1_share": (0.5 + 1 + 0.95) / 4,
            "top1_margin": (0.25 + 1 + 0.9) / 4,
            "correct_share": (0.25 + 1 + 0.05) / 4,
        }
    )
    assert report["rank_histogram"] == {"ranks": {"1": 1, "2": 2}, "absent": 1}
    hard, easy = report["split"]["hard"], report["split"]["easy"]
    assert [hard[name] for name in ("inputs", "pass@1", "pass@2", "coverage")] == [2, 0.0, 0.5, 0.5]
    assert [easy[name] for name in ("inputs", "pass@1", "pass@2", "coverage")] == [2, 0.5, 1.0, 1.0]
    assert report["split"]["threshold"] == 0.15
    assert (report["task"], report["protocol"], report["manifest"]["model"]) == ("arc", "transductive", "tiny")


@pytest.mark.parametrize(("right", "hard"), [(2, True), (3, False)])
def test_hard_is_less_than_15_percent(right: int, hard: bool) -> None:
    votes = [("1", 0.5)] * right + [("2", 0.5)] * (20 - right)
    assert summarise_votes(records_of([("a", 0, "1", votes)]))["inputs"][0]["hard"] is hard


@pytest.mark.parametrize("seed", range(20))
def test_pass_at_k_is_the_metrics(seed: int) -> None:
    records = records_of(random_inputs(seed))
    report = summarise_votes(records)
    expected = pass_at_k(**metric_arguments(records))
    values = {name: entry["value"] for name, entry in report["pass_at_k"].items()}
    assert values == pytest.approx(expected, abs=1e-12)
    more = summarise_votes(records, k=[1000])["pass_at_k"]["pass@1000"]
    assert report["coverage"] == more  # 30 votes have no thousand candidates
    for entry in [*report["pass_at_k"].values(), report["coverage"]]:
        assert 0.0 <= entry["ci95"][0] <= entry["value"] <= entry["ci95"][1] <= 1.0
    ranks = report["rank_histogram"]
    assert sum(ranks["ranks"].values()) + ranks["absent"] == len(records.inputs)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_the_votes_does_not_matter(seed: int) -> None:
    inputs = random_inputs(seed)
    generator = np.random.default_rng(seed)
    shuffled = [
        (task, pair, answer, [votes[number] for number in generator.permutation(len(votes))])
        for task, pair, answer, votes in inputs
    ]
    assert summarise_votes(records_of(shuffled)) == summarise_votes(records_of(inputs))


def test_inputs_without_a_known_answer_are_not_scored() -> None:
    report = summarise_votes(records_of([*BY_HAND, ("e/a", 2, None, [("1", 0.5)]), ("e/d", 0, None, [])]))
    known = summarise_votes(records_of(BY_HAND))
    assert report["pass_at_k"] == known["pass_at_k"]
    assert report["split"] == known["split"]
    assert report["counts"]["inputs_without_reference"] == ["e/a, test 2", "e/d, test 0"]
    assert report["counts"]["inputs_without_prediction"] == ["e/c, test 0", "e/d, test 0"]
    assert (report["counts"]["tasks"], report["counts"]["scored_tasks"]) == (4, 3)
    last = report["inputs"][-1]
    assert (last["rank"], last["correct_share"], last["hard"], last["entropy_bits"]) == (None, None, None, None)


@pytest.mark.parametrize(
    "inputs",
    [
        [("a", 0, None, [])],
        [("a", 0, None, [("1", 0.5)])],
        [("a", 0, "1", [])],
        [("a", 0, "1", [("", 0.5)])],
        [("a", 0, "1", [("1", 0.5)])],
        [("a", 0, "1", [("1", 0.5)]), ("a", 1, None, [])],
    ],
)
def test_smallest_records_give_whole_reports(tmp_path: Path, inputs) -> None:
    report = summarise_votes(records_of(inputs))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert "nan" not in markdown_report(report).lower()
    returned, written = write_report(records_of(inputs), tmp_path)
    assert returned == report
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert report["pass_at_k"].keys() == (set() if inputs[0][2] is None else {"pass@1"})


def test_written_report(tmp_path: Path) -> None:
    records = records_of(random_inputs(1))
    _, written = write_report(records, tmp_path / "out", seed=3)
    names = {path.relative_to(tmp_path / "out").as_posix() for path in written}
    plots = {"plots/pass_at_k.png", "plots/correct_rank.png", "plots/vote_entropy.png"}
    assert names == {"report.json", "report.md", "submission.json"} | plots
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report == summarise_votes(records, seed=3)
    assert (tmp_path / "out" / "report.md").read_text(encoding="utf-8") == markdown_report(report)
    assert len(read_submission(tmp_path / "out" / "submission.json")) == 12
    _, sudoku = write_report(records_of(random_inputs(1), task="sudoku", protocol=None), tmp_path / "sudoku")
    assert {path.name for path in sudoku} == {Path(name).name for name in names} - {"submission.json"}


def test_a_submission_has_every_task_that_is_expected(tmp_path: Path) -> None:
    records = records_of(random_inputs(1), not_attempted={"another": 2})
    asked = build_submission(records)
    report, _ = write_report(records, tmp_path)
    assert "Not attempted, and in no figure above (1 tasks): another." in markdown_report(report)
    expected = {"another": 2} | {task: len(tests) for task, tests in asked.items()}
    submission = read_submission(tmp_path / "submission.json", expected)
    assert submission.pop("another") == [{"attempt_1": [[0]], "attempt_2": [[0]]}] * 2
    assert submission == asked


def test_markdown_has_the_papers_columns_and_names_the_protocol() -> None:
    page = markdown_report(summarise_votes(records_of(BY_HAND)), name="a|b")
    lines = page.splitlines()
    assert lines[0] == "# arc, transductive protocol: pass@K by voting"
    table = [line for line in lines if line.startswith("|")]
    assert table[0].split(" | ") == [
        "| model", *(f"pass@{k}" for k in (1, 2, 5, 10)), "coverage", "unique candidates",
        "vote entropy (bits)", "top-1 share", "top-1 margin", "correct-vote share |",
    ]  # fmt: skip
    # No input has more than 20 votes.
    assert table[2].startswith("| a\\|b | 16.67 | 66.67 | 66.67 |")
    assert table[2].endswith(" | 1.25 | 0.45 | 61.3 | 53.8 | 32.5 |")
    assert len({line.replace("\\|", "").count("|") for line in table[:4]}) == 1
    assert "| hard | 2 | 0.00 | 50.00 | 50.00 |" in page
    assert "Without any prediction (counted as wrong): e/c, test 0." in page
    assert "not the sampling estimator" in page
    inductive = markdown_report(summarise_votes(records_of(BY_HAND, protocol="inductive")))
    assert inductive.startswith("# arc, inductive protocol:")
    assert markdown_report(summarise_votes(records_of(BY_HAND, task="maze", protocol=None))).startswith(
        "# maze: pass@K"
    )


def test_diverged_models_are_named() -> None:
    warning = "WARNING: NaN or infinite halt logits on 7 votes"
    assert warning in markdown_report(summarise_votes(records_of(BY_HAND, non_finite_votes=7)))
    assert "WARNING" not in markdown_report(summarise_votes(records_of(BY_HAND, non_finite_votes=0)))


def test_long_lists_are_cut() -> None:
    page = markdown_report(summarise_votes(records_of([(f"t{number:03}", 0, "1", []) for number in range(30)])))
    assert "t019, test 0; and 10 more." in page
    assert "t020" not in page


def test_refusals() -> None:
    with pytest.raises(ValueError, match="the records have no test input"):
        summarise_votes(records_of([]))
    with pytest.raises(ValueError, match="k must be a list of distinct whole numbers"):
        summarise_votes(records_of(BY_HAND), k=[2, 2])
