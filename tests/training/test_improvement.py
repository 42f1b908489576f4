"""Training towards a path, with weights of the steps, a growing depth and random starts, slot by slot."""

import json
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling_trm.losses_trm import IGNORE_INDEX, softmax_cross_entropy
from modeling_trm.randomness_trm import random_floats
from modeling_trm.training.improvement import ImprovementPath
from modeling_trm.training.schedule import step_weights
from modeling_trm.training.stopping import Stopping
from modeling_trm.utils.cli import INTERRUPTED
from scripts import train
from tests.oracles import losses as oracle
from tests.training.frozen import SEED, B, frozen_step

S = 4
DIS = {"halt_max_steps": S, "num_step_embeddings": S, "answer_feedback": True}


def seen_targets(step, monkeypatch, steps):
    """The targets of every step of the run, with what the model read: each [steps, B, L]."""
    targets, reads = [], []
    loss, embed = step.token_loss, step.model.model.embed_tokens
    monkeypatch.setattr(
        step, "token_loss", lambda logits, labels, *rest: targets.append(labels) or loss(logits, labels, *rest)
    )
    handle = embed.register_forward_pre_hook(lambda module, ids: reads.append(ids[0]))
    for number in range(1, steps + 1):
        step(number)
    handle.remove()
    step.buckets[0].feed.close()
    return torch.stack(targets), torch.stack(reads)


@pytest.mark.parametrize("loss_on", ["all", "blanks"])
def test_each_step_is_asked_for_its_frame_and_reads_its_last_answer(loss_on, monkeypatch):
    config = DIS | ({"blank_token_id": 1} if loss_on == "blanks" else {})
    step = frozen_step(config, objective="dis", loss_on=loss_on, halt_loss_weight=0.0)
    targets, reads = seen_targets(step, monkeypatch, 2 * S)
    for first in (0, S):  # two puzzles of each slot, one after the other
        puzzles = step.buckets[0].feed.stream.rows(first * B + np.arange(B), reveal=0.95)
        inputs, labels = (torch.from_numpy(puzzles[name]).long() for name in ("inputs", "labels"))
        scored = labels.masked_fill(inputs != 1, IGNORE_INDEX) if loss_on == "blanks" else labels
        assert torch.equal(targets[first + S - 1], scored) and torch.equal(reads[first], inputs)
        for slot in range(B):
            # Any order of filling in: the one that the run drew is read off its own frames, which must then all agree.
            filled = torch.stack([targets[first + s, slot] != inputs[slot] for s in range(S)]).float()
            order = S - filled.sum(0)
            frames = oracle.improvement_path(inputs[slot].tolist(), scored[slot].tolist(), order.tolist(), S)
            for s in range(S):
                wanted = sum(a != b for a, b in zip(frames[s + 1], inputs[slot].tolist()) if a != IGNORE_INDEX)
                assert (
                    (targets[first + s, slot] != inputs[slot]) & (targets[first + s, slot] != IGNORE_INDEX)
                ).sum() == wanted
        given = inputs != 1
        for s in range(1, S):
            assert not torch.equal(reads[first + s], inputs)
            if loss_on == "blanks":
                assert torch.equal(reads[first + s][given], inputs[given]), "given cells are protected"
    assert step.buckets[0].slots.released.all()


def test_the_order_is_one_for_a_puzzle_and_new_for_the_next():
    path = ImprovementPath(SEED, np.arange(B), B, S)
    inputs, labels = torch.ones(B, 40, dtype=torch.long), torch.full((B, 40), 7)
    frames = torch.stack([path.targets(step, slice(None), inputs, labels) for step in range(1, 2 * S + 1)])
    filled = frames == 7
    assert (filled[1:S] >= filled[: S - 1]).all() and filled[S - 1].all()
    assert filled[:S].sum(-1).tolist() == [[10 * (s + 1)] * B for s in range(S)]
    assert not torch.equal(filled[0, 0], filled[0, 1]) and not torch.equal(filled[0], filled[S])
    order = random_floats(SEED, np.arange(B), 51, 40).tolist()  # of the first puzzle of each slot
    for slot in range(B):
        path_of = oracle.improvement_path([1] * 40, [7] * 40, order[slot], S)
        assert frames[:S, slot].tolist() == path_of[1:]
    half = ImprovementPath(SEED, np.arange(3, B), B, S)
    assert torch.equal(half.targets(2, slice(1, None), inputs[4:], labels[4:]), frames[1, 4:])


def test_slots_that_begin_in_the_middle_of_a_run_begin_their_paths():
    """After step S + 2, say, where slots that had come with the run would be in the middle of theirs."""
    path, begun = ImprovementPath(SEED, np.arange(B), B, S), S + 2
    inputs, labels = torch.ones(B, 40, dtype=torch.long), torch.full((B, 40), 7)
    filled = [path.targets(begun + s, slice(None), inputs, labels, begun) == 7 for s in range(1, 2 * S + 1)]
    assert [frame.sum(-1).tolist() for frame in filled] == [[10 * (s + 1)] * B for s in range(S)] * 2
    of_the_run = ImprovementPath(SEED, np.arange(B), B, S)
    first = [of_the_run.targets(1 + birth * S, slice(None), inputs, labels) == 7 for birth in range(2)]
    assert not any(torch.equal(filled[0], frame) for frame in first)


def test_slots_are_never_released_before_the_path_ends():
    step = frozen_step(DIS, objective="dis", halt_exploration=0.0)
    torch.nn.init.constant_(step.model.q_head.bias, 50.0)  # would halt at once under ACT
    assert [int(step(number)["released"]) for number in range(1, 2 * S + 1)] == [0, 0, 0, B] * 2
    step.buckets[0].feed.close()


def test_slots_that_are_not_in_step_keep_their_own_answers_and_steps():
    """ACT on a model that reads its answers: refilled slots start anew, the others go on."""
    step = frozen_step({"answer_feedback": True, "num_step_embeddings": 3}, halt_exploration=0.0)
    model, naive = step.model, [None] * B
    for number in range(1, 9):
        step(number)
        for slot in range(B):
            inputs = step.buckets[0].slots.inputs[slot : slot + 1]
            with torch.no_grad():
                out = model(inputs, state=naive[slot])
            assert torch.equal(step.buckets[0].slots.state.answers[slot], out.state.answers[0])
            assert step.buckets[0].slots.state.steps[slot] == step.buckets[0].slots.steps[slot] == out.state.steps[0]
            naive[slot] = None if step.buckets[0].slots.released[slot] else out.state
    assert len(set(step.buckets[0].slots.steps.tolist())) > 1
    step.buckets[0].feed.close()


@pytest.mark.parametrize("kind", ["rising", "falling"])
def test_step_weights_scale_each_slots_loss(kind):
    step = frozen_step(step_weights=kind, token_loss="softmax", halt_loss_weight=0.0, halt_exploration=1.0)
    for number in range(1, 4):
        step(number)
    slots, weights = step.buckets[0].slots, step_weights(kind, 5)
    slots.refill(*step.buckets[0].feed(4), step.buckets[0].perturbation.start(4))
    assert len(set(slots.steps.tolist())) > 1  # the slots are at different steps
    step.model.zero_grad()
    step._forward_backward(4)
    actual = [p.grad.to_dense().clone() for p in step.core]
    step.model.zero_grad()
    out = step.model(slots.inputs, puzzle_ids=slots.puzzle_ids, state=slots.state)
    each = softmax_cross_entropy(out.logits, slots.labels)
    sum(weights[taken] * loss for taken, loss in zip(slots.steps.tolist(), each)).div(B).backward()
    for parameter, gradient in zip(step.core, actual):
        expected = torch.zeros_like(gradient) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)
    step.buckets[0].feed.close()


def test_the_depth_of_a_step_is_the_curriculums(monkeypatch):
    step = frozen_step({"H_cycles": 2, "L_cycles": 3}, depth_curriculum="{0.3: [1, 1], 0.6: [1, 2]}", train_steps=10)
    depths, forward = [], step.model.forward
    monkeypatch.setattr(
        step, "wrapped", lambda *args, **kwargs: depths.append(kwargs["cycles"]) or forward(*args, **kwargs)
    )
    for number in range(1, 11):
        step(number)
    step.buckets[0].feed.close()
    assert depths == [(1, 1)] * 3 + [(1, 2)] * 3 + [None] * 4


def _terminate(now: bool) -> None:
    """SIGTERM to this process, as a cluster sends it."""
    if now:
        signal.raise_signal(signal.SIGTERM)


def test_a_run_with_everything_resumes_and_says_what_it_is(write_recipe, tmp_path, monkeypatch):
    everything = {
        "objective": "dis", "loss_on": "blanks", "halt_loss_weight": 0.0, "step_weights": "rising",
        "random_start": True, "depth_curriculum": {0.5: [1, 1]}, "block_operators": ["mlp_t", "mlp"],
    }  # fmt: skip
    assert train.main([str(write_recipe("whole", **everything))]) == 0
    stopped = str(write_recipe("stopped", **everything))
    with monkeypatch.context() as patch:
        asked = Stopping.asked
        patch.setattr(Stopping, "asked", lambda self, step: _terminate(step == 5) or asked(self, step))
        assert train.main([stopped]) == INTERRUPTED
    assert (tmp_path / "stopped" / "checkpoints" / "step-00000005").exists()
    assert train.main([stopped]) == 0
    whole, resumed = (
        load_file(tmp_path / run / "weights" / "ema" / "model.safetensors") for run in ("whole", "stopped")
    )
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    config = json.loads((tmp_path / "whole" / "model" / "config.json").read_text())
    assert (config["answer_feedback"], config["num_step_embeddings"], config["blank_token_id"]) == (True, S, 1)
    assert (config["H_cycles"], config["L_cycles"]) == (2, 2)
    records = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    flops = {record["step"]: record["flops"] for record in records if "loss" in record}
    shallow, deep = flops[2] / 2, (flops[16] - flops[12]) / 4
    assert flops[16] == 8 * (shallow + deep) and deep > 1.5 * shallow
