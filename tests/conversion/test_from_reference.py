"""A checkpoint of the reference becomes a folder of ours: what is inferred, what is asked for, what is recorded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from modeling_trm import GridProcessor, TRMConfig, TRMForGridReasoning
from modeling_trm.conversion.checkpoint_file import ConversionError
from modeling_trm.conversion.from_reference import convert_reference
from modeling_trm.conversion.layout import our_name
from tests.conversion.conftest import ATTENTION, MLP_T, PREFIX, SIZES, VARIANTS, arch_yaml
from tests.oracles import reference

CYCLES = {"H_cycles": 2, "L_cycles": 2}


def state_of(arch: dict[str, Any], rows: int = 1, **kwargs: Any) -> dict[str, torch.Tensor]:
    return reference.random_state_dict({**SIZES, **arch}, rows, **kwargs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_field_of_the_configuration(variant: str, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    arch = VARIANTS[variant]
    convert_reference(save_reference(arch, rows=3 if arch["puzzle_emb_ndim"] else 1), tmp_path / "out")
    config = TRMConfig.from_pretrained(tmp_path / "out")
    assert config.block_operators == ["mlp_t" if arch["mlp_t"] else "attention", "mlp"] * arch["L_layers"]
    assert config.puzzle_prefix_len == reference.prefix_length(arch)
    assert config.num_puzzles == (3 if arch["puzzle_emb_ndim"] else 1)
    assert config.position_embedding == arch["pos_encodings"]
    assert config.inner_width(32) == reference.inner_width(arch["expansion"], 32)
    for name in ("hidden_size", "H_cycles", "L_cycles", "halt_max_steps", "rms_norm_eps"):
        assert getattr(config, name) == arch[name]
    assert (config.vocab_size, config.seq_len, config.num_latents) == (11, 81, 2)
    if not arch["mlp_t"]:
        assert (config.num_attention_heads, config.rope_theta) == (arch["num_heads"], arch["rope_theta"])
    processor = GridProcessor.from_pretrained(tmp_path / "out")
    assert (processor.task, processor.grid_shape) == ("sudoku", [9, 9])


def test_without_a_yaml_the_cycles_and_heads_are_asked_for(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION, config=False)
    with pytest.raises(ConversionError, match=r"add --H-cycles N --L-cycles N --num-heads N, or --arch"):
        convert_reference(path, tmp_path / "out")
    with pytest.raises(ConversionError, match=r"do not tell num_heads; add --num-heads N, or"):
        convert_reference(path, tmp_path / "out", options=CYCLES)
    assert not (tmp_path / "out").exists()
    facts = convert_reference(path, tmp_path / "out", options={**CYCLES, "num_heads": 4})
    assert facts["num_heads"] == "4 (--num-heads)"
    assumed = {name for name, text in facts.items() if "assumed" in text}
    assert assumed == {"rms_norm_eps", "rope_theta", "puzzle_emb_len", "halt_max_steps", "pos_encodings"}
    assert facts["task"] == "sudoku, 9 x 9 (inferred from the 11 token ids)"


def test_mlp_t_needs_no_heads_and_tells_its_prefix(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference({**MLP_T, "puzzle_emb_len": 5}, config=False)
    facts = convert_reference(path, tmp_path / "out", options=CYCLES)
    assert facts["puzzle_emb_len"] == "5 (86 positions less 81 cells)"
    assert TRMConfig.from_pretrained(tmp_path / "out").puzzle_prefix_len == 5


WITHOUT_A_TABLE: dict[str, tuple[dict[str, Any], dict[str, Any] | None, int | None]] = {
    # name: (options, the YAML's fields or None for no YAML, positions of the prefix or None for refused)
    "nothing said": ({}, None, None),
    "0 given": ({"puzzle_emb_len": 0}, None, 0),
    "16 given": ({"puzzle_emb_len": 16}, None, 16),
    "a YAML that does not say it": ({}, {}, None),
    "a YAML with the width of the rows": ({}, {"puzzle_emb_ndim": 32}, 16),
    "a YAML without rows": ({}, {"puzzle_emb_ndim": 0}, 0),
    "a YAML with the length": ({}, {"puzzle_emb_len": 3}, 3),
    "a YAML with the width and a length of 0": ({}, {"puzzle_emb_ndim": 40, "puzzle_emb_len": 0}, 2),
}


@pytest.mark.parametrize("case", WITHOUT_A_TABLE)
def test_attention_without_a_table_may_have_a_prefix_or_none(
    case: str, save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    """The reference writes no table where it was trained without one; a fork may have taken it out of the file."""
    options, fields, prefix = WITHOUT_A_TABLE[case]
    state = state_of(ATTENTION)
    del state["puzzle_emb.weights"]
    given = {name: value for name, value in ATTENTION.items() if not name.startswith("puzzle_emb")}
    path = save_reference({**given, **(fields or {})}, state=state, config=fields is not None)
    options = options if fields is not None else {**CYCLES, "num_heads": 4, **options}
    if prefix is None:
        with pytest.raises(ConversionError, match=r"do not tell puzzle_emb_len; add --puzzle-emb-len N \(0 = trained"):
            convert_reference(path, tmp_path / "out", options=options)
        return
    facts = convert_reference(path, tmp_path / "out", options=options)
    assert TRMConfig.from_pretrained(tmp_path / "out").puzzle_prefix_len == prefix
    assert ("puzzle table" in facts) == (prefix > 0)


@pytest.mark.parametrize("value", [0, 0.0, -1.0, float("nan"), float("inf"), pytest.param(10**400, id="401 digits")])
@pytest.mark.parametrize("name", ["expansion", "rms_norm_eps", "rope_theta"])
@pytest.mark.parametrize("source", ["command line", "YAML"])
def test_numbers_are_finite_and_above_zero(
    source: str, name: str, value: float, save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    given = {**CYCLES, "num_heads": 4, name: value}
    path = save_reference({**ATTENTION, name: value}, state=state_of(ATTENTION), config=source == "YAML")
    with pytest.raises(ConversionError, match=rf"^{name}=.*; allowed: finite numbers above 0") as e:
        convert_reference(path, tmp_path / "out", options=given if source == "command line" else {})
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["H_cycles", "L_cycles", "num_heads", "halt_max_steps", "puzzle_emb_len"])
def test_counts_are_not_negative(name: str, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    wrong, least = (-1, 0) if name == "puzzle_emb_len" else (0, 1)
    path = save_reference(ATTENTION, config=False)
    options = {**CYCLES, "num_heads": 4, name: wrong}
    with pytest.raises(ConversionError, match=rf"^{name}={wrong} \(--.*\); allowed: {least} and above"):
        convert_reference(path, tmp_path / "out", options=options)


def tied(state: dict[str, torch.Tensor]) -> None:
    state["embed_tokens.embedding_weight"] = state["lm_head.weight"]


def overlapping(state: dict[str, torch.Tensor]) -> None:
    both = torch.randn(64)
    state |= {"H_init": both[:32], "L_init": both[16:48]}


@pytest.mark.parametrize("share", [tied, overlapping])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_of_one_storage_are_parted(
    share: Callable[[dict[str, torch.Tensor]], None],
    zipped: bool,
    save_reference: Callable[..., Path],
    tmp_path: Path,
) -> None:
    state = state_of(ATTENTION)
    share(state)
    path = save_reference(ATTENTION)
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    convert_reference(path, tmp_path / "out")
    own = TRMForGridReasoning.from_pretrained(tmp_path / "out").state_dict()
    for name in ("embed_tokens.embedding_weight", "lm_head.weight", "H_init", "L_init"):
        assert torch.equal(own[our_name(name)], state[name])


@pytest.mark.parametrize("license", [None, "mit", "cc-by-nc-4.0"])
def test_the_licence_is_the_authors(license: str | None, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    convert_reference(save_reference(ATTENTION), tmp_path / "out", license=license)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics.get("license") == license
    assert ("license" in metrics) == (license is not None)


@pytest.mark.parametrize("license", ["", "MIT", "mit\nmodel", "the mit licence", "-"])
def test_a_licence_that_the_hub_cannot_read(license: str, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="is no licence id of the Hub; allowed: such as mit"):
        convert_reference(save_reference(ATTENTION), tmp_path / "out", license=license)
    assert not (tmp_path / "out").exists()


CONTRADICTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "variant": (ATTENTION, {"mlp_t": True}, r"mlp_t=True \(all_config.yaml\) does not fit .* mlp_t=False"),
    "hidden size": (ATTENTION, {"hidden_size": 64}, r"hidden_size=64 .* hidden_size=32"),
    "layers": (ATTENTION, {"L_layers": 3}, r"L_layers=3 .* L_layers=2"),
    "expansion": (ATTENTION, {"expansion": 16}, r"expansion=16 .* 256 over 32 \(tensors\)"),
    "table": (ATTENTION, {"puzzle_emb_ndim": 64}, r"puzzle_emb_ndim=64 .* puzzle_emb_ndim=32"),
    "rows": (ATTENTION, {"num_puzzle_identifiers": 7}, r"num_puzzle_identifiers=7 .* num_puzzle_identifiers=1"),
    "positions": (ATTENTION, {"pos_encodings": "learned"}, r"pos_encodings=learned .* pos_encodings=rope or none"),
    "prefix": (MLP_T, {"puzzle_emb_len": 8}, r"has 97 positions .* a prefix of 8 and a sudoku grid of 9 x 9 are 89"),
    "cells": (ATTENTION, {"seq_len": 900}, r"seq_len=900 .* does not fit a sudoku grid of 9 x 9"),
    "vocabulary": (ATTENTION, {"vocab_size": 12}, r"vocab_size=12 .* vocab_size=11"),
    "an expansion beyond all widths": (
        ATTENTION,
        {"expansion": 1e308},
        r"expansion=1e\+308 .* 256 over 32 \(tensors\)",
    ),
    "heads": (ATTENTION, {"num_heads": 5}, r"hidden_size=32 is not divisible by num_attention_heads=5"),
    "another model": (ATTENTION, {"name": "recursive_reasoning.trm_singlez@X"}, "trm_singlez@X' is another model"),
    "a fork's field": (ATTENTION, {"bidirectional": True}, "bidirectional=True is no field of the reference"),
    "a text for a number": (ATTENTION, {"H_cycles": "three"}, "H_cycles='three'; allowed: int"),
    "no prefix for a table": (MLP_T, {"seq_len": 81, "puzzle_emb_len": 0}, r"97 positions .* prefix of 1 and"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_is_given_is_checked_against_the_tensors(
    case: str, save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    arch, wrong, message = CONTRADICTIONS[case]
    path = save_reference(arch)
    path.with_name("all_config.yaml").write_text(yaml.safe_dump({"arch": arch_yaml(arch) | wrong}), encoding="utf-8")
    if "seq_len" in wrong:
        text = yaml.safe_dump({"arch": {**arch, **wrong}})
        path.with_name("all_config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConversionError, match=message) as raised:
        convert_reference(path, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_the_command_line_may_not_contradict_the_yaml(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION)
    with pytest.raises(ConversionError, match=r"H_cycles: --H-cycles 3 differs from H_cycles=2 in .*all_config"):
        convert_reference(path, tmp_path / "out", options={"H_cycles": 3})


def test_the_references_own_yaml_with_its_interpolation(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION, config=False)
    arch = {name: value for name, value in arch_yaml(ATTENTION).items() if name != "rms_norm_eps"}
    text = yaml.safe_dump(arch | {"puzzle_emb_ndim": "${.hidden_size}"}) + "rms_norm_eps: 1e-05\n"
    (tmp_path / "trm.yaml").write_text(text, encoding="utf-8")
    facts = convert_reference(path, tmp_path / "out", arch=tmp_path / "trm.yaml")
    assert facts["rms_norm_eps"] == "1e-05 (trm.yaml)"


@pytest.mark.parametrize("prefix", ["", "module.", "model.inner.", "module._orig_mod.model.inner.", "inner."])
def test_any_prefix_and_any_format_give_the_same_weights(
    prefix: str, save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    state = state_of(ATTENTION)
    path = save_reference(ATTENTION, state=state, prefix=prefix)
    convert_reference(path, tmp_path / "zip")
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)
    convert_reference(path, tmp_path / "legacy")
    save_file({f"{prefix}{name}": tensor for name, tensor in state.items()}, path)
    convert_reference(path, tmp_path / "safetensors")
    models = [TRMForGridReasoning.from_pretrained(tmp_path / name) for name in ("zip", "legacy", "safetensors")]
    for model in models:
        own = model.state_dict()
        assert len(own) == len(state)
        assert torch.equal(own["model.stack.2.qkv_proj.weight"], state["L_level.layers.1.self_attn.qkv_proj.weight"])
        assert all(torch.equal(tensor, models[0].state_dict()[name]) for name, tensor in own.items())


@pytest.mark.parametrize("wrapped", ["L_level._orig_mod.layers.", "L_level.module._orig_mod.layers."])
def test_wrappers_inside_a_name_are_taken_off(
    wrapped: str, save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    """torch.compile and DistributedDataParallel of a part put their names in the middle."""
    state = {name.replace("L_level.layers.", wrapped): tensor for name, tensor in state_of(ATTENTION).items()}
    convert_reference(save_reference(ATTENTION, state=state, prefix="model._orig_mod.inner."), tmp_path / "out")
    own = TRMForGridReasoning.from_pretrained(tmp_path / "out").state_dict()
    for number, name in ((0, "self_attn.qkv_proj"), (3, "mlp.down_proj")):
        theirs = state[f"{wrapped}{number // 2}.{name}.weight"]
        assert torch.equal(own[f"model.stack.{number}.{name.partition('.')[2]}.weight"], theirs)


def test_buffers_that_are_computed_are_left_out(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    """The reference's own optimiser keeps the batch's rows of the table there; others save their rotary tables."""
    plain = state_of(ATTENTION, rows=3)
    convert_reference(save_reference(ATTENTION, state=plain), tmp_path / "plain")
    buffers = {
        "puzzle_emb.local_ids": torch.zeros(4, dtype=torch.int32),
        "puzzle_emb.local_weights": torch.full((4, 32), float("nan")),
        "rotary_emb.cos_cached": torch.ones(97, 8),
        "L_level.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    facts = convert_reference(save_reference(ATTENTION, state=plain | buffers), tmp_path / "out")
    assert facts["left out"] == f"{', '.join(sorted(buffers))}: buffers that are computed, not learnt"
    assert facts["left out"] in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    own, expected = (TRMForGridReasoning.from_pretrained(tmp_path / name).state_dict() for name in ("out", "plain"))
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())


def test_precision_is_the_files_and_the_widest_of_several(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    facts = convert_reference(save_reference(ATTENTION, dtype=torch.bfloat16), tmp_path / "narrow")
    assert facts["precision"] == "bfloat16"
    assert {t.dtype for t in TRMForGridReasoning.from_pretrained(tmp_path / "narrow").state_dict().values()} == {
        torch.bfloat16
    }
    state = state_of(ATTENTION)
    state |= {name: state[name].bfloat16() for name in ("H_init", "L_init")}  # what the reference itself writes
    facts = convert_reference(save_reference(ATTENTION, state=state), tmp_path / "mixed")
    assert facts["precision"].startswith("float32, the widest of bfloat16, float32; the reference computes in bfloat16")
    model = TRMForGridReasoning.from_pretrained(tmp_path / "mixed")
    assert torch.equal(model.model.H_init, state["H_init"].float())


def test_an_entry_is_chosen_and_lends_its_buffers(tmp_path: Path) -> None:
    """An EMA is an average of the parameters: no initial latents, no table."""
    plain = {f"{PREFIX}{name}": tensor for name, tensor in state_of(ATTENTION, rows=3).items()}
    buffers = ("_init", "puzzle_emb.weights")
    ema = {name: tensor * 0.5 for name, tensor in plain.items() if not name.endswith(buffers)}
    path = tmp_path / "both.pt"
    optimiser = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}
    torch.save({"model": plain, "ema": {"shadow": ema, "mu": 0.999}, "optimizer": optimiser, "step": 5}, path)
    options = {**CYCLES, "num_heads": 4}
    with pytest.raises(ConversionError, match=r"2 state dicts: model, ema.shadow; say which with --entry NAME"):
        convert_reference(path, tmp_path / "out", options=options)
    with pytest.raises(ConversionError, match=r"no entry 'ema'; allowed: model, ema.shadow"):
        convert_reference(path, tmp_path / "out", options=options, entry="ema")
    facts = convert_reference(path, tmp_path / "out", options=options, entry="ema.shadow")
    assert facts["entry"] == "ema.shadow (of model, ema.shadow)"
    assert facts["H_init"] == "from entry model: ema.shadow does not hold it"
    model = TRMForGridReasoning.from_pretrained(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, 0.5 * plain[f"{PREFIX}lm_head.weight"])
    assert torch.equal(model.model.H_init, plain[f"{PREFIX}H_init"])
    assert torch.equal(model.model.puzzle_emb.weight, plain[f"{PREFIX}puzzle_emb.weights"])


def test_a_table_left_out_is_one_blank_row(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    state = state_of(MLP_T)
    del state["puzzle_emb.weights"]
    path = save_reference(MLP_T, state=state, config=False)
    facts = convert_reference(path, tmp_path / "out", options=CYCLES)  # mlp_t's weights tell the length of the prefix
    assert facts["puzzle table"] == "none in the file: one blank row of zeros"
    model = TRMForGridReasoning.from_pretrained(tmp_path / "out")
    assert torch.equal(model.model.puzzle_emb.weight, torch.zeros(1, 32))


TASKS = {"maze": (6, 900, {}), "arc": (12, 900, {}), "grid": (7, 12, {"alphabet": "abcdef", "grid_shape": (3, 4)})}


@pytest.mark.parametrize("task", TASKS)
def test_tasks(task: str, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    vocabulary, cells, more = TASKS[task]
    sizes = {**ATTENTION, "vocab_size": vocabulary, "seq_len": cells}
    path = save_reference(ATTENTION, state=reference.random_state_dict(sizes))
    if task == "grid":
        with pytest.raises(ConversionError, match="7 token ids, which tells no task; add --task"):
            convert_reference(path, tmp_path / "out")
        more = {"task": "grid", **more}
    convert_reference(path, tmp_path / "out", **more)
    processor = GridProcessor.from_pretrained(tmp_path / "out")
    assert (processor.task, TRMConfig.from_pretrained(tmp_path / "out").seq_len) == (task, cells)
    with pytest.raises(ConversionError, match=rf"{vocabulary} token ids \(tensors\), --task sudoku needs 11"):
        convert_reference(path, tmp_path / "other", task="sudoku")


def test_identifiers_name_the_rows_of_the_table(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    names = ["<blank>", "00576224", "00576224|||t1|||0213456789", "0a1d4ef5"]
    (tmp_path / "identifiers.json").write_text(json.dumps(names), encoding="utf-8")
    path = save_reference(
        ATTENTION, state=reference.random_state_dict({**ATTENTION, "vocab_size": 12, "seq_len": 900}, 4)
    )
    facts = convert_reference(path, tmp_path / "out", identifiers=tmp_path / "identifiers.json", subset="evaluation")
    assert facts["identifiers"] == "identifiers.json: 2 tasks, named evaluation/..."
    model = TRMForGridReasoning.from_pretrained(tmp_path / "out", puzzle_tasks=["evaluation/00576224"])
    assert model.puzzle_index.tasks == ("evaluation/00576224",)
    state = torch.load(path)
    assert torch.equal(model.model.puzzle_emb.weight, state[f"{PREFIX}puzzle_emb.weights"][:3])
    assert np.array_equal(model.puzzle_index.augmentation_of_row[2], [6, 0, 2, 1, *range(3, 10)])


def test_the_card_and_the_record_hold_the_facts(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION)
    facts = convert_reference(path, tmp_path / "out", command="python scripts/convert_reference.py run --output out")
    record = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["conversion"]
    assert record["facts"] == facts
    assert record["source"] == "step_100"
    assert len(record["sha256"]) == 64
    assert facts["command"].endswith("--output out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert all(text in card for text in (record["sha256"], "step_100", *facts.values()))
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "puzzle_table.safetensors", "modeling_trm.py"} <= names
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_an_output_folder_with_something_in_it_is_left_alone(
    save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    path = save_reference(ATTENTION)
    (tmp_path / "empty").mkdir()
    convert_reference(path, tmp_path / "empty")
    before = sorted((tmp_path / "empty").iterdir())
    with pytest.raises(ValueError, match="exists and is not empty; give one that is new or empty"):
        convert_reference(path, tmp_path / "empty")
    assert sorted((tmp_path / "empty").iterdir()) == before


def test_a_failure_while_writing_leaves_nothing(
    save_reference: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_reference(ATTENTION)
    monkeypatch.setattr(GridProcessor, "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        convert_reference(path, tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []
