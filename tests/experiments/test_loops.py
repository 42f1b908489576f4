"""The looped model against a naive float64 transcription, for every arm; what its measures and verdicts say."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modeling_trm.experiments.loop_report import markdown_tables, plot_loops, verdict
from modeling_trm.experiments.loop_run import change_beyond, measure
from modeling_trm.experiments.loop_training import Data, Settings, open_data, train, training_loss
from modeling_trm.experiments.loops import ARMS, LoopedModel, loop_config, reads_backwards
from modeling_trm.losses_trm import IGNORE_INDEX
from modeling_trm.utils.intervals import wilson_interval
from tests.oracles import operators as oracle

SIDE, VOCABULARY = 4, 6
TINY = {"hidden_size": 16, "mamba_d_state": 8, "mamba_head_dim": 8, "mlp_multiple_of": 8}
SETTINGS = Settings(
    train_loops=2, loops=5, steps=3, batch_size=4, test_puzzles=6, source="gen_easy", reveal=0.9, learning_rate=0.005,
)  # fmt: skip


def tiny_model(arm: str, dtype: torch.dtype = torch.float64) -> LoopedModel:
    torch.manual_seed(1)
    model = LoopedModel(loop_config(VOCABULARY, SIDE**2, **TINY), ARMS[arm]).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # nothing hides behind a zero or a one
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def tiny_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    input_ids = torch.randint(1, VOCABULARY, (3, SIDE**2), generator=generator)
    labels = torch.randint(2, VOCABULARY, (3, SIDE**2), generator=generator)
    return input_ids, labels.masked_fill(input_ids != 1, IGNORE_INDEX)


# --- the oracle -----------------------------------------------------------------------------------------------------


def naive_embedding(weights: dict[str, Tensor], input_ids: Tensor, D: int) -> Tensor:
    table, cells = weights["embed_places.weight"], []
    for cell in range(SIDE**2):
        r, c = divmod(cell, SIDE)
        box = (r // 2) * 2 + c // 2
        place = table[r] + table[SIDE + c] + table[2 * SIDE + box]
        cells.append(weights["embed_tokens.weight"][input_ids[:, cell]] + place)
    return torch.stack(cells, dim=1) * math.sqrt(D / 4)


def naive_turn(h: Tensor, n: int, theta: float) -> Tensor:
    """Channel pair (i, i + D/2) as a complex number, times exp(i n theta^(-2i/D)): one angle for all positions."""
    D = h.shape[-1]
    turned = torch.empty_like(h)
    for i in range(D // 2):
        angle = n * theta ** (-2 * i / D)
        a, b = h[..., i], h[..., i + D // 2]
        turned[..., i] = a * math.cos(angle) - b * math.sin(angle)
        turned[..., i + D // 2] = a * math.sin(angle) + b * math.cos(angle)
    return turned


def naive_loops(model: LoopedModel, input_ids: Tensor, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(z_n, logits after loop n)."""
    weights, config, arm = dict(model.named_parameters()), model.config, model.arm
    x = naive_embedding(weights, input_ids, config.hidden_size)
    z = torch.zeros_like(x) + model.H_init
    for n in range(1, number + 1):
        h = z + x if arm.input_injection or n == 1 else z
        for i, name in enumerate(config.block_operators):
            own = {k.removeprefix(f"stack.{i}."): v for k, v in weights.items() if k.startswith(f"stack.{i}.")}
            read = h if arm.stack == "post-norm" else oracle.rms_norm(h, 2, config.rms_norm_eps)
            read = naive_turn(read, n, config.rope_theta) if arm.loop_index else read
            order = list(reversed(range(SIDE**2))) if i == 2 else list(range(SIDE**2))  # mamba2, mlp, mamba2, mlp
            h = h + oracle.ORACLES[name](own, config, read[:, order])[:, order]
            h = oracle.rms_norm(h, 2, config.rms_norm_eps) if arm.stack == "post-norm" else h
        z = oracle.rms_norm(h, 2, config.rms_norm_eps) if arm.loop_norm else h
        yield z, oracle.rms_norm(z, 2, config.rms_norm_eps) @ weights["lm_head.weight"].T


@pytest.mark.parametrize("arm", ARMS)
def test_states_and_answers_of_every_loop_equal_the_transcription(arm: str) -> None:
    model, (input_ids, _) = tiny_model(arm), tiny_batch()
    ours = list(model.loops(input_ids, 3))
    for z, (expected, logits) in zip(ours, naive_loops(model, input_ids, 3), strict=True):
        torch.testing.assert_close(z, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model.answer(z), logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("arm", ARMS)
def test_loss_and_gradients_equal_the_transcription_and_reach_every_parameter(arm: str) -> None:
    model, (input_ids, labels) = tiny_model(arm), tiny_batch()
    answers = [logits for _, logits in naive_loops(model, input_ids, 3)]
    losses = []
    for logits in answers if ARMS[arm].supervise == "every" else answers[-1:]:
        for row, label in zip(logits, labels):  # each puzzle's blanks are averaged first, then the puzzles
            blanks = [int(cell) for cell in (label != IGNORE_INDEX).nonzero()]
            p = torch.stack([torch.exp(row[c])[label[c]] / torch.exp(row[c]).sum() for c in blanks])
            losses.append(-torch.log(p).mean())
    expected = torch.stack(losses).mean()
    actual, _ = training_loss(model, input_ids, labels, 3)
    names, parameters = zip(*model.named_parameters())
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=0)
    ours, theirs = (torch.autograd.grad(loss, parameters) for loss in (actual, expected))
    for name, a, b in zip(names, ours, theirs):
        assert a.abs().max() > 0, f"{name} gets no gradient"
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


# --- the switches ---------------------------------------------------------------------------------------------------


def test_the_arms_are_distinct_functions_or_losses() -> None:
    input_ids, labels = tiny_batch()
    losses = {}
    for name in ARMS:
        model = tiny_model(name)
        loss, state = training_loss(model, input_ids, labels, 3)
        if ARMS[name].supervise == "carried":
            loss, _ = training_loss(model, input_ids, labels, 3, state, 3)
        losses[name] = loss.item()
    assert len({round(loss, 6) for loss in losses.values()}) == len(ARMS) == len(set(ARMS.values()))


@pytest.mark.parametrize("arm", ARMS)
def test_loops_go_on_from_a_carried_state(arm: str) -> None:
    model, (input_ids, labels) = tiny_model(arm), tiny_batch()
    at_once = list(model.loops(input_ids, 5))
    _, state = training_loss(model, input_ids, labels, 3)
    assert not state.requires_grad and torch.equal(state, at_once[2])
    for z, expected in zip(model.loops(input_ids, 2, state, 3), at_once[3:], strict=True):
        torch.testing.assert_close(z, expected)


def test_carried_training_keeps_its_puzzles_and_state_for_four_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(SETTINGS, steps=6)
    seen: list[tuple[Tensor, Tensor | None, int]] = []
    real = training_loss

    def spy(model: Any, input_ids: Tensor, labels: Tensor, loops: int, state: Any, done: int) -> Any:
        seen.append((input_ids, state, done))
        return real(model, input_ids, labels, loops, state, done)

    monkeypatch.setattr("modeling_trm.experiments.loop_training.training_loss", spy)
    puzzles = open_data(settings).training
    config = loop_config(11, 81, **TINY)
    train(LoopedModel(config, ARMS["inject-norm-carried"]), 0, settings, puzzles, progress=False, description="")
    assert [done for *_, done in seen] == [0, 2, 4, 6, 0, 2]
    assert [state is None for _, state, _ in seen] == [True, False, False, False, True, False]
    assert all(torch.equal(seen[0][0], seen[i][0]) for i in (1, 2, 3)) and not torch.equal(seen[0][0], seen[4][0])


@pytest.mark.parametrize("arm", ["norm", "inject-norm", "inject-index-norm", "trm-inject"])
def test_a_normalised_state_has_rms_one_after_every_loop_and_without_it_grows(arm: str) -> None:
    input_ids, _ = tiny_batch()
    for z in tiny_model(arm).loops(input_ids, 6):
        torch.testing.assert_close(z.square().mean(-1), torch.ones(z.shape[:2]).double(), rtol=1e-3, atol=0)
    *_, grown = tiny_model("inject").loops(input_ids, 6)
    assert grown.square().mean().sqrt() > 3


def test_the_second_mamba_reads_backwards_so_that_every_cell_sees_the_whole_puzzle_in_a_loop() -> None:
    assert reads_backwards(["mamba2", "mlp", "mamba2", "mlp", "mamba2", "mamba2"]) == [0, 0, 1, 0, 0, 1]
    model, (input_ids, _) = tiny_model("inject"), tiny_batch()
    for cell in (0, SIDE**2 - 1):
        other = input_ids.clone()
        other[:, cell] = 1 + other[:, cell] % (VOCABULARY - 1)
        (z,), (changed,) = model.loops(input_ids, 1), model.loops(other, 1)
        assert (z != changed).any(-1).all()


def test_the_only_head_starts_with_a_long_memory_and_the_answer_head_as_the_embedding() -> None:
    model = LoopedModel(loop_config(VOCABULARY, SIDE**2), ARMS["bare"])
    for operator in (model.stack[0], model.stack[2]):
        memory = 1 / (operator.A_log.exp() * torch.nn.functional.softplus(operator.dt_bias))
        torch.testing.assert_close(memory, torch.tensor([50.0]))
    assert torch.equal(model.lm_head.weight, model.embed_tokens.weight)


def test_a_loop_depends_on_nothing_after_it() -> None:
    """The first loops of 64 are those of 4: the index generalises, no table ends at the trained depth."""
    model, (input_ids, _) = tiny_model("inject-index-norm"), tiny_batch()
    for short, long in zip(model.loops(input_ids, 4), model.loops(input_ids, 64)):
        assert torch.equal(short, long)


# --- training and measuring -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data(SETTINGS)


def test_settings_name_what_they_refuse() -> None:
    for change, message in (
        ({"steps": 0}, r"steps=0 is not allowed; allowed: 1 or more"),
        ({"loops": 2}, r"loops=2 is not allowed; allowed: more than train_loops=2"),
        ({"learning_rate": 0.0}, r"learning_rate=0.0 is not allowed; allowed: above 0 and below 1"),
        ({"reveal": 1.0}, r"reveal=1.0 is not allowed; allowed: from 0 to below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(SETTINGS, **change)
    assert dataclasses.replace(SETTINGS, train_loops=5, loops=16).measured_loops() == [1, 2, 3, 4, 5, 6, 8, 10, 12, 16]


def test_test_puzzles_are_held_out_blank_somewhere_and_the_same_every_time(data: Data) -> None:
    again = open_data(dataclasses.replace(SETTINGS, test_puzzles=4))
    assert torch.equal(again.input_ids, data.input_ids[:4]) and torch.equal(again.labels, data.labels[:4])
    scored = data.labels != IGNORE_INDEX
    assert scored.any(1).all() and torch.equal(scored, data.input_ids == 1)
    whole = torch.where(scored, data.labels, data.input_ids).numpy().astype(np.uint8)
    trained_on = {row.tobytes() for row in data.training.labels}
    assert not any(row.tobytes() in trained_on for row in whole)
    assert set(data.training.sources.tolist()) == {"gen_easy"}
    with pytest.raises(ValueError, match="source='hard' is not in the sample; allowed: gen_easy, gen_unbiased"):
        open_data(dataclasses.replace(SETTINGS, source="hard"))
    with pytest.raises(ValueError, match="test_puzzles=5000 is not allowed; allowed: at most 1000"):
        open_data(dataclasses.replace(SETTINGS, test_puzzles=5000))


def sudoku_model(arm: str) -> LoopedModel:
    torch.manual_seed(3)
    return LoopedModel(loop_config(11, 81, **TINY), ARMS[arm])


def test_training_moves_every_parameter_and_is_a_function_of_the_seed(data: Data) -> None:
    losses = []
    for seed in (0, 0, 1):
        model = sudoku_model("inject-index-norm-every")
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses.append(train(model, seed, SETTINGS, data.training, progress=False, description=""))
        assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert losses[0] == losses[1] != losses[2] and len(losses[0]) == SETTINGS.steps


def test_training_stops_where_the_loss_is_no_number(data: Data) -> None:
    model = sudoku_model("bare")
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    assert train(model, 0, SETTINGS, data.training, progress=False, description="") == []


def test_measures_equal_a_naive_count(data: Data) -> None:
    model = sudoku_model("inject")
    rows, scores = measure(model, dataclasses.replace(SETTINGS, batch_size=4), data)
    assert [row["loop"] for row in rows] == [1, 2, 3, 4, 5]
    row = rows[3]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=False):
        states = list(model.loops(data.input_ids, 4))
        logits, before = (model.answer(z).double().numpy() for z in (states[3], states[2]))
    shares, changed, entropies, exact = [], [], [], 0
    for i in range(len(data.labels)):
        blanks = [c for c in range(81) if data.input_ids[i, c] == 1]
        right = [int(np.argmax(logits[i, c])) == int(data.labels[i, c]) for c in blanks]
        shares.append(np.mean(right))
        exact += all(right)
        changed.append(np.mean([np.argmax(logits[i, c]) != np.argmax(before[i, c]) for c in blanks]))
        p = [np.exp(logits[i, c]) / np.exp(logits[i, c]).sum() for c in blanks]
        entropies.append(np.mean([-(q * np.log(q)).sum() for q in p]))
    # Up to a bf16 forward, where the machine trains in it.
    assert row["cell_accuracy"] == pytest.approx(np.mean(shares), abs=0.05)
    assert row["cell_accuracy"] == pytest.approx(scores[4].mean()) and len(scores[4]) == SETTINGS.test_puzzles
    assert row["entropy"] == pytest.approx(np.mean(entropies), abs=0.02)
    assert row["changed"] == pytest.approx(np.mean(changed), abs=0.05)
    assert row["exact_accuracy"] == exact / 6 and row["exact_ci95"] == wilson_interval(exact, 6)
    z, z_before = (state.double() for state in (states[3], states[2]))
    assert row["rms"] == pytest.approx(z.square().mean((1, 2)).sqrt().mean().item(), rel=0.02)
    distance = (z - z_before).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)
    assert row["distance"] == pytest.approx(distance.mean().item(), rel=0.05)
    singular = torch.linalg.svdvals(z[0] / z[0].norm())
    assert 1 < row["effective_rank"] < len(singular) and row["non_finite"] == 0
    low, high = row["cell_ci95"]
    assert low <= row["cell_accuracy"] <= high


def test_the_change_beyond_the_trained_depth_is_that_of_the_same_puzzles() -> None:
    trained = np.linspace(0, 0.9, 40)
    scores = {1: trained * 0, 2: trained, 5: trained + np.tile([0.05, 0.15], 20)}
    beyond = change_beyond(scores, SETTINGS)
    assert (beyond["from"], beyond["to"], beyond["change"]) == (2, 5, pytest.approx(0.1))
    low, high = beyond["ci95"]
    assert 0.08 < low < 0.1 < high < 0.12  # unpaired, the puzzles' own spread would make it five times as wide


def test_a_state_that_is_no_number_is_counted_and_leaves_the_rest_readable(data: Data) -> None:
    model = sudoku_model("bare")
    with torch.no_grad():
        model.stack[3].down_proj.weight.fill_(1e38)
    rows, _ = measure(model, SETTINGS, data)
    assert rows[-1]["non_finite"] == 1 and rows[-1]["entropy"] is None and rows[-1]["rms"] is None


# --- the report -----------------------------------------------------------------------------------------------------


def result(arm: str = "bare", trained: float = 0.5, final: float = 0.5, **changes: Any) -> dict[str, Any]:
    settings = dataclasses.asdict(SETTINGS)
    accuracies = np.linspace(trained, final, 4)
    rows = [
        {"loop": n, "cell_accuracy": a, "cell_ci95": [a - 0.02, a + 0.02], "exact_accuracy": 0.0, "changed": 0.1,
         "exact_ci95": [0.0, 0.1], "entropy": 1.0 + n, "rms": 1.0, "effective_rank": 9.0, "cosine": 0.5,
         "distance": 0.2, "non_finite": 0.0}
        for n, a in zip((2, 3, 4, 5), accuracies)
    ]  # fmt: skip
    change = final - trained
    beyond = {"from": 2, "to": 5, "change": change, "ci95": [change - 0.02, change + 0.02]}
    whole = {"arm": arm, "seed": 0, "settings": settings, "steps_trained": 3, "loops": rows, "beyond": beyond}
    return whole | changes


def test_verdicts() -> None:
    assert verdict(result()) == "stable"
    assert verdict(result(final=0.6)) == "improves"
    assert verdict(result(final=0.4)) == "decline"
    assert verdict(result(final=0.31)) == "decline"  # 0.19 of 0.389 learnt
    assert verdict(result(final=0.30)) == "collapse"
    assert verdict(result(trained=0.12, final=0.02)) == "nothing learnt"
    assert verdict(result(steps_trained=2)) == "diverged"
    broken = result(final=0.6)
    broken["loops"][-1] |= {"non_finite": 0.1, "entropy": None}
    assert verdict(broken) == "diverged"


@pytest.mark.usefixtures("whole_pictures")
def test_tables_and_plot(tmp_path: Path) -> None:
    results = [result(arm, final=0.3, verdict="collapse") for arm in ARMS]
    results[0]["loops"][-1] |= {"entropy": None, "rms": None}
    text = markdown_tables(results)
    assert text.count("| bare | 0 |") == 2
    assert "| 50.0 % (48.0 to 52.0) | 30.0 % (28.0 to 32.0) | -20.0 % (-22.0 to -18.0) | 0.0 % (0.0 to 10.0) |" in text
    assert "| 3, - | 9, 9 | 1, - | 0.2, 0.2 | 10.0 % |" in text
    assert plot_loops(results, tmp_path / "loops.png").stat().st_size > 20_000
