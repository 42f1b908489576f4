"""TRMConfig: what it refuses and what the message names, presets, and every way to write it down and read it back."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from modeling_trm import OPERATORS, PRESETS, TRMConfig, TRMForGridReasoning
from modeling_trm.configuration_trm import KERNELS

# A legal value other than the default for every field that TRMConfig declares.
CHANGED: dict[str, Any] = {
    "vocab_size": 6,
    "seq_len": 16,
    "num_puzzles": 3,
    "puzzle_prefix_len": 2,
    "puzzle_conditioning": "cells",
    "hidden_size": 64,
    "block_operators": ["mamba2", "attention", "mlp_t"],
    "operator_options": {"mlp_t": {}},
    "H_cycles": 2,
    "L_cycles": 5,
    "num_latents": 1,
    "halt_max_steps": 7,
    "symbol_fields": True,
    "num_special_tokens": 1,
    "puzzle_symbol_width": 4,
    "symbol_mixing": "mean",
    "scan_orders": ["raster", "reversed"],
    "grid_width": 8,
    "num_attention_heads": 4,
    "attention_backend": "math",
    "rope_theta": 500.0,
    "position_embedding": "learned",
    "position_std": 0.1,
    "head_init": "embedding",
    "mlp_expansion": 2.5,
    "mlp_multiple_of": 8,
    "mlp_gate": "normalized",
    "mlp_gate_bias": 1.0,
    "mlp_t_norm": "channels",
    "mlp_t_backend": "torch",
    "mamba_d_state": 16,
    "mamba_d_conv": 3,
    "mamba_expand": 1,
    "mamba_head_dim": 16,
    "mamba_n_groups": 2,
    "mamba_rope_fraction": 1.0,
    "mlp_conv_kernel": 3,
    "conv2d_kernel": 5,
    "axial_lines": ["boxes", "rows"],
    "axial_heads": 2,
    "axial_head_dim": 16,
    "delta_heads": 3,
    "delta_key_dim": 16,
    "delta_value_dim": 24,
    "delta_d_conv": 2,
    "ssd_backend": "torch",
    "rms_norm_eps": 1e-6,
    "initial_state_std": 0.5,
    "halt_bias": -1.0,
    "halt_pooling": "mean",
    "blank_token_id": 1,
    "num_step_embeddings": 2,
    "answer_feedback": True,
}
# Those whose message is about a value of their own, or for which 0 is a value like any other.
OTHER_THAN_POSITIVE = {
    *(
        "puzzle_prefix_len",
        "puzzle_conditioning",
        "block_operators",
        "operator_options",
        "num_latents",
        "position_embedding",
        "mlp_gate",
        "mlp_gate_bias",
    ),
    *("ssd_backend", "initial_state_std", "halt_bias", "blank_token_id", "position_std", "head_init", "mlp_t_norm"),
    *(
        "num_step_embeddings",
        "answer_feedback",
        "halt_pooling",
        "attention_backend",
        "mlp_t_backend",
        "mamba_rope_fraction",
    ),
    *("symbol_fields", "num_special_tokens", "symbol_mixing", "scan_orders", "grid_width", "axial_lines"),
}
POSITIVE = sorted(CHANGED.keys() - OTHER_THAN_POSITIVE)
MAMBA = {"block_operators": ["mamba2"]}

# values -> what the message must name: the field, the value, and what is allowed or what it clashes with.
BAD: list[tuple[dict[str, Any], list[str]]] = [
    *[({name: type(CHANGED[name])(0)}, [f"{name}=0", "greater than 0"]) for name in POSITIVE],
    ({"L_cycles": -1}, ["L_cycles=-1", "greater than 0"]),
    ({"mlp_expansion": 0.001}, ["mlp_expansion=0.001 of width 512", "inner width 0", "more than 0.00146"]),
    ({"mlp_expansion": 0.0015, "block_operators": ["mlp_t", "mlp"], "puzzle_prefix_len": 0}, ["of width 81"]),
    ({"puzzle_prefix_len": -1}, ["puzzle_prefix_len=-1", "0 or more"]),
    ({"puzzle_prefix_len": 0, "num_puzzles": 2}, ["num_puzzles=2", "puzzle_prefix_len"]),
    ({"puzzle_prefix_len": 0, "puzzle_conditioning": "cells"}, ["puzzle_conditioning='cells'", "puzzle_prefix_len=0"]),
    ({"puzzle_conditioning": "cell"}, ["puzzle_conditioning", "cell", "'prefix'", "'cells'"]),
    ({"halt_pooling": "last"}, ["halt_pooling", "last", "'first'", "'mean'"]),
    ({"puzzle_symbol_width": 3}, ["puzzle_symbol_width=3", "does not divide", "hidden_size=512"]),
    ({"num_step_embeddings": -1}, ["num_step_embeddings=-1", "0 or more"]),
    ({"initial_state_std": -0.5}, ["initial_state_std=-0.5", "0 or more"]),
    ({"position_std": -1.0}, ["position_std=-1.0", "0 or more"]),
    ({"blank_token_id": 12}, ["blank_token_id=12", "0..11"]),
    ({"blank_token_id": -1}, ["blank_token_id=-1", "0..11"]),
    ({"block_operators": []}, ["block_operators", "empty"]),
    ({"block_operators": "attention"}, ["block_operators", "expected a list, got str"]),
    ({"operator_options": {"mpl": {}}}, ["'mpl'", "did you mean 'mlp'", "allowed: attention, mlp"]),
    ({"operator_options": {"mlp": {"width": 3}}}, ["{'width': 3}", "'width'", "allowed: none", "Mlp.__init__"]),
    ({"operator_options": {"mlp": {"width": (3, 4)}}}, ["(3, 4)", "lists and dicts"]),
    ({"operator_options": {"mlp": {"width": math.nan}}}, ["nan", "finite numbers"]),
    ({"operator_options": {"mlp": 3}}, ["operator_options", "dict"]),
    ({"hidden_size": 65}, ["hidden_size=65", "num_attention_heads=8"]),
    ({"num_attention_heads": 7}, ["hidden_size=512", "num_attention_heads=7"]),
    ({"hidden_size": 24}, ["hidden_size=24", "num_attention_heads=8", "heads of 3", "rope", "even"]),
    ({"hidden_size": 48, "position_embedding": "rope2d"}, ["hidden_size=48", "heads of 6", "rope2d", "4 divides"]),
    ({"seq_len": 80, "position_embedding": "sincos2d"}, ["80 cells", "grid_width=None", "square"]),
    ({"hidden_size": 42, "num_attention_heads": 7, "position_embedding": "sincos2d"}, ["hidden_size=42", "of 4"]),
    ({"seq_len": 80, "position_embedding": "rope2d"}, ["80 cells", "grid_width=None", "square"]),
    ({"seq_len": 80, "scan_orders": ["raster", "transposed"]}, ["80 cells", "grid_width=None"]),
    ({"seq_len": 80, "block_operators": ["conv2d"]}, ["80 cells", "grid_width=None"]),
    ({"conv2d_kernel": 4}, ["conv2d_kernel=4", "1, 3, 5"]),
    ({"seq_len": 80, "block_operators": ["axial"]}, ["80 cells", "grid_width=None"]),
    ({"axial_lines": ["rows", "diagonals"]}, ["axial_lines[1]='diagonals'", "rows, columns, boxes"]),
    ({"axial_lines": []}, ["axial_lines is empty", "rows, columns, boxes"]),
    (
        {"seq_len": 900, "block_operators": ["axial"], "axial_lines": ["boxes"]},
        ["axial_lines=['boxes']", "30x30", "4, 9, 16, 25"],
    ),
    ({"grid_width": 7}, ["81 cells", "grid_width=7", "divides"]),
    ({"grid_width": 0}, ["grid_width=0", "greater than 0"]),
    ({"scan_orders": []}, ["scan_orders", "empty", "raster"]),
    ({"scan_orders": ["raster", "transposd"]}, ["scan_orders[1]='transposd'", "raster, transposed"]),
    ({"block_operators": ["symbols"]}, ["'symbols'", "symbol_fields=True"]),
    ({"symbol_fields": True, "num_special_tokens": 11}, ["vocab_size=12", "num_special_tokens=11", "1 symbols"]),
    ({"num_special_tokens": -1}, ["num_special_tokens=-1", "0 or more"]),
    ({"symbol_mixing": "sum"}, ["symbol_mixing", "sum", "'attention'", "'mean'"]),
    ({"mamba_head_dim": 48, **MAMBA}, ["mamba_expand * hidden_size = 1024", "mamba_head_dim=48"]),
    ({"mamba_n_groups": 3, **MAMBA}, ["mamba_n_groups=3", "16"]),
    ({"mamba_n_groups": 3, "block_operators": ["mamba3"]}, ["mamba_n_groups=3", "16"]),
    ({"mamba_rope_fraction": 0.25}, ["mamba_rope_fraction=0.25", "0.5 and 1"]),
    ({"mamba_d_state": 2, "block_operators": ["mamba3"]}, ["mamba_d_state=2", "a pair to rotate"]),
    ({"mamba_d_conv": 5, "ssd_backend": "cuda", **MAMBA}, ["ssd_backend='cuda'", "mamba_d_conv=5", "2..4"]),
    ({"mamba_d_state": 127, "ssd_backend": "cuda", **MAMBA}, ["ssd_backend='cuda'", "2318", "multiple of 8"]),
    ({"mlp_expansion": 1e308}, ["mlp_expansion=1e+308 of width 512", "inner width inf"]),
    ({"num_latents": 3}, ["num_latents", "3", "(1, 2)"]),
    ({"position_embedding": "sinus"}, ["position_embedding", "sinus", "'rope'", "'learned'", "'none'"]),
    ({"mlp_gate": "relu"}, ["mlp_gate", "relu", "'silu'", "'normalized'"]),
    ({"ssd_backend": "gpu"}, ["ssd_backend", "gpu", "'auto'", "'torch'", "'cuda'", "'triton'"]),
    ({"attention_backend": "cuda"}, ["attention_backend", "cuda", "'auto'", "'cudnn'", "'flash'", "'math'"]),
    ({"mlp_t_backend": "cuda"}, ["mlp_t_backend", "cuda", "'auto'", "'torch'"]),
    ({"L_cycles": "six"}, ["L_cycles", "int", "'six'"]),
    ({"hidden_size": 512.0}, ["hidden_size", "int", "512.0"]),
]  # fmt: skip
MISSPELT = {
    "hidden_sise": "hidden_size",
    "L_cycle": "L_cycles",
    "h_cycles": "H_cycles",
    "block_operator": "block_operators",
    "mamba_dstate": "mamba_d_state",
    "num_heads": "num_attention_heads",
}


def own_fields() -> set[str]:
    return set(TRMConfig.__annotations__)


def assert_same(one: TRMConfig, two: TRMConfig) -> None:
    for name in own_fields():
        assert vars(one)[name] == vars(two)[name], name


@pytest.mark.parametrize(("values", "named"), BAD, ids=lambda value: str(value)[:60])
def test_a_bad_value_is_refused_by_name(values: dict[str, Any], named: list[str]) -> None:
    with pytest.raises((ValueError, StrictDataclassError)) as error:
        TRMConfig(**values)
    for text in named:
        assert text in str(error.value)


@pytest.mark.parametrize(("key", "near"), MISSPELT.items())
def test_a_misspelt_key_is_refused_with_the_near_miss(key: str, near: str) -> None:
    with pytest.raises(TypeError, match=f"'{key}'; did you mean '{near}'"):
        TRMConfig(**{key: 3})


def test_a_key_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(TypeError, match=r"no field 'zebra'\Z"):
        TRMConfig(zebra=1)


@pytest.mark.parametrize("read", [AutoConfig.from_pretrained, TRMConfig.from_pretrained], ids=["auto", "own"])
def test_keys_of_others_in_a_config_json_are_dropped_and_told(read: Any, tmp_path: Path, caplog) -> None:
    TRMConfig(seq_len=36).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    others = {"L_cycle": 4, "transformers.js_config": {}, "unsloth_version": "1", "quantization_config": {}}
    path.write_text(json.dumps(json.loads(path.read_text()) | others))
    config = read(tmp_path)
    assert not others.keys() & vars(config).keys()
    assert config.seq_len == 36 and config.L_cycles == 6
    assert (
        f"config.json of {tmp_path}: dropped, for TRMConfig has no such field: 'L_cycle'; did you mean 'L_cycles'?"
        in (caplog.text)
    )
    assert all(repr(key) in caplog.text for key in others)
    caplog.clear()
    assert_same(TRMConfig.from_json_file(path), config)
    assert f"config.json of {path}: dropped" in caplog.text


def test_sizes_of_operators_that_are_not_used_do_not_matter() -> None:
    TRMConfig(hidden_size=65, block_operators=["mlp"])
    TRMConfig(mamba_head_dim=48, block_operators=["attention"])
    TRMConfig(hidden_size=24, position_embedding="learned")  # odd heads are fine without rotary embedding


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build_and_take_overrides(preset: str) -> None:
    config = TRMConfig.from_preset(preset, vocab_size=7, L_cycles=4)
    assert config.block_operators == PRESETS[preset]["block_operators"]
    assert set(config.block_operators) <= set(OPERATORS)
    assert (config.vocab_size, config.L_cycles) == (7, 4)
    for name, default in (("H_cycles", 3), ("num_latents", 2), ("hidden_size", 512), ("answer_feedback", False)):
        assert vars(config)[name] == PRESETS[preset].get(name, default)
    assert config.block_operators[-1] in ("mlp", "conv_mlp")
    assert TRMConfig.from_preset(preset, block_operators=["mlp"]).block_operators == ["mlp"]


def test_the_published_presets() -> None:
    """arXiv 2510.04871 (attention, MLP-t), 2602.12078 (Mamba-2, Mamba-2, attention or MLP-t, MLP), 2512.14693 (URM)."""
    assert PRESETS["urm"]["block_operators"] == ["attention", "conv_mlp"] * 4
    assert PRESETS["trm-attn"]["block_operators"] == ["attention", "mlp"] * 2
    assert PRESETS["trm-mlp-t"]["block_operators"] == ["mlp_t", "mlp"] * 2
    assert PRESETS["tr-mamba2attn"]["block_operators"] == ["mamba2", "mamba2", "attention", "mlp"]
    assert PRESETS["tr-mamba2mlpt"]["block_operators"] == ["mamba2", "mamba2", "mlp_t", "mlp"]


def test_an_unknown_preset_is_refused_with_the_near_miss_and_the_list() -> None:
    with pytest.raises(ValueError, match=r"'trm-atn'; did you mean 'trm-attn'.*tr-mamba2mlpt"):
        TRMConfig.from_preset("trm-atn")


def test_an_unknown_operator_is_refused_with_its_index_and_the_list() -> None:
    wrong = r"block_operators\[1\]='atention'.*did you mean 'attention'.*mlp_t.*--import FILE"
    with pytest.raises(StrictDataclassError, match=wrong) as error:
        TRMConfig(block_operators=["mlp", "atention"])
    for name in OPERATORS:
        assert name in str(error.value)
    config = TRMConfig()
    config.block_operators = ["mlp", "atention"]  # as overrides at load time
    with pytest.raises(ValueError, match=wrong):
        TRMForGridReasoning(config)


def test_a_preset_is_not_shared_with_the_configs_made_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "trm-attn", {"block_operators": ["attention", "mlp"]})
    TRMConfig.from_preset("trm-attn").block_operators.append("mlp")
    TRMConfig().block_operators.append("mlp")
    assert TRMConfig.from_preset("trm-attn").block_operators == ["attention", "mlp"]
    assert TRMConfig().block_operators == ["attention", "mlp"]


def test_num_positions_counts_the_prefix() -> None:
    assert TRMConfig(seq_len=81).num_positions == 97
    assert TRMConfig(seq_len=900).num_positions == 916


def test_every_field_has_a_changed_value_here() -> None:
    assert set(CHANGED) == own_fields() - {"model_type"}
    default = TRMConfig()
    assert [name for name, value in CHANGED.items() if vars(default)[name] == value] == []


WRITTEN: dict[str, Callable[[TRMConfig, Path], TRMConfig]] = {
    "to_dict": lambda config, _: TRMConfig.from_dict(config.to_dict()),
    "keywords": lambda config, _: TRMConfig(**config.to_dict()),
    "to_diff_dict": lambda config, _: TRMConfig.from_dict(config.to_diff_dict()),
    "json": lambda config, _: TRMConfig(**json.loads(config.to_json_string(use_diff=False))),
    "json, differences only": lambda config, _: TRMConfig(**json.loads(config.to_json_string())),
    "deep copy": lambda config, _: copy.deepcopy(config),
    "folder": lambda config, folder: (config.save_pretrained(folder), TRMConfig.from_pretrained(folder))[1],
    "folder, AutoConfig": lambda config, folder: (config.save_pretrained(folder), AutoConfig.from_pretrained(folder))[
        1
    ],
}


@pytest.mark.parametrize("way", WRITTEN)
@pytest.mark.parametrize("config", [{}, CHANGED], ids=["defaults", "everything changed"])
def test_a_config_survives_being_written_down(config: dict[str, Any], way: str, tmp_path: Path) -> None:
    original = TRMConfig(**config)
    back = WRITTEN[way](original, tmp_path)
    assert type(back) is TRMConfig
    if way != "deep copy":  # how it runs is not written down
        original = TRMConfig(**{name: value for name, value in config.items() if name not in KERNELS})
    assert_same(back, original)
    back.validate_architecture()


@pytest.mark.parametrize("name", KERNELS)
def test_a_config_json_that_holds_a_choice_of_kernels_is_still_read(name: str, tmp_path: Path) -> None:
    TRMConfig().save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert name not in fields
    (tmp_path / "config.json").write_text(json.dumps(fields | {name: CHANGED[name]}))
    assert vars(TRMConfig.from_pretrained(tmp_path))[name] == CHANGED[name]


def test_config_json_holds_no_training_or_generation_settings(tmp_path: Path) -> None:
    TRMConfig(**CHANGED).save_pretrained(tmp_path)
    saved = set(json.loads((tmp_path / "config.json").read_text()))
    assert own_fields() - {"model_type"} - KERNELS.keys() <= saved
    assert not saved & KERNELS.keys()
    assert saved - own_fields() <= {"auto_map", "model_type", "transformers_version", "dtype", "architectures"}


def test_auto_classes_know_the_type() -> None:
    assert type(AutoConfig.for_model("trm")) is TRMConfig
