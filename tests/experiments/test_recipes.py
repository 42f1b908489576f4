"""Recipes at equal cost: budgets, figures by hand, and a comparison of two real runs."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from modeling_trm.experiments.recipe_plots import validation_curve
from modeling_trm.experiments.recipes import Contender, compare, markdown_table, over_seeds, read_contender
from modeling_trm.experiments.recipes import train as train_run
from modeling_trm.training.arguments import parse_recipe
from modeling_trm.utils.flops import flops, training_flops
from scripts import compare_recipes, train
from tests.pictures import leave_blank


@pytest.fixture
def contenders(write_recipe) -> list[Contender]:
    dis = {"objective": "dis", "loss_on": "blanks", "num_latents": 1, "H_cycles": 1, "L_cycles": 3}
    paths = [write_recipe("act"), write_recipe("dis", **dis)]
    return [read_contender(str(path), ["test_puzzles=4"]) for path in paths]


def run_of(by_step: list[float], steps: int = 7, fingerprint: str = "f") -> dict[str, Any]:
    test = {"fingerprint": fingerprint, "count": 40, "by_step": by_step, "cell_accuracy": by_step[-1] / 2}
    test["by_source"] = {"hard": {"exact_accuracy": by_step[0]}, "easy": {"exact_accuracy": by_step[-1]}}
    return {"steps": steps, "seconds": 2.0, "hardware": "a machine", "evaluations": {"test": test}}


def test_a_budget_buys_its_steps(contenders, write_recipe) -> None:
    act, dis = contenders
    assert (act.passes_a_step, dis.passes_a_step) == (6, 3)
    assert act.flops_a_step == 8 * training_flops(act.config)
    assert act.steps_for(10 * act.flops_a_step) == 10
    # Two cycles of three stacks, one of them with a gradient, against three stacks with a gradient.
    assert act.flops_a_step > dis.flops_a_step and dis.flops_a_step > 8 * 3 * flops(dis.config) * 0.99
    curriculum = read_contender(str(write_recipe("grows", depth_curriculum={0.25: [1, 1], 0.75: [1, 2]})), [])
    depths = [(0.25, (1, 1)), (0.5, (1, 2)), (0.25, None)]
    expected = 8 * sum(share * training_flops(curriculum.config, cycles) for share, cycles in depths)
    assert curriculum.flops_a_step == pytest.approx(expected)


def test_figures_by_hand(contenders) -> None:
    act = contenders[0]
    runs = {
        "act": {0: run_of([0.1, 0.2, 0.3]), 1: run_of([0.2, 0.4, 0.5])},  # 6, 12, 18 passes
        "dis": {0: run_of([0.0, 0.1, 0.2, 0.5]), 1: run_of([0.1, 0.1, 0.4, 0.9])},  # 3, 6, 9, 12 passes
    }
    report = compare(contenders, runs)
    assert report["passes"] == 12 and report["test_puzzles"] == 40 and report["hardware"] == ["a machine"]
    assert report["recipes"]["act"]["at_equal_passes"]["each"] == [0.2, 0.4]
    assert report["recipes"]["act"]["at_equal_passes"]["step"] == 2
    assert report["recipes"]["dis"]["at_equal_passes"]["each"] == [0.5, 0.9]
    assert report["recipes"]["act"]["at_last_step"]["mean"] == pytest.approx(0.4)
    assert report["differences"]["dis"]["at_equal_passes"]["each"] == pytest.approx([0.3, 0.5])
    assert report["differences"]["dis"]["at_last_step"]["mean"] == pytest.approx(0.3)
    assert report["differences"]["dis"]["cells"]["each"] == pytest.approx([0.1, 0.2])
    assert report["recipes"]["act"]["training_flops"] == pytest.approx(7 * act.flops_a_step)
    lines = markdown_table(report).splitlines()
    assert lines[5] == "| solved at its last step | easy | hard | FLOP a puzzle |"
    easy, hard = report["recipes"]["act"]["by_source"]["easy"], report["recipes"]["act"]["by_source"]["hard"]
    assert (easy["each"], hard["each"]) == ([0.3, 0.5], [0.1, 0.2])
    assert report["recipes"]["act"]["flops_a_puzzle"] == 3 * flops(act.config) and "40.0 %" in lines[7]
    assert lines[9] == "" and lines[10].startswith(
        "Means over 2 seeds (0, 1) on the same 40 test puzzles; in brackets St"
    )
    assert len(lines) == 11 and "in at most 12 passes" in lines[0] and lines[3].startswith("| dis | 7 |")


def test_passes_that_do_not_divide_are_never_more_than_allowed(contenders) -> None:
    runs = {"act": {0: run_of([0.3, 0.4])}, "dis": {0: run_of([0.1, 0.2, 0.3])}}  # 12 and 9 passes
    report = compare(contenders, runs)
    at = {name: figures["at_equal_passes"] for name, figures in report["recipes"].items()}
    assert report["passes"] == 9
    assert (at["act"]["passes"], at["act"]["mean"]) == (6, 0.3) and (at["dis"]["passes"], at["dis"]["mean"]) == (9, 0.3)
    lines = markdown_table(report).splitlines()
    assert "in at most 9 passes" in lines[0] and "30.0 %, 6 passes" in lines[2] and "30.0 %, 9 passes" in lines[3]
    # One that has no answer within so many passes has solved nothing.
    none = compare(contenders, runs | {"dis": {0: run_of([0.1])}})["recipes"]["act"]["at_equal_passes"]
    assert (none["mean"], none["passes"], none["step"]) == (0.0, 0, 0)


def test_the_course_of_a_run_is_drawn_over_its_own_flops(tmp_path: Path) -> None:
    records = [
        {"step": 2, "loss": 1.0, "flops": 5},
        {"step": 2, "flops": 5, "eval": {"exact_accuracy": 0.25}},
        {"step": 4, "flops": 90, "eval": {"exact_accuracy": 0.5}},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert validation_curve(tmp_path / "log.jsonl") == [(5, 0.25), (90, 0.5)]


def test_early_exit_leaves_nothing_to_compare(contenders) -> None:
    run = run_of([0.1])
    del run["evaluations"]["test"]["by_step"]
    with pytest.raises(ValueError, match="early exit"):
        compare(contenders, {"act": {0: run}, "dis": {0: run_of([0.1])}})


def test_the_interval_is_students() -> None:
    # Three values of standard deviation 0.1 around 0.4: 0.4 +- 0.4303 / sqrt(3). A share is between 0 and 1.
    figures = over_seeds([0.3, 0.4, 0.5], 0.0)
    assert figures["mean"] == pytest.approx(0.4)
    assert figures["ci95"] == pytest.approx([0.4 - 0.24843, 0.4 + 0.24843], abs=1e-4)
    assert over_seeds([0.0, 0.1, 0.2], 0.0)["ci95"][0] == 0.0 > over_seeds([0.0, 0.1, 0.2])["ci95"][0]
    assert over_seeds([0.5]) == {"mean": 0.5, "ci95": None, "each": [0.5]}


@pytest.mark.parametrize("each", [[0.0, 0.0], [1.0, 1.0, 1.0], [0.3 - 0.2, 0.1]])
def test_seeds_that_are_alike_give_no_interval_of_no_width(each) -> None:
    assert over_seeds(each)["ci95"] is None and over_seeds(each)["mean"] == pytest.approx(each[-1])


def test_a_single_seed_is_said(contenders) -> None:
    report = compare(contenders, {"act": {3: run_of([0.1])}, "dis": {3: run_of([0.1])}})
    assert markdown_table(report).splitlines()[-1].startswith("One seed (3) on 40 test puzzles: nothing tells")


def test_other_test_puzzles_do_not_compare(contenders) -> None:
    runs = {"act": {0: run_of([0.1])}, "dis": {0: run_of([0.1], fingerprint="g")}}
    with pytest.raises(ValueError, match="different test puzzles"):
        compare(contenders, runs)


@pytest.mark.usefixtures("whole_pictures")
def test_the_command_trains_compares_and_does_not_repeat(write_recipe, tmp_path: Path, monkeypatch, capsys) -> None:
    """In this process, because another one takes seconds to import."""
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> SimpleNamespace:
        commands.append(command)
        with monkeypatch.context() as patch:  # the comparison's picture is looked at, not theirs
            patch.setattr(Figure, "savefig", leave_blank)
            return SimpleNamespace(returncode=train.main(command[4:]))

    monkeypatch.setattr(subprocess, "run", run)
    small = {"block_operators": ["mlp_t", "mlp"], "train_steps": 4}
    recipes = [
        str(write_recipe("act", **small)),
        str(write_recipe("dis", **small, objective="dis", loss_on="blanks", H_cycles=1, L_cycles=1)),
    ]
    command = [*recipes, "--vary", "hot", "learning_rate=0.01", "depth_curriculum={0.5: [1, 1]}"]
    command += ["--output", str(tmp_path / "out"), "--set", "test_puzzles=6", "--seeds"]
    assert compare_recipes.main([*command, "0"]) == 0
    assert compare_recipes.main([*command, "0", "1"]) == 0
    assert len(commands) == 6  # seed 0 was there
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    act, dis, varied = report["recipes"].values()
    assert list(report["recipes"])[2] == "hot"
    run = json.loads(
        (tmp_path / "out" / "learning_rate=0.01_depth_curriculum=_0.5_1_1" / "seed-1" / "metrics.json").read_text()
    )
    assert (run["recipe"]["learning_rate"], run["recipe"]["depth_curriculum"]) == (0.01, "{0.5: [1, 1]}")
    assert run["recipe"]["objective"] == "act" and varied["training_flops"] == pytest.approx(
        act["training_flops"], rel=0.2
    )
    assert act["seeds"] == [0, 1] and act["train_steps"] == 4
    assert dis["training_flops"] == pytest.approx(act["training_flops"], rel=0.5 / dis["train_steps"])
    assert report["test_puzzles"] == 6 and report["passes"] == 4 * 2
    assert (tmp_path / "out" / "plots" / "recipes.png").stat().st_size > 10_000
    assert (tmp_path / "out" / "comparison.md").read_text() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.yaml", "b/a.yaml"], "the recipe name a is given twice"),
        (["a.yaml", "--seeds", "1", "1"], "the seed 1 is given twice"),
        (["a.yaml", "--vary", "seed=3"], "--vary 'seed=3': expected FIELD=VALUE, of another field than"),
        (["a.yaml", "--vary", "muon_lr=1", "--vary", "muon_lr=1"], "the recipe name muon_lr=1 is given twice"),
        (["a.yaml", "--vary", "a", "muon_lr=1"], "the recipe name a is given twice"),
        (["a.yaml", "--vary", "a"], "--vary 'a': expected [NAME] FIELD=VALUE"),
        (["a.yaml", "--set", "seed=3"], "--set 'seed=3': expected FIELD=VALUE, of another field than"),
        (["a.yaml", "--set", "batch_size"], "--set 'batch_size'"),
        (["a.yaml", "--flops", "0"], "--flops must be above 0 and finite, got 0.0"),
        (["no/such.yaml"], "no/such.yaml"),
    ],
)
def test_wrong_commands_are_refused_in_a_line(arguments, expected, tmp_path: Path, refused) -> None:
    assert expected in refused(compare_recipes.main, [*arguments, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_and_an_older_one_are_not_taken_for_the_result(
    write_recipe, tmp_path: Path, monkeypatch, refused
) -> None:
    """Neither a run that left no figures, nor figures of another recipe or of other data."""
    monkeypatch.setattr(subprocess, "run", lambda command, check: SimpleNamespace(returncode=0))
    recipe, output = str(write_recipe("act")), tmp_path / "out"
    contender = read_contender(recipe, [])
    folder = output / "act" / "seed-0"
    wanted = parse_recipe([recipe, "--seed", "0", "--train_steps", "16", "--output_dir", str(folder)]).to_dict()
    done = run_of([0.1]) | {"recipe": wanted, "train": {"training data": contender.data.fingerprint}}
    for run in (None, done | {"recipe": wanted | {"batch_size": 9}}, done | {"train": {"training data": "other"}}):
        if run is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").write_text(json.dumps(run))
        assert "was stopped; the same command goes on from there" in refused(
            compare_recipes.main, [recipe, "--output", str(output)]
        )
    (folder / "metrics.json").write_text(json.dumps(done))
    assert train_run(contender, 0, 16, folder) == done
    # Nor figures of other code of an operator of one's own.
    code = {"code of its operators": "mine SHA-256 1234"}
    monkeypatch.setattr("modeling_trm.experiments.recipes.operators_fact", lambda names: code)
    with pytest.raises(RuntimeError, match="was stopped"):
        train_run(contender, 0, 16, folder)
    (folder / "metrics.json").write_text(json.dumps(done | {"train": done["train"] | code}))
    assert train_run(contender, 0, 16, folder)["train"] == done["train"] | code


def test_a_failing_run_is_an_error(write_recipe, tmp_path: Path, monkeypatch, refused) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, check: SimpleNamespace(returncode=2))
    assert "with seed 5 ended with exit code 2" in refused(
        compare_recipes.main, [str(write_recipe("act")), "--seeds", "5", "--output", str(tmp_path / "out")]
    )
