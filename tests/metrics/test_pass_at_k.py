"""Voting pass@K against the transcribed evaluator, against tables worked out by hand, and through `evaluate.load`."""

import inspect
import random
import shutil
from pathlib import Path

import evaluate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_trm.metrics import pass_at_k as installed
from modeling_trm.metrics.pass_at_k import ranking
from modeling_trm.metrics.pass_at_k.ranking import Candidate, pass_at_k, rank_candidates
from tests.forked import run_forked
from tests.oracles.voting import published_pass_at_k, published_ranking

FOLDER = Path(ranking.__file__).parent
EXAMPLE = {
    "predictions": [["12", "21", "12", "21", "33"], ["5", "", ""], ["7", "8", "8"]],
    "scores": [[0.9, 0.8, 0.5, 0.7, 0.99], [0.4, 0.9, 0.9], [0.6, 0.1, 0.2]],
    "references": ["12", "5", "9"],
    "task_ids": ["a", "a", "b"],
}
K = [1, 2, 3, 5]

# Few grids and few halt probabilities: ties in votes, and in both, are common. The probabilities are multiples of 1/8,
# whose sums are exact, so that the oracle's plain sum is the sum in every order.
Vote = st.tuples(st.sampled_from(["", "0", "1", "2", "10", "12/34"]), st.integers(0, 8).map(lambda eighth: eighth / 8))
Votes = st.lists(Vote, max_size=14)
Input = st.tuples(Votes, st.sampled_from(["0", "1", "10", "9"]), st.sampled_from("abc"))
Inputs = st.lists(Input, min_size=1, max_size=6)


def metric_of(inputs: list[tuple[list[tuple[str, float]], str, str]]) -> dict[str, float]:
    votes, references, task_ids = map(list, zip(*inputs))
    predictions = [[grid for grid, _ in cast] for cast in votes]
    scores = [[score for _, score in cast] for cast in votes]
    return pass_at_k(predictions, references, task_ids, scores, K)


def has_exact_ties(votes: list[tuple[str, float]]) -> bool:
    ranked = rank_candidates([grid for grid, _ in votes], [score for _, score in votes])
    return len({candidate[1:] for candidate in ranked}) < len(ranked)


@given(Inputs)
def test_equals_the_published_evaluator_given_the_votes_in_order(inputs) -> None:
    """Votes without grid dropped and the rest sorted by text: the two deviations made explicit, the rest is equal."""
    prepared = [sorted(vote for vote in votes if vote[0] != "") for votes, _, _ in inputs]
    _, references, task_ids = map(list, zip(*inputs))
    assert metric_of(inputs) == pytest.approx(published_pass_at_k(prepared, references, task_ids, K), abs=1e-12)


@given(Inputs)
def test_equals_the_published_evaluator_on_untouched_votes_without_ties(inputs) -> None:
    untied = [
        ([vote for vote in votes if vote[0] != ""], reference, task)
        for votes, reference, task in inputs
        if not has_exact_ties(votes)
    ]
    if untied:
        votes, references, task_ids = map(list, zip(*untied))
        assert metric_of(untied) == pytest.approx(published_pass_at_k(votes, references, task_ids, K), abs=1e-12)


@given(Inputs)
def test_the_deviation_for_empty_grids_can_only_gain(inputs) -> None:
    votes, references, task_ids = map(list, zip(*inputs))
    ordered = [sorted(cast) for cast in votes]
    published = published_pass_at_k(ordered, references, task_ids, K)
    for name, value in metric_of(inputs).items():
        assert value >= published[name] - 1e-12


def test_empty_grid_takes_no_place() -> None:
    votes = [("", 0.5), ("", 0.5), ("1", 0.5)]
    assert published_ranking(votes) == ["", "1"]
    assert rank_candidates(["", "", "1"], [0.5, 0.5, 0.5]) == [Candidate("1", 1, 0.5)]


@given(Inputs, st.randoms(use_true_random=False))
def test_order_of_votes_and_of_inputs_does_not_matter(inputs, shuffler: random.Random) -> None:
    expected = metric_of(inputs)
    shuffled = [(shuffler.sample(votes, len(votes)), reference, task) for votes, reference, task in inputs]
    assert metric_of(shuffler.sample(shuffled, len(shuffled))) == expected


def test_mean_scores_do_not_depend_on_the_order() -> None:
    """0.1 + 0.2 + 0.3 differs in the last bit from 0.3 + 0.2 + 0.1; the tie must be broken by text, not by that."""
    assert (0.1 + 0.2) + 0.3 != (0.3 + 0.2) + 0.1
    ranked = rank_candidates(["b", "b", "b", "a", "a", "a"], [0.1, 0.2, 0.3, 0.3, 0.2, 0.1])
    assert [candidate.grid for candidate in ranked] == ["a", "b"]
    assert ranked[0].score == ranked[1].score


@given(Inputs)
def test_more_attempts_never_lose(inputs) -> None:
    values = list(metric_of(inputs).values())
    assert values == sorted(values)
    assert all(0.0 <= value <= 1.0 for value in values)


def test_ranking_by_hand() -> None:
    predictions = ["b", "a", "c", "", "b", "a", "d", "d"]
    scores = [0.9, 0.25, 1.0, 1.0, 0.1, 0.5, 0.125, 0.625]
    # b: 2 votes, mean 0.5; a and d: 2 votes, mean 0.375, so by text; c: 1 vote.
    assert rank_candidates(predictions, scores) == [
        Candidate("b", 2, 0.5), Candidate("a", 2, 0.375), Candidate("d", 2, 0.375), Candidate("c", 1, 1.0)
    ]  # fmt: skip
    assert [candidate.grid for candidate in rank_candidates(predictions)] == ["a", "b", "d", "c"]
    assert rank_candidates([]) == rank_candidates(["", ""]) == []


def test_example_of_the_card_by_hand() -> None:
    assert pass_at_k(**EXAMPLE, k=[1, 2]) == {"pass@1": 0.25, "pass@2": 0.5}
    assert list(pass_at_k(**EXAMPLE)) == ["pass@1", "pass@2", "pass@5"]  # no input has more than five votes
    without_scores = {name: value for name, value in EXAMPLE.items() if name != "scores"}
    assert pass_at_k(**without_scores, k=[1]) == {"pass@1": 0.5}  # "12" comes before "21"


def test_tasks_weigh_alike_whatever_their_number_of_inputs() -> None:
    """Task a: 1 of 3 inputs, task b: 1 of 1; (1/3 + 1) / 2, not 2/4."""
    figures = pass_at_k([["1"], ["2"], [], ["3"]], ["1", "9", "9", "3"], ["a", "a", "a", "b"], k=[1])
    assert figures["pass@1"] == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def metric() -> evaluate.Metric:
    return evaluate.load(str(FOLDER))


def test_loaded_metric_gives_the_same_figures(metric: evaluate.Metric) -> None:
    assert metric.compute(**EXAMPLE, k=[1, 2]) == {"pass@1": 0.25, "pass@2": 0.5}
    generator = random.Random(5)
    for _ in range(5):
        lengths = [generator.randrange(9) for _ in range(12)]
        inputs = {
            "predictions": [[generator.choice(["", "1", "2", "30/12"]) for _ in range(length)] for length in lengths],
            "scores": [[generator.random() for _ in range(length)] for length in lengths],
            "references": [generator.choice(["1", "2"]) for _ in lengths],
            "task_ids": [generator.choice("abcd") for _ in lengths],
        }
        assert metric.compute(**inputs) == pass_at_k(**inputs)


def test_loaded_metric_keeps_float64_and_collects_batches(metric: evaluate.Metric) -> None:
    """The two scores differ by less than float32 can tell."""
    near = {
        "predictions": [["1", "2"]], "scores": [[0.5, 0.5 + 1e-12]], "references": ["2"], "task_ids": ["a"]
    }  # fmt: skip
    assert metric.compute(**near, k=[1]) == {"pass@1": 1.0}
    metric.add_batch(**near)
    metric.add_batch(**{**near, "references": ["1"], "task_ids": ["b"]})
    assert metric.compute(k=[1, 2]) == {"pass@1": 0.5, "pass@2": 1.0}


def test_the_installed_metric_loads_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the guide says: evaluate takes a folder's path, and the package knows its own."""
    monkeypatch.chdir(tmp_path)
    assert evaluate.load(installed.__path__[0]).compute(**EXAMPLE, k=[1]) == {"pass@1": 0.25}


def test_folder_is_complete_by_itself(tmp_path: Path) -> None:
    """Copied elsewhere, as on the Hub, and loaded in a fresh process that does not know the package."""
    copy = Path(shutil.copytree(FOLDER, tmp_path / "pass_at_k"))
    (tmp_path / "empty").mkdir()
    code = (
        "import sys, evaluate\n"
        f"result = evaluate.load({str(copy)!r}).compute(**{EXAMPLE!r}, k=[2])\n"
        "assert result == {'pass@2': 0.5}, result\n"
        "assert 'modeling_trm' not in sys.modules\n"
    )
    done = run_forked("-c", code, cwd=tmp_path / "empty")
    assert done.returncode == 0, done.stderr


def test_plain_functions_need_neither_evaluate_nor_datasets() -> None:
    source = inspect.getsource(ranking)
    assert "import evaluate" not in source and "import datasets" not in source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": ["12", "5"]}, "references has 2 entries, predictions has 3"),
        ({"task_ids": ["a"]}, "task_ids has 1 entries, predictions has 3"),
        ({"scores": [[0.9]]}, "scores has 1 entries, predictions has 3; one entry a test input"),
        ({"scores": [[0.9], [0.1] * 3, [0.1] * 3]}, r"test input 0 \(task 'a'\): scores has 1 entries, pred.* has 5"),
        ({"scores": [[0.9] * 5, [float("nan")] * 3, [0.1] * 3]}, r"test input 1 \(task 'a'\): scores holds nan"),
        ({"predictions": ["12", "5", "9"]}, r"predictions\[0\] is the text '12'"),
        ({"references": ["12", "", "9"]}, r"references\[1\] is ''"),
        ({"references": ["12", None, "9"]}, r"references\[1\] is None"),
        ({"predictions": [], "references": [], "task_ids": [], "scores": []}, "predictions is empty"),
    ],
)
def test_bad_inputs_name_the_field(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pass_at_k(**(EXAMPLE | changes))


def test_bad_k() -> None:
    loaded = evaluate.load(str(FOLDER))  # one of its own: it keeps the inputs that it refused
    for k in (2, [], [0], [-1, 2], [1, 1], [1.0], [True], "12"):
        for compute in (pass_at_k, loaded.compute):
            with pytest.raises(ValueError, match="k must be a list of distinct whole numbers from 1"):
                compute(**EXAMPLE, k=k)


def test_card_shows_the_tested_example() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    call = card.split("metric.compute(")[1].split("```")[0]
    arguments, result = call.split("\n)\n# ")
    assert eval(f"dict({arguments})") == EXAMPLE | {"k": [1, 2]}
    assert result.strip() == "{'pass@1': 0.25, 'pass@2': 0.5}"
