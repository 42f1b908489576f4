"""ReasoningConfig: checks itself, travels with a checkpoint, and is what solve and the pipeline begin with."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from modeling_trm import GridProcessor, GridReasoningPipeline, ReasoningConfig, TRMForGridReasoning

OWN = ReasoningConfig(max_steps=7, halt=0.9, guidance=1.5, engine="eager")
IDS = torch.arange(16)[None] % 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_steps": 0}, "max_steps=0 is not allowed; allowed: whole numbers from 1"),
        ({"max_steps": 2.0}, "max_steps=2.0 is not allowed"),
        ({"views": None}, "views=None is not allowed"),
        ({"views": True}, "views=True is not allowed"),
        ({"halt": 1}, "halt=1 is not allowed; allowed: True, False, or a probability between 0 and 1"),
        ({"noise_std": float("inf")}, "noise_std=inf is not allowed; allowed: finite numbers from 0"),
        ({"guidance": float("nan")}, "guidance=nan is not allowed; allowed: finite numbers"),
        ({"damping": 1}, "damping=1 is not allowed; allowed: numbers from 0 up to, not including, 1"),
        ({"random_start": 1}, "random_start=1 is not allowed; allowed: True, False"),
        ({"certificate": "rule"}, "certificate='rule' is not allowed; allowed: None, 'rules', or a probability"),
        ({"certificate": 1.0}, "certificate=1.0 is not allowed"),
        ({"selection": "best"}, "selection='best' is not allowed; allowed: halt, vote, residual, valid"),
        ({"num_trajectories": 2}, "num_trajectories=2: all trajectories would be the same one"),
    ],
)
def test_it_checks_itself(fields: dict, message: str) -> None:
    for make in (lambda: ReasoningConfig(**fields), lambda: ReasoningConfig().updated(**fields)):
        with pytest.raises(ValueError, match=re.escape(message)):
            make()


def test_an_unknown_option_names_the_nearest(tiny_model) -> None:
    model = tiny_model("trm-attn")
    for options, message in (
        ({"max_step": 3}, "there is no option 'max_step'; did you mean 'max_steps'?"),
        ({"max_augmentations": 3}, "there is no option 'max_augmentations': it is called 'views'"),
        ({"temperature": 3}, "allowed: max_steps, halt, views, num_trajectories"),
    ):
        with pytest.raises(TypeError) as error:
            model.solve(IDS, **options)
        assert message in str(error.value)


def test_steps_by_position_are_told_their_name(tiny_model) -> None:
    with pytest.raises(TypeError, match="reasoning_config=16 is no ReasoningConfig; options have names"):
        tiny_model("trm-attn").solve(IDS, None, 16)


def test_a_search_is_all_that_is_not_plain() -> None:
    assert ReasoningConfig(max_steps=3, halt=True, views=4, engine="eager").search == {}
    assert ReasoningConfig(damping=0.5).search == {
        "num_trajectories": 1, "noise_std": 0.0, "noise_on": "z_H", "random_start": False, "selection": "halt",
        "guidance": 1.0, "damping": 0.5, "max_batch": None,
    }  # fmt: skip


def test_it_travels_with_the_checkpoint(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("trm-attn")
    model.reasoning_config = OWN
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "reasoning_config.json").read_text()) == dataclasses.asdict(OWN)
    loaded = TRMForGridReasoning.from_pretrained(tmp_path)
    assert loaded.reasoning_config == OWN
    loaded.save_pretrained(tmp_path / "again")
    assert TRMForGridReasoning.from_pretrained(tmp_path / "again").reasoning_config == OWN
    (tmp_path / "reasoning_config.json").unlink()  # as of a checkpoint of an earlier version
    assert TRMForGridReasoning.from_pretrained(tmp_path).reasoning_config == ReasoningConfig()
    assert TRMForGridReasoning.reasoning_config == ReasoningConfig()  # of the class, untouched


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"max_steps": 7', "reasoning_config.json: "),
        ("[]", "reasoning_config.json: is no JSON object"),
        ('{"max_step": 7}', "reasoning_config.json: there is no option 'max_step'; did you mean 'max_steps'?"),
        ('{"halt": 7}', "reasoning_config.json: halt=7 is not allowed"),
    ],
)
def test_a_damaged_file_is_named(tiny_model, tmp_path: Path, text: str, message: str) -> None:
    tiny_model("trm-attn").save_pretrained(tmp_path)
    (tmp_path / "reasoning_config.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        TRMForGridReasoning.from_pretrained(tmp_path)


def test_a_file_may_state_single_fields(tmp_path: Path) -> None:
    path = tmp_path / "reasoning_config.json"
    path.write_text('{"halt": 0.75, "max_steps": 9}')
    assert ReasoningConfig.from_file(path) == ReasoningConfig(max_steps=9, halt=0.75)


def test_solve_and_the_pipeline_begin_with_the_models_own(tiny_model) -> None:
    model = tiny_model("trm-attn").eval().double()
    whole = model.solve(IDS)
    assert whole.steps.tolist() == [model.config.halt_max_steps]  # the class's: every step of the architecture
    model.reasoning_config = ReasoningConfig(max_steps=2, guidance=3.0, views=3)
    own = model.solve(IDS)
    assert own.steps.tolist() == [2]
    assert torch.equal(own.answers, model.solve(IDS, None, ReasoningConfig(max_steps=2, guidance=3.0)).answers)
    assert model.solve(IDS, max_steps=5).steps.tolist() == [5]  # one field in the place of its own
    assert model.solve(IDS, max_steps=None).steps.tolist() == [model.config.halt_max_steps]
    pipe = GridReasoningPipeline(model=model, feature_extractor=GridProcessor("sudoku", grid_shape=(4, 4)))
    result = pipe("1.3.....2...4...")
    assert result["steps"] == 2 and result["views"] == 3
    assert pipe("1.3.....2...4...", max_steps=3, views=1).keys() == {"answer", "halt_probability", "steps"}
    plain = pipe("1.3.....2...4...", reasoning_config=ReasoningConfig(max_steps=1))
    assert plain["steps"] == 1 and "votes" not in plain


def test_solve_makes_no_views(tiny_model) -> None:
    model = tiny_model("trm-attn")
    for asked in ({"views": 2}, {"reasoning_config": ReasoningConfig(views=2)}):
        with pytest.raises(ValueError, match=r"views=2: solve takes token ids, .* the pipeline makes views"):
            model.solve(IDS, **asked)


def test_what_depends_on_the_model_is_checked_by_solve(tiny_model) -> None:
    with pytest.raises(ValueError, match="selection='valid' needs verifier"):
        tiny_model("trm-attn").solve(IDS, None, ReasoningConfig(selection="valid"))
