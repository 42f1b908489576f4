"""A whole supervision step, three of them carried, against its transcription from the state dict; and its contract."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling_trm import RecursionState, TRMForGridReasoning, TRMModel
from tests.conftest import ONE_OF_A_KIND
from tests.oracles import supervision as oracle

VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "learned positions": {"position_embedding": "learned"},
    "waves of rows and columns": {"position_embedding": "sincos2d", "position_std": 0.5, "rope_theta": 5.0},
    "no positions": {"position_embedding": "none"},
    "one latent": {"num_latents": 1, "H_cycles": 3},
    "normalised gate with bias": {"mlp_gate": "normalized", "mlp_gate_bias": 1.0},
    "no prefix": {"puzzle_prefix_len": 0, "num_puzzles": 1},
    "the puzzle's row at each cell": {"puzzle_conditioning": "cells", "puzzle_symbol_width": 4},
    "two groups, one cycle": {"mamba_n_groups": 2, "H_cycles": 1, "initial_state_std": 0.3},
}
# Each with the presets in which it meets something of its own: of positions and rows that is where they are added.
ADDED = ("trm-attn", "tr-mamba2mlpt", "symbols-mamba2")  # rotary attention, operators without positions, symbol fields
MEETS: dict[str, Sequence[str]] = {
    "as published": ONE_OF_A_KIND,
    "learned positions": ADDED,
    "waves of rows and columns": ADDED,
    "no positions": ("trm-attn", "tr-mamba2attn", "urm"),  # attention alone would turn its queries and keys
    "one latent": (*ADDED, "compact"),
    "normalised gate with bias": ("trm-mlp-t", "urm", "symbols-mamba2"),  # of each operator with a gate
    "no prefix": (*ADDED, "trm-mlp-t", "urm"),
    "the puzzle's row at each cell": (*ADDED, "compact"),
    "two groups, one cycle": ("mamba2", "tr-mamba3mlpt", "symbols-mamba2"),
}
CASES = [(preset, variant) for variant in VARIANTS for preset in MEETS[variant]]
FEEDBACK: dict[str, dict[str, Any]] = {
    "as released": {"answer_feedback": True, "num_step_embeddings": 3},
    "given cells protected": {"answer_feedback": True, "num_step_embeddings": 2, "blank_token_id": 1},
    "feedback alone": {"answer_feedback": True, "num_step_embeddings": 0},
    "step number alone": {"answer_feedback": False, "num_step_embeddings": 2, "position_embedding": "learned"},
}


@pytest.mark.parametrize(("preset", "variant"), CASES)
def test_three_carried_steps_equal_the_transcription(
    preset: str,
    variant: str,
    tiny_model: Callable[..., TRMForGridReasoning],
    tiny_batch: Callable[..., dict[str, Tensor]],
) -> None:
    model = tiny_model(preset, **VARIANTS[variant]).double()
    batch = tiny_batch(model.config)
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.state_dict().items()}
    state, expected_state, reads = None, None, batch["input_ids"]
    for step in range(3):
        out = model(**batch, state=state)
        loss, logits, halt_logits, expected_state = oracle.supervision_step(
            weights, model.config, reads, batch["puzzle_ids"], batch["labels"], expected_state, step + 1
        )
        if model.config.answer_feedback:
            reads = oracle.feed_back(model.config, batch["input_ids"], logits)
        torch.testing.assert_close(out.logits, logits, rtol=0, atol=1e-9)
        torch.testing.assert_close(out.halt_logits, halt_logits, rtol=0, atol=1e-9)
        torch.testing.assert_close(out.state.z_H, expected_state[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(out.loss.double(), loss, rtol=1e-6, atol=0)  # the loss is handed out in float32
        state = out.state
        model.zero_grad()
        out.loss.backward()
        parameters = dict(model.named_parameters())
        expected = torch.autograd.grad(loss, [weights[name] for name in parameters])
        for (name, parameter), gradient in zip(parameters.items(), expected, strict=True):
            torch.testing.assert_close(
                parameter.grad.to_dense(),
                gradient,
                rtol=1e-8,
                atol=1e-9,
                msg=lambda text, name=name, step=step: f"{name}, step {step}: {text}",
            )


@pytest.mark.parametrize("variant", FEEDBACK)
@pytest.mark.parametrize("num_latents", [1, 2])
def test_a_model_that_reads_its_answers_equals_the_transcription(
    num_latents: int, variant: str, tiny_model, tiny_batch
) -> None:
    model = tiny_model("tr-mamba2mlpt", num_latents=num_latents, **FEEDBACK[variant]).double()
    batch = tiny_batch(model.config)
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.state_dict().items()}
    state, expected_state, reads = None, None, batch["input_ids"]
    for step in range(1, 5):
        out = model(**batch, state=state)
        _, logits, _, expected_state = oracle.supervision_step(
            weights, model.config, reads, batch["puzzle_ids"], batch["labels"], expected_state, step
        )
        torch.testing.assert_close(out.logits, logits, rtol=0, atol=1e-9)
        state = out.state
        assert state.steps.tolist() == [step] * 3
        if model.config.answer_feedback:
            reads = oracle.feed_back(model.config, batch["input_ids"], logits)
            assert torch.equal(state.answers, reads)
            assert not torch.equal(reads, batch["input_ids"])  # so that the next step can tell
        model.zero_grad()
        out.logits.square().sum().backward()
        names = [name for name, _ in model.named_parameters() if not name.startswith("q_head")]
        expected = torch.autograd.grad(logits.square().sum(), [weights[name] for name in names])
        for name, gradient in zip(names, expected):
            torch.testing.assert_close(model.get_parameter(name).grad.to_dense(), gradient, rtol=1e-8, atol=1e-8)


def test_a_state_without_what_the_model_reads_is_refused(tiny_model, tiny_batch) -> None:
    model = tiny_model("compact")
    batch = tiny_batch(model.config)
    state = model(**batch).state
    for missing in ("answers", "steps"):
        with pytest.raises(
            ValueError, match="the state lacks answers or steps, which a model with answer_feedback=True"
        ):
            model(**batch, state=state._replace(**{missing: None}))


def test_the_cycles_of_a_step_can_be_given(tiny_model, tiny_batch) -> None:
    model, deeper = tiny_model("trm-attn", H_cycles=1, L_cycles=1), tiny_model("trm-attn", H_cycles=2, L_cycles=3)
    deeper.load_state_dict(model.state_dict())
    batch = tiny_batch(model.config)
    assert torch.equal(model(**batch, cycles=(2, 3)).logits, deeper(**batch).logits)
    assert not torch.equal(model(**batch).logits, deeper(**batch).logits)


def test_loss_is_none_without_labels_and_nothing_else_changes(tiny_model, tiny_batch) -> None:
    model = tiny_model("trm-attn")
    batch = tiny_batch(model.config)
    with_labels = model(**batch)
    without = model(batch["input_ids"], puzzle_ids=batch["puzzle_ids"])
    assert without.loss is None
    assert torch.equal(with_labels.logits, without.logits)
    assert with_labels.loss.dtype == torch.float32


@pytest.mark.parametrize("cycles", [(0, 1), (-5, 1), (1, 0), (1, -2)])
@pytest.mark.parametrize("num_latents", [1, 2])
def test_fewer_cycles_than_one_are_refused(num_latents: int, cycles: tuple[int, int], tiny_model, tiny_batch) -> None:
    """Given with a step, or written into the config of a model that is there."""
    model = tiny_model("trm-attn", num_latents=num_latents)
    batch, told = tiny_batch(model.config), "H_cycles={}, L_cycles={}; allowed: 1 or more of each".format(*cycles)
    with pytest.raises(ValueError, match=told):
        model(**batch, cycles=cycles)
    model.config.H_cycles, model.config.L_cycles = cycles
    with pytest.raises(ValueError, match=told):
        model(**batch)


@pytest.mark.parametrize("label", [-1, 50])
def test_labels_out_of_range_are_refused_with_what_padding_is(label: int, tiny_model, tiny_batch) -> None:
    model = tiny_model("trm-attn")
    batch = tiny_batch(model.config)
    batch["labels"][0, 0], batch["labels"][1, 0] = label, -100
    with pytest.raises(
        ValueError, match=r"^labels holds .*; allowed: 0\.\.5 \(vocab_size=6\), and -100 where a cell has "
    ):
        model(**batch)


def test_labels_that_are_all_ignored_cost_nothing_but_the_halting_loss(tiny_model, tiny_batch) -> None:
    model = tiny_model("trm-attn")
    batch = tiny_batch(model.config)
    batch["labels"].fill_(-100)
    out = model(**batch)
    halting = torch.nn.functional.softplus(-out.halt_logits).mean()  # "exact" holds where nothing is asked
    torch.testing.assert_close(out.loss, 0.5 * halting, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("preset", "variant"), CASES)
def test_every_parameter_gets_a_gradient(preset: str, variant: str, tiny_model, tiny_batch) -> None:
    model = tiny_model(preset, **VARIANTS[variant])
    model(**tiny_batch(model.config)).loss.backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.to_dense()
        assert gradient.isfinite().all(), name
        # No row without gradient either, but for the second output of q_head, "continue", which nothing reads.
        rows = gradient.flatten(1).abs().amax(1) if gradient.ndim > 1 else gradient.abs()
        # Of the step embeddings only the first step's.
        single = name.startswith("q_head") or name == "model.embed_steps.weight"
        assert (rows > 0).sum() >= (1 if single else len(rows) * 0.5), name


def test_a_sparse_puzzle_table_gets_gradients_for_the_rows_of_the_batch(tiny_model, tiny_batch) -> None:
    model = tiny_model("trm-attn", num_puzzles=50)
    model.model.puzzle_emb.sparse = True
    batch = {**tiny_batch(model.config), "puzzle_ids": torch.tensor([7, 3, 7])}
    model(**batch).loss.backward()
    gradient = model.model.puzzle_emb.weight.grad.coalesce()
    assert gradient.indices().tolist() == [[3, 7]]


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_neither_the_inputs_nor_the_given_state_are_mutated(preset: str, tiny_model, tiny_batch) -> None:
    model = tiny_model(preset)
    batch = tiny_batch(model.config)
    state = model(**batch).state
    latents = {name: z for name, z in state._asdict().items() if z is not None}
    given = {**batch, **latents, **model.state_dict()}
    before = {name: value.detach().clone() for name, value in given.items()}
    out = model(**batch, state=state)
    out.loss.backward()
    for name, value in given.items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_carried_state_has_no_history(preset: str, tiny_model, tiny_batch) -> None:
    model = tiny_model(preset)
    out = model(**tiny_batch(model.config))
    assert out.logits.requires_grad
    assert not out.state.z_H.requires_grad
    assert out.state.z_L is None or not out.state.z_L.requires_grad


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_same_seed_same_model_same_gradients(preset: str, tiny_model, tiny_batch) -> None:
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        model = tiny_model(preset)
        out = model(**tiny_batch(model.config))
        out.loss.backward()
        gradients = {f"gradient of {name}": p.grad.to_dense() for name, p in model.named_parameters()}
        runs.append({**model.state_dict(), **gradients, "logits": out.logits, "loss": out.loss})
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name]), name


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_given_initial_state_is_the_same_as_none(preset: str, tiny_model, tiny_batch) -> None:
    model = tiny_model(preset)
    batch = tiny_batch(model.config)
    assert torch.equal(model(**batch).logits, model(**batch, state=model.initial_state(3)).logits)


def test_puzzle_ids_default_to_the_blank_row(tiny_model, tiny_batch) -> None:
    model = tiny_model("trm-attn")
    ids = tiny_batch(model.config)["input_ids"]
    assert torch.equal(model(ids).logits, model(ids, puzzle_ids=torch.zeros(3, dtype=torch.long)).logits)
    assert not torch.equal(model(ids).logits, model(ids, puzzle_ids=torch.ones(3, dtype=torch.long)).logits)


def test_the_trunk_alone_gives_the_latents(tiny_model, tiny_batch) -> None:
    model = tiny_model("trm-attn")
    assert isinstance(model.model, TRMModel)
    batch = tiny_batch(model.config)
    latents = model.model(batch["input_ids"], batch["puzzle_ids"])
    assert torch.equal(latents.z_H.detach(), model(**batch).state.z_H)


# --- what bad inputs get --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 15), (2, 17), (16,), (2, 4, 4)])
def test_a_grid_of_another_size_is_refused(shape: tuple[int, ...], tiny_model) -> None:
    allowed = r"16.*seq_len" if len(shape) == 2 else r"allowed: \[batch, cells\]"
    with pytest.raises(ValueError, match=rf"input_ids has shape .*{allowed}") as error:
        tiny_model("trm-attn")(torch.zeros(shape, dtype=torch.long))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("num_latents", [1, 2])
def test_a_state_with_another_number_of_latents_is_refused(num_latents: int, tiny_model) -> None:
    model, other = tiny_model("trm-attn", num_latents=num_latents), tiny_model("trm-attn", num_latents=3 - num_latents)
    state: RecursionState = other.initial_state(2)
    with pytest.raises(ValueError, match="num_latents"):
        model(torch.zeros(2, 16, dtype=torch.long), state=state)
