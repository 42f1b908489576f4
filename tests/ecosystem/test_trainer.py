"""transformers' Trainer on our model, as anyone would call it: nothing of ours but the model and rows of token ids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from modeling_trm import TRMForGridReasoning

Rows = list[dict[str, torch.Tensor]]
STEPS = 8


@pytest.fixture
def model(tiny_model) -> Callable[..., TRMForGridReasoning]:
    """The same weights at every call; the halting head starts undecided, so that the loss can only fall."""

    def make(**overrides: Any) -> TRMForGridReasoning:
        torch.manual_seed(0)
        return tiny_model("trm-attn", halt_bias=0.0, **overrides)

    return make


@pytest.fixture
def rows(model) -> Rows:
    """16 puzzles; an answer is its puzzle with every token one further."""
    config = model().config
    inputs = torch.randint(1, config.vocab_size, (16, config.seq_len), generator=torch.Generator().manual_seed(1))
    return [
        {"input_ids": ids, "labels": ids % (config.vocab_size - 1) + 1, "puzzle_ids": torch.tensor(row % 3)}
        for row, ids in enumerate(inputs)
    ]


def trainer_of(model: TRMForGridReasoning, rows: Rows, output: Path, **arguments: Any) -> Trainer:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 8, "max_steps": STEPS, "learning_rate": 2e-3, "lr_scheduler_type": "constant",
        "save_steps": STEPS // 2, "use_cpu": True, "report_to": [], "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    told = TrainingArguments(output_dir=str(output), **settings | arguments)
    return Trainer(model, told, train_dataset=rows, eval_dataset=rows, compute_metrics=cells_right)


def cells_right(predicted: EvalPrediction) -> dict[str, float]:
    logits, halt_logits = predicted.predictions
    assert halt_logits.shape == logits.shape[:1]
    return {"cells": float((logits.argmax(-1) == predicted.label_ids).mean())}


def weights(model: TRMForGridReasoning) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same_weights(model: TRMForGridReasoning, expected: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("table", ["trained", "frozen"])
def test_it_trains_evaluates_and_predicts(table: str, model, rows: Rows, tmp_path: Path) -> None:
    own = model()
    own.model.puzzle_emb.requires_grad_(table == "trained")
    before = weights(own)
    trainer = trainer_of(own, rows, tmp_path)
    start = trainer.evaluate()
    trainer.train()
    end = trainer.evaluate()
    assert end["eval_loss"] < 0.9 * start["eval_loss"]
    assert end["eval_cells"] > start["eval_cells"]
    changed = {name for name, value in own.state_dict().items() if not torch.equal(value, before[name])}
    assert ("model.puzzle_emb.weight" in changed) == (table == "trained")
    assert "lm_head.weight" in changed and "model.H_init" not in changed
    predicted = trainer.predict(rows)
    with torch.no_grad():
        expected = own.eval()(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]})
    torch.testing.assert_close(torch.from_numpy(predicted.predictions[0]), expected.logits)
    assert predicted.metrics["test_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)


def test_the_gradient_of_the_table_is_that_of_its_rows(model, rows: Rows) -> None:
    """Dense, which clipping and AdamW take, it is the sparse one of our own training written out."""
    batch = {name: torch.stack([row[name] for row in rows[:2]]) for name in rows[0]}
    gradients = []
    for sparse in (False, True):
        own = model()
        own.model.puzzle_emb.sparse = sparse
        own(**batch).loss.backward()
        gradients.append(own.model.puzzle_emb.weight.grad)
    assert (gradients[0].is_sparse, gradients[1].is_sparse) == (False, True)
    assert torch.equal(gradients[0], gradients[1].to_dense())


@pytest.mark.parametrize("part", ["all", "table"])
def test_it_goes_on_from_its_checkpoint(part: str, model, rows: Rows, tmp_path: Path) -> None:
    base = tmp_path / "base"
    model().save_pretrained(base)
    whole, wrong = (train_only(part, TRMForGridReasoning.from_pretrained(base)) for _ in range(2))
    trainer_of(whole, rows, tmp_path).train()
    checkpoint = str(tmp_path / f"checkpoint-{STEPS // 2}")
    resumed = train_only(part, TRMForGridReasoning.from_pretrained(checkpoint))
    trainer_of(resumed, rows, tmp_path / "resumed").train(resume_from_checkpoint=checkpoint)
    assert_same_weights(resumed, weights(whole))
    with pytest.raises(ValueError, match=r"puzzle_table.safetensors beside them: give the Trainer the model that"):
        trainer_of(wrong, rows, tmp_path / "other").train(resume_from_checkpoint=checkpoint)


def train_only(part: str, model: TRMForGridReasoning) -> TRMForGridReasoning:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part in ("all", "table" if "puzzle_emb" in name else "core"))
    return model


@pytest.mark.parametrize("part", ["all", "core", "table"])
def test_the_best_model_comes_back_with_its_table(part: str, model, rows: Rows, tmp_path: Path) -> None:
    """load_best_model_at_end: the second half of the training goes uphill, so that the first was better.

    Of the table alone, all checkpoints hold the same core; then the Trainer's state tells which was the best.
    """
    own = train_only(part, model())
    trainer = trainer_of(
        own, rows, tmp_path, load_best_model_at_end=True, eval_strategy="steps", eval_steps=STEPS // 2,
        save_strategy="steps", lr_scheduler_type="constant",
    )  # fmt: skip
    trainer.add_callback(Uphill())
    parameter = own.model.puzzle_emb.weight
    trainer.train()
    best = tmp_path / f"checkpoint-{STEPS // 2}"
    assert trainer.state.best_model_checkpoint == str(best) and own.model.puzzle_emb.weight is parameter
    assert_same_weights(own, weights(TRMForGridReasoning.from_pretrained(best)))
    last = TRMForGridReasoning.from_pretrained(tmp_path / f"checkpoint-{STEPS}")
    assert torch.equal(last.model.puzzle_emb.weight, parameter) == (part == "core")


class Uphill(TrainerCallback):
    """The learning rate turned round from the middle on."""

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any, **_: Any) -> None:
        for group in optimizer.param_groups if state.global_step >= STEPS // 2 else ():
            group["lr"] = -abs(group["lr"])


def test_with_a_frozen_table_any_model_goes_on(model, rows: Rows, tmp_path: Path) -> None:
    whole, resumed = model(), model()
    for one in (whole, resumed):
        one.model.puzzle_emb.requires_grad_(False)
    trainer_of(whole, rows, tmp_path).train()
    checkpoint = str(tmp_path / f"checkpoint-{STEPS // 2}")
    trainer_of(resumed, rows, tmp_path / "resumed").train(resume_from_checkpoint=checkpoint)
    assert_same_weights(resumed, weights(whole))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")  # its new name is not known to 5.10
def test_gradient_checkpointing_gives_the_same_weights(model, rows: Rows, tmp_path: Path) -> None:
    """It computes each call of the stack anew in the backward pass; counted, so that it is known to."""
    calls, trained = [], []
    for checkpointing in (False, True):
        own = model()
        counted: list[int] = []
        own.model.stack.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        trainer_of(own, rows, tmp_path, gradient_checkpointing=checkpointing, max_steps=1).train()
        calls.append(len(counted))
        trained.append(weights(own))
    with_gradient = own.config.L_cycles + 1
    assert calls == [own.config.H_cycles * with_gradient, (own.config.H_cycles + 1) * with_gradient]
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bfloat16(how: str, model, rows: Rows, tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "model")
    dtype = torch.bfloat16 if how == "weights" else torch.float32
    own = TRMForGridReasoning.from_pretrained(tmp_path / "model", dtype=dtype)
    trainer = trainer_of(own, rows, tmp_path, bf16=how == "autocast")
    start = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < start
    assert own.dtype == dtype


@pytest.mark.parametrize("said_by", ["the call", "the config"])
def test_a_tuple_in_the_place_of_the_output(said_by: str, model, rows: Rows) -> None:
    own = model()
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    expected, solved = own(**batch), own.solve(batch["input_ids"])
    if said_by == "the config":
        own.config.return_dict = False
        assert torch.equal(own.solve(batch["input_ids"]).answers, solved.answers)
    told = {"return_dict": False} if said_by == "the call" else {}
    loss, logits, halt_logits, state = own(**batch, **told)
    assert torch.equal(loss, expected.loss) and torch.equal(logits, expected.logits)
    assert torch.equal(halt_logits, expected.halt_logits) and torch.equal(state.z_H, expected.state.z_H)
    assert len(own(batch["input_ids"], **told)) == 3  # no loss without labels
