"""What a certificate is worth, by hand; thresholds with a stated error, against simulations; `trm certify`."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from datasets_builders.features import load_puzzles
from modeling_trm import ReasoningConfig
from modeling_trm.commands import certify
from modeling_trm.evaluation.certificates import (
    AttemptRecords,
    at_most_this_many,
    calibrate,
    certain_above,
    fewest_answers,
    outcome,
    record_attempts,
    risk_coverage,
)
from modeling_trm.utils.loading import load_model
from modeling_trm.verifiers_trm import verifier_for
from tests.conftest import IMAGE

BY_HAND = AttemptRecords(
    right=np.array([[1, 0], [0, 1], [0, 0], [1, 1]], dtype=bool),
    valid=np.array([[1, 0], [0, 1], [0, 0], [0, 0]], dtype=bool),
    halt_logits=np.array([[2.0, 9.0], [1.0, 3.0], [2.5, 0.0], [-1.0, np.nan]]),
)


def test_what_a_certificate_answers_by_hand() -> None:
    found = outcome(BY_HAND, BY_HAND.valid)
    assert {name: found[name]["count"] for name in ("right", "wrong", "abstained")} == {
        "right": 2, "wrong": 0, "abstained": 2,
    }  # fmt: skip
    assert (found["attempts"], found["by_attempts"]) == ((1 + 2 + 2 + 2) / 4, [0.25, 0.5])
    found = outcome(BY_HAND, certain_above(BY_HAND, 1.5))  # first attempts above: 0, 1 and 0 (wrong), none
    assert [found[name]["count"] for name in ("right", "wrong", "abstained")] == [2, 1, 1]
    assert found["error"]["share"] == 1 / 3
    assert found["error"]["ci95"][0] < 1 / 3 < found["error"]["ci95"][1]
    assert outcome(BY_HAND, certain_above(BY_HAND, 10))["error"] is None


def test_the_curve_goes_from_the_surest_to_all_that_have_a_probability() -> None:
    curve = risk_coverage(BY_HAND)
    assert [point["coverage"] for point in curve] == [0.25, 0.5, 0.75, 1.0]  # below the last one nothing is withheld
    # The surest by its second attempt, which is wrong; then one that is right; then first attempts.
    assert [point["risk"] for point in curve] == [1.0, 0.5, 2 / 3, 0.5]


def test_the_binomial_test() -> None:
    assert at_most_this_many(0, 10, 0.1) == pytest.approx(0.9**10)
    assert at_most_this_many(2, 4, 0.5) == pytest.approx((1 + 4 + 6) / 16)
    assert fewest_answers(0.001) == 2995
    assert at_most_this_many(0, 2995, 0.001) <= 0.05 < at_most_this_many(0, 2994, 0.001)


def draw(random: np.random.RandomState, count: int) -> AttemptRecords:
    """A model whose probability is what it says: at logit l an answer is right with sigmoid(2 l)."""
    logits = random.normal(1, 2, (count, 1))
    right = random.uniform(size=(count, 1)) < 1 / (1 + np.exp(-2 * logits))
    return AttemptRecords(right, None, logits)


def test_a_calibrated_threshold_keeps_its_error_19_times_in_20() -> None:
    random, everything = np.random.RandomState(0), draw(np.random.RandomState(1), 200_000)
    broken, right = 0, []
    for _ in range(100):
        threshold = calibrate(draw(random, 1_000), 0.05)
        if threshold is None:  # an early wrong one: nothing is answered
            right.append(0.0)
            continue
        above = certain_above(everything, math.log(threshold / (1 - threshold)))
        found = outcome(everything, above)
        right.append(found["right"]["share"])
        broken += found["error"]["share"] > 0.05
    assert broken <= 11  # of 100 draws with a probability of at most 0.05 each; 12 or more: once in 200
    assert np.median(right) > 0.5  # of the 68 % that could be


def test_no_threshold_where_none_is_shown() -> None:
    assert calibrate(draw(np.random.RandomState(0), 200), 0.001) is None  # too few
    hopeless = AttemptRecords(np.zeros((5_000, 1), dtype=bool), None, np.full((5_000, 1), 40.0))
    assert calibrate(hopeless, 0.5) is None
    with pytest.raises(ValueError, match=r"max_error=1\.5 is not allowed; allowed: numbers between 0 and 1"):
        calibrate(hopeless, 1.5)


def test_recorded_attempts_are_what_solve_answers() -> None:
    model = load_model(str(IMAGE)).double()
    everything = load_puzzles("sudoku", "test")
    puzzles = everything.select(np.linspace(0, len(everything) - 1, 8).astype(int))
    rules = verifier_for("sudoku", (9, 9))
    config = ReasoningConfig(max_steps=5, views=2, num_trajectories=2, noise_std=0.5)
    records = record_attempts(model, puzzles, config, verifier=rules, batch_size=4, progress=False)
    assert records.right.shape == records.valid.shape == records.halt_logits.shape == (8, 4)
    alone = record_attempts(model, puzzles, ReasoningConfig(max_steps=5), verifier=rules, progress=False)
    assert np.array_equal(records.right[:, :1], alone.right)
    np.testing.assert_allclose(records.halt_logits[:, :1], alone.halt_logits, atol=1e-9)
    assert np.array_equal(records.valid, records.right)  # one solution each: what obeys the rules is it
    assert 0 < records.right[:, 0].sum() < 8
    assert (records.halt_logits[:, 0] != records.halt_logits[:, 2]).all()  # a view is another puzzle to the model


@pytest.mark.usefixtures("whole_pictures")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(IMAGE), "--max-puzzles", "12", "--max-steps", "4", "--views", "2"]
    more = ["--max-error", "0.4", "0.001", "--max-calibration", "12", "--output", str(tmp_path / "out")]
    assert certify.main([*arguments, *more]) == 0
    report = json.loads((tmp_path / "out" / "certificates.json").read_text())
    rules, likely, never = report["certificates"]
    assert (rules["certificate"], rules["wrong"]["count"], report["count"]) == ("rules", 0, 12)
    assert sum(rules[name]["count"] for name in ("right", "wrong", "abstained")) == 12
    assert never["certificate"] is None and "at least 2,995 answers" in never["why"]
    assert likely["certificate"] is None or 0 < likely["certificate"] < 1
    assert (tmp_path / "out" / "plots" / "risk_coverage.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert re.search(r"\| rules \| \d+\.\d\d % \(", printed) and "no threshold: 12 puzzles" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-calibration", "3"], "--calibrate-on and --max-calibration are for --max-error"),
        (["--split", "validation", "--max-error", "0.1"], "--split validation is what the threshold is chosen on"),
        (["--max-error", "2"], "2 is not between 0 and 1"),
    ],
)
def test_errors_are_one_line(more: list[str], message: str, tmp_path: Path, refused) -> None:
    assert message in refused(certify.main, ["--model", str(IMAGE), "--output", str(tmp_path / "out"), *more])
