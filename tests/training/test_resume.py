"""A run that is killed with SIGKILL, at whatever moment, and started again equals the run that was left alone.

No test here asks how late it is: a run is killed or stopped at a step of its own, however fast or busy the machine.
"""

import itertools
import json
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.exc import TorchDynamoException

from modeling_trm import OPERATORS
from modeling_trm.cards.sections import cost
from modeling_trm.commands import trm
from modeling_trm.training import run_folder, stopping, trainer
from modeling_trm.training.arguments import RunArguments
from modeling_trm.training.checkpointing import load_progress, newest_checkpoint
from modeling_trm.training.resuming import check_same_run, operators_fact
from modeling_trm.training.schedule import lr_factor
from modeling_trm.training.start import OF_A_RUN
from modeling_trm.training.step import TrainingStep
from scripts import train
from tests.forked import run_forked
from tests.robustness.test_full_disks import full_disk

ROOT = str(Path(train.__file__).parents[1])
# The run kills itself: when so many files of checkpoints are written, or when its log names a step; then the next one,
# forked from a process that has imported what it needs. What lies in the checkpoints' folder is printed after each.
KILLED = """
import json, os, signal, sys
sys.path.insert(0, {root!r})
from modeling_trm.training import checkpointing, run_folder
from scripts import train
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
save_file, saved = checkpointing.save_file, []
def save(tensors, path):  # slots, model, average, optimisers: four files to a checkpoint
    save_file(tensors, path)
    saved.append(path)
    if len(saved) == at_file:
        kill()
checkpointing.save_file = save
write = run_folder.RunLog.write
def log(self, record):
    write(self, record)
    if record["step"] == at_step and "loss" in record:
        kill()
run_folder.RunLog.write = log
for at_file, at_step in {moments!r}:
    process = os.fork()
    if not process:
        os.dup2(2, 1)
        train.main([{recipe!r}])
        sys.exit()
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    print(json.dumps(os.listdir({checkpoints!r})), flush=True)
"""


def kill_at(recipe: Path, checkpoints: Path, *moments: tuple[int, int]) -> list[list[str]]:
    """Run the recipe in processes of their own, each killed at (file, step); what is in `checkpoints` after each."""
    program = KILLED.format(root=ROOT, recipe=str(recipe), checkpoints=str(checkpoints), moments=moments)
    done = run_forked("-c", program)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def steps_logged(output: Path) -> list[dict]:
    lines = (output / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "loss" in record]


@pytest.mark.slow
def test_resume_after_sigkill_is_bit_exact(write_recipe, tmp_path):
    assert train.main([str(write_recipe("whole"))]) == 0

    recipe, output = write_recipe("killed"), tmp_path / "killed"
    # In the middle of the second checkpoint, and between two checkpoints.
    found = kill_at(recipe, output / "checkpoints", (6, 0), (0, 8))
    assert [any(name.endswith(".trm-part") for name in names) for names in found] == [True, False]
    assert steps_logged(output)[-1]["step"] == 8
    assert train.main([str(recipe)]) == 0

    for kind in ("last", "ema", "best"):
        whole, killed = (
            load_file(tmp_path / run / "weights" / kind / "model.safetensors") for run in ("whole", "killed")
        )
        assert whole.keys() == killed.keys()
        for name, value in whole.items():
            assert torch.equal(killed[name], value), (kind, name)
    a, b = steps_logged(tmp_path / "whole"), steps_logged(output)
    for name in ("step", "puzzles", "loss", "token_loss", "halt_loss", "cell_accuracy", "mean_steps"):
        assert [r[name] for r in b] == [r[name] for r in a]


def test_a_damaged_checkpoint_is_passed_over(write_recipe, tmp_path, caplog):
    recipe, output = write_recipe("run"), tmp_path / "run"
    assert train.main([str(recipe)]) == 0
    newest = output / "checkpoints" / "step-00000016"
    content = (newest / "model.safetensors").read_bytes()
    (newest / "model.safetensors").write_bytes(content[: len(content) // 2])
    before = steps_logged(output)
    assert train.main([str(recipe)]) == 0  # from step 15
    assert "model.safetensors has" in caplog.text
    assert [r["loss"] for r in steps_logged(output)] == [r["loss"] for r in before]


def test_a_flipped_bit_is_seen(write_recipe, tmp_path, caplog):
    recipe, output = write_recipe("run", train_steps=6), tmp_path / "run"
    assert train.main([str(recipe)]) == 0
    damaged = output / "checkpoints" / "step-00000006" / "optimisers.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert newest_checkpoint(output / "checkpoints").name == "step-00000003"
    assert "optimisers.safetensors is damaged: its SHA-256" in caplog.text


def test_a_checkpoint_of_an_earlier_version_is_not_taken_for_none(write_recipe, tmp_path, refused):
    (tmp_path / "run" / "checkpoints" / "step-00000003").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step-00000003" / "optimizer.bin").touch()
    assert "step-00000003 was written by an earlier version" in refused(train.main, [str(write_recipe("run"))])


def test_a_run_goes_on_from_weights_at_a_step_and_resumes_bit_for_bit(write_recipe, tmp_path, capsys, monkeypatch):
    """Rows, reveal, depth and rate are those of the step; the curricula's numbers are read at each step of the log."""
    fields = {"log_every": 1, "depth_curriculum": {0.5: [1, 1]}, "reveal_start": 1.0, "reveal_until": 0.9}
    assert train.main([str(write_recipe("first", **fields))]) == 0
    weights = str(tmp_path / "first" / "model")
    recipe = str(write_recipe("on", **fields, start_from=weights, start_step=10))
    assert train.main([recipe]) == 0
    assert "begun after step 10: the weights are given, optimisers and slots are new" in capsys.readouterr().out
    first, on = (steps_logged(tmp_path / run) for run in ("first", "on"))
    assert [record["step"] for record in on] == list(range(11, 17))
    factors = [lr_factor(step, warmup_steps=2, total_steps=16, kind="cosine", start_step=10) for step in range(11, 17)]
    assert [record["lr"] for record in on] == [0.001 * factor for factor in factors]
    assert [b["flops"] for b in on[1:]] == [a["flops"] - first[10]["flops"] + on[0]["flops"] for a in first[11:]]
    metrics = json.loads((tmp_path / "on" / "metrics.json").read_text())
    assert metrics["steps"] == 16 and metrics["train"]["begun"].startswith("after step 10 with the weights of ")
    before = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert metrics["before"] == [{name: before[name] for name in OF_A_RUN}]
    assert metrics["trained_on"] == before["trained_on"]  # the same puzzles
    assert (
        f"| before | `{before['command']}`: {cost(before)} |" in (tmp_path / "on" / "model" / "README.md").read_text()
    )

    parts = str(write_recipe("parts", **fields, start_from=weights, start_step=10))
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Stopping, "asked", lambda self, step: step == 13)
        assert train.main([parts]) == 0
    assert train.main([parts]) == 0
    assert [{**r, "seconds": 0} for r in steps_logged(tmp_path / "parts")] == [{**r, "seconds": 0} for r in on]
    whole, killed = (load_file(tmp_path / run / "weights" / "ema" / "model.safetensors") for run in ("on", "parts"))
    assert all(torch.equal(killed[name], value) for name, value in whole.items())


def test_another_recipe_does_not_resume(write_recipe, refused):
    recipe = str(write_recipe("run", train_steps=3))
    assert train.main([recipe]) == 0
    assert (
        "learning_rate=0.001" in (error := refused(train.main, [recipe, "--learning_rate", "0.1"])) and "0.1" in error
    )
    # A curriculum on the command line and in a file are the same one.
    grows, typed = str(write_recipe("grows", train_steps=2, depth_curriculum={0.5: [1, 1]})), "{0.5: [1, 1]}"
    assert train.main([grows]) == train.main([grows, "--depth_curriculum", typed]) == 0
    assert "depth_curriculum=" in refused(train.main, [grows, "--depth_curriculum", "{0.25: [1, 1]}"])
    # What does not touch the learning may change.
    assert train.main([recipe, "--log_every", "2", "--mlp_t_backend", "torch"]) == 0


def test_other_code_of_an_operator_does_not_resume(write_recipe, tmp_path, refused, monkeypatch):
    for name in list(OPERATORS):
        monkeypatch.setitem(OPERATORS, name, OPERATORS[name])  # as before, afterwards
    recipe, code = str(write_recipe("run", train_steps=2, block_operators=["own", "mlp"])), tmp_path / "resume_ops.py"
    text = (
        "from modeling_trm.mlp_trm import Mlp\nfrom modeling_trm.operators_trm import OPERATORS\n\n\n"
        "class Own(Mlp):\n    pass\n\n\nOPERATORS['own'] = Own\n"
    )
    code.write_text(text)
    assert train.main([recipe, "--import", str(code)]) == train.main([recipe, "--import", str(code)]) == 0
    facts = json.loads((tmp_path / "run" / "metrics.json").read_text())["train"]
    assert operators_fact(["own", "mlp"]).items() <= facts.items() and "own SHA-256" in facts["code of its operators"]
    # A copy of it, as a checkpoint has it, is the same.
    assert train.main([recipe, "--import", str(tmp_path / "run" / "model" / "resume_ops_trm.py")]) == 0
    del OPERATORS["own"], sys.modules["modeling_trm.resume_ops_trm"]  # as in another process
    code.write_text(text.replace("pass", "mixes_fields = False"))
    assert (
        "was trained with operator 'own' as " in (error := refused(train.main, [recipe, "--import", str(code)]))
        and f"of {code}: restore" in error
    )
    # A checkpoint of an earlier version does not say.
    progress = load_progress(newest_checkpoint(tmp_path / "run" / "checkpoints"))
    ours = progress | {"operators": {"own": {"file": "a.py", "sha256": "other"}}}
    check_same_run(tmp_path, {name: value for name, value in progress.items() if name != "operators"}, ours)
    del OPERATORS["own"], sys.modules["modeling_trm.resume_ops_trm"]


@pytest.mark.parametrize("processes", [1, 2])
def test_all_processes_stop_where_one_is_asked_to(processes):
    """Two processes add their answers up; here the other one's is in the sum of this one's."""
    accelerator = SimpleNamespace(
        num_processes=processes, device="cpu", reduce=lambda flag, how: flag + (processes - 1)
    )
    calm = stopping.Stopping(accelerator, RunArguments(early_stopping_patience=2, eval_every=10), started=0)
    assert calm.stands_still(20, {"step": 10}) == (processes == 2) and calm.stands_still(30, {"step": 10})


def test_a_run_ends_where_validation_no_longer_improves(write_recipe, tmp_path, capsys, monkeypatch):
    """Validation of steps 2, 4, 6, ...: the second is the best, and two later ones are not better."""
    accuracies = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    evaluate = trainer.evaluate_puzzles

    def scripted(*arguments, **options):
        metrics = evaluate(*arguments, **options)
        return {**metrics, "exact_accuracy": next(accuracies), "cell_accuracy": 0.5}

    monkeypatch.setattr(trainer, "evaluate_puzzles", scripted)
    recipe = str(write_recipe("run", eval_every=2, log_every=3, checkpoint_every=100, early_stopping_patience=2))
    assert train.main([recipe]) == 0
    assert "ended early: nothing better since step 4, of 16" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["steps"], metrics["train"]["published step"]) == (8, 4)
    assert metrics["train"]["ended early"].startswith("of 16 planned steps")
    assert [record["step"] for record in steps_logged(tmp_path / "run")] == [3, 6, 8]  # nothing is left unsaid
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000008"]
    weights = load_file(tmp_path / "run" / "weights" / "last" / "model.safetensors")

    assert train.main([recipe]) == 0  # a run that has ended stays as it is
    again = load_file(tmp_path / "run" / "weights" / "last" / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    assert next(accuracies) == 0.9


def test_a_process_without_the_best_ends_too():
    """The main process alone evaluates; the others are told."""
    run = SimpleNamespace(
        train_steps=16,
        progress={"best": None},
        step=SimpleNamespace(train_steps=16),
        stopping=SimpleNamespace(stands_still=lambda step, best: True),
        accelerator=SimpleNamespace(print=lambda text: None),
    )
    trainer.Trainer._end_where_it_stands_still(run, 8)
    assert (run.progress["train_steps"], run.progress["ended_early"], run.step.train_steps) == (8, 16, 8)


def test_patience_needs_something_to_wait_for(write_recipe, refused):
    assert "early_stopping_patience=2 needs validation puzzles" in refused(
        train.main, [str(write_recipe("run", validation_puzzles=None, early_stopping_patience=2))]
    )


def test_stop_after_minutes_leaves_a_checkpoint_and_goes_on(write_recipe, tmp_path, capsys, monkeypatch):
    recipe, output = str(write_recipe("run")), tmp_path / "run"
    seconds = itertools.count(step=3)  # a clock that goes on by 3 s at every look
    with monkeypatch.context() as patch:
        clock = SimpleNamespace(perf_counter=lambda: next(seconds))
        patch.setattr(trainer, "time", clock)
        patch.setattr(stopping, "time", clock)
        assert train.main([recipe, "--stop_after_minutes", "0.5"]) == 0
    assert "the same command goes on" in capsys.readouterr().out
    # Two looks (6 s) before the loop, then two a step: after step 5 it is 36 s.
    assert max(path.name for path in (output / "checkpoints").iterdir()) == "step-00000005"
    assert not (output / "model").exists()
    assert train.main([recipe]) == 0
    assert (output / "model" / "README.md").exists()


def test_a_signal_that_ends_the_compiler_too_is_a_stop_and_no_error(write_recipe, monkeypatch, capsys):
    """In a terminal Ctrl-C goes to all processes of a command."""
    recipe, step_once = str(write_recipe("stopped", train_steps=4)), TrainingStep.__call__

    def interrupted(signalled):
        def step(self, number):
            if number < 3:
                return step_once(self, number)
            if signalled:
                signal.raise_signal(signal.SIGINT)
            raise TorchDynamoException("the compiler was killed")

        return step

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "__call__", interrupted(signalled=True))
        assert trm.main(["train", recipe]) == trm.INTERRUPTED
        assert capsys.readouterr().err.splitlines()[-1].startswith("stopped: what trm train has written is whole")
        patch.setattr(TrainingStep, "__call__", interrupted(signalled=False))
        with pytest.raises(TorchDynamoException, match="the compiler was killed"):
            trm.main(["train", recipe])
    assert trm.main(["train", recipe]) == 0


def test_accuracies_on_other_validation_puzzles_are_not_compared(write_recipe, tmp_path, capsys, monkeypatch):
    """The best weights of before were the best on other puzzles: the choice begins anew, and says so."""
    recipe, output = str(write_recipe("run", eval_every=4)), tmp_path / "run"
    seconds = itertools.count(step=3)
    with monkeypatch.context() as patch:
        clock = SimpleNamespace(perf_counter=lambda: next(seconds))
        patch.setattr(trainer, "time", clock)
        patch.setattr(stopping, "time", clock)
        assert train.main([recipe, "--stop_after_minutes", "0.5"]) == 0
    progress = json.loads((output / "checkpoints" / "step-00000005" / "progress.json").read_text())
    assert progress["best"]["step"] == 4
    assert train.main([recipe, "--validation_puzzles", "3"]) == 0
    assert "the best weights are chosen anew from here" in capsys.readouterr().out
    assert json.loads((output / "metrics.json").read_text())["train"]["published step"] > 5


def test_a_run_whose_checkpoints_are_all_damaged_or_gone_is_not_begun_anew(write_recipe, tmp_path, refused):
    recipe, output = str(write_recipe("run")), tmp_path / "run"
    assert train.main([recipe]) == 0
    log = (output / "log.jsonl").read_text()
    for checkpoint in (output / "checkpoints").iterdir():
        (checkpoint / "progress.json").write_text("{}")
    assert "no whole checkpoint to go on from (progress.json has 2 bytes" in refused(train.main, [recipe])
    shutil.rmtree(output / "checkpoints")
    assert "but no checkpoints to go on from: a finished run" in refused(train.main, [recipe])
    assert (output / "log.jsonl").read_text() == log


def test_a_tracker_that_is_not_there_is_named(write_recipe, refused, monkeypatch):
    monkeypatch.setattr(run_folder, "get_available_trackers", list)
    assert "report_to: wandb is not installed here" in refused(
        train.main, [str(write_recipe("run", report_to=["wandb"]))]
    )
    assert run_folder.choose_trackers(["tensorboard"]) == []  # which is the default, and no reason for a warning
    monkeypatch.setattr(run_folder, "get_available_trackers", lambda: ["tensorboard"])
    assert run_folder.choose_trackers(["tensorboard"]) == ["tensorboard"]
    assert run_folder.choose_trackers(["none"]) == []
    monkeypatch.setattr(run_folder, "get_available_trackers", lambda: ["wandb", "tensorboard"])
    assert run_folder.choose_trackers(["all"]) == ["tensorboard", "wandb"]


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(write_recipe, tmp_path, capsys):
    # No evaluation before the end: the first large file after the stop is a checkpoint, however fast the machine.
    recipe, output = str(write_recipe("run", train_steps=8)), tmp_path / "run"
    assert train.main([recipe, "--stop_after_minutes", "0"]) == 0
    checkpoints = output / "checkpoints"
    before = sorted(path.name for path in checkpoints.iterdir())
    with full_disk(50_000), pytest.raises(SystemExit, match="2"):  # the next large file fails
        train.main([recipe])
    error = capsys.readouterr().err
    assert "bytes to write" in error and "earlier checkpoints are intact" in error
    assert sorted(path.name for path in checkpoints.iterdir()) == before
    assert train.main([recipe]) == 0  # nothing is lost
