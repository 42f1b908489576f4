"""Two models on the same inputs: differences by hand, symmetry, and records that cannot be compared."""

import json
from pathlib import Path

import pytest

from modeling_trm.utils.bootstrap import paired_interval, sign_flip_test
from modeling_trm.voting.comparison import compare_votes, markdown_comparison, write_comparison
from modeling_trm.voting.report import summarise_votes
from tests.voting.samples import random_inputs, records_of

RIGHT, WRONG, SECOND = [("1", 0.5)], [("2", 0.5)], [("2", 0.5), ("2", 0.5), ("1", 0.5)]


def models(*votes_of_both, reference="1"):
    """Records of two models on tasks t0, t1, ... of one input each."""
    return tuple(
        records_of([(f"t{number}", 0, reference, votes[side]) for number, votes in enumerate(votes_of_both)])
        for side in (0, 1)
    )


def test_figures_by_hand() -> None:
    a, b = models((RIGHT, RIGHT), (RIGHT, WRONG), (SECOND, RIGHT), (WRONG, SECOND), (RIGHT, WRONG))
    comparison = compare_votes(a, b, ("one", "two"), k=[1, 2])
    first = comparison["pass_at_k"]["pass@1"]
    assert first["values"] == pytest.approx([3 / 5, 2 / 5])
    assert first["difference"] == pytest.approx(1 / 5)
    scores_a, scores_b = [1, 1, 0, 0, 1], [1, 0, 1, 0, 0]
    assert tuple(first["ci95"]) == paired_interval(scores_a, scores_b)
    assert first["p"] == sign_flip_test(scores_a, scores_b) == 1.0  # of +1 -1 +1: every sum is as far from 0
    assert comparison["pass_at_k"]["pass@2"]["difference"] == pytest.approx(4 / 5 - 3 / 5)
    solved = comparison["solved_by"]
    assert solved["pass@1"]["tasks"] == {"both": 1, "neither": 1, "only": [["t1", "t4"], ["t2"]]}
    assert solved["pass@1"]["inputs"]["only"] == [["t1, test 0", "t4, test 0"], ["t2, test 0"]]
    assert solved["pass@2"]["tasks"] == {"both": 2, "neither": 0, "only": [["t1", "t4"], ["t3"]]}
    assert solved["coverage"] == solved["pass@2"]
    assert comparison["top1_agreement"] == pytest.approx(2 / 5)  # t0, and t3 where both say "2"
    assert comparison["means"]["unique_candidates"]["values"] == pytest.approx([6 / 5, 6 / 5])
    json.dumps(comparison, allow_nan=False)


def test_a_task_is_solved_when_all_its_inputs_are() -> None:
    half = records_of([("t", 0, "1", RIGHT), ("t", 1, "1", WRONG)])
    whole = records_of([("t", 0, "1", RIGHT), ("t", 1, "1", RIGHT)])
    comparison = compare_votes(half, whole)
    assert comparison["pass_at_k"]["pass@1"]["difference"] == -0.5
    assert comparison["solved_by"]["pass@1"]["tasks"]["only"] == [[], ["t"]]
    assert comparison["solved_by"]["pass@1"]["inputs"]["only"] == [[], ["t, test 1"]]


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_the_reports_whatever_the_order_of_the_inputs(seed: int) -> None:
    strong, weak = random_inputs(seed, skill=0.6), random_inputs(seed, skill=0.2)
    a, b = records_of(strong), records_of(weak)
    comparison = compare_votes(a, b)
    reports = [summarise_votes(records) for records in (a, b)]
    for name, entry in comparison["pass_at_k"].items():
        assert entry["values"] == [report["pass_at_k"][name]["value"] for report in reports]
        assert 0.0 < entry["p"] <= 1.0
        assert entry["ci95"][0] <= entry["difference"] <= entry["ci95"][1]
    assert comparison["reports"] == reports
    turned = compare_votes(a, records_of(weak[::-1]))
    for name in ("pass_at_k", "coverage", "solved_by", "top1_agreement"):
        assert turned[name] == comparison[name]


def test_exchanged_models_give_the_opposite() -> None:
    a, b = records_of(random_inputs(0, skill=0.6)), records_of(random_inputs(0, skill=0.2))
    there, back = compare_votes(a, b)["pass_at_k"], compare_votes(b, a)["pass_at_k"]
    for name in there:
        assert there[name]["difference"] == pytest.approx(-back[name]["difference"])
        assert there[name]["p"] == back[name]["p"]
        assert there[name]["ci95"] == pytest.approx([-end for end in reversed(back[name]["ci95"])])


def test_a_model_against_itself() -> None:
    records = records_of(random_inputs(0, skill=1.0))
    comparison = compare_votes(records, records)
    for entry in [*comparison["pass_at_k"].values(), comparison["coverage"]]:
        assert (entry["difference"], entry["ci95"], entry["p"]) == (0.0, [0.0, 0.0], 1.0)
    assert comparison["solved_by"]["pass@1"]["tasks"]["only"] == [[], []]


def test_markdown_and_files(tmp_path: Path) -> None:
    a, b = models((RIGHT, RIGHT), (RIGHT, WRONG), (SECOND, RIGHT))
    comparison = compare_votes(a, b, ("one", "two"), k=[1, 2])
    page = markdown_comparison(comparison)
    assert page.splitlines()[0] == "# arc, transductive protocol: one against two"
    assert "| pass@2 | 100.00 | 66.67 | +33.33 |" in page
    assert "| pass@1, tasks | 1 | 1 | 1 | 0 |" in page
    written = write_comparison(comparison, tmp_path)
    assert [path.name for path in written] == ["comparison.json", "comparison.md", "comparison_pass_at_k.png"]
    stored = json.loads(written[0].read_text(encoding="utf-8"))
    assert stored == {name: value for name, value in comparison.items() if name != "reports"}
    mixed = compare_votes(a, records_of([(f"t{n}", 0, "1", RIGHT) for n in range(3)], protocol="inductive"))
    assert "transductive protocol and inductive protocol" in markdown_comparison(mixed)


def test_what_cannot_be_compared() -> None:
    a, b = models((RIGHT, RIGHT), (RIGHT, WRONG))
    with pytest.raises(ValueError, match="t1, test 0: the reference differs: '1' for A, '3' for B"):
        compare_votes(a, records_of([("t0", 0, "1", RIGHT), ("t1", 0, "3", RIGHT)]))
    with pytest.raises(ValueError, match="t1, test 0: the reference differs: '1' for A, unknown for B"):
        compare_votes(a, records_of([("t0", 0, "1", RIGHT), ("t1", 0, None, RIGHT)]))
    with pytest.raises(ValueError, match="t1, test 0 is a test input of A alone"):
        compare_votes(a, records_of([("t0", 0, "1", RIGHT), ("t2", 0, "1", RIGHT)]))
    with pytest.raises(ValueError, match="t1, test 0 is a test input of B alone"):
        compare_votes(records_of([("t0", 0, "1", RIGHT)]), b)
    with pytest.raises(ValueError, match="task is 'arc' for A, 'maze' for B"):
        compare_votes(a, records_of([("t0", 0, "1", RIGHT)], task="maze"))
    with pytest.raises(ValueError, match="names must differ, got 'A' twice"):
        compare_votes(a, b, ("A", "A"))
    with pytest.raises(ValueError, match="no test input has a known answer"):
        compare_votes(*models((RIGHT, WRONG), reference=None))
