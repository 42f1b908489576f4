"""Round trips through a folder, in this process: every tensor and every output bit for bit; and what does not fit."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

from modeling_trm import GridProcessor, TRMConfig, TRMForGridReasoning, TRMModel
from tests.conftest import ONE_OF_A_KIND

VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "everything optional": {
        "position_embedding": "learned",
        "mlp_gate": "normalized",
        "mlp_gate_bias": 1.0,
        "mamba_n_groups": 2,
        "blank_token_id": 1,
    },
    "one latent, no prefix": {"num_latents": 1, "puzzle_prefix_len": 0, "num_puzzles": 1},
}


def assert_same_function(one: TRMForGridReasoning, two: TRMForGridReasoning) -> None:
    """Every parameter and buffer, and two supervision steps, bit for bit."""
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = (dict(getattr(model, kind)()) for model in (one, two))
        assert set(ours) == set(theirs)
        for name, value in ours.items():
            assert value.dtype == theirs[name].dtype, name
            assert torch.equal(value, theirs[name]), name
    ids = torch.randint(one.config.vocab_size, (3, one.config.seq_len))
    state = other_state = None
    with torch.no_grad():
        for _ in range(2):
            out, other = one(ids, state=state), two(ids, state=other_state)
            assert torch.equal(out.logits, other.logits)
            assert torch.equal(out.halt_logits, other.halt_logits)
            assert torch.equal(out.state.z_H, other.state.z_H)
            state, other_state = out.state, other.state


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_round_trip_is_bit_exact(
    preset: str, variant: str, tiny_model: Callable[..., TRMForGridReasoning], tmp_path: Path
) -> None:
    model = tiny_model(preset, **VARIANTS[variant])
    has_table = model.config.puzzle_prefix_len > 0
    model.save_pretrained(tmp_path)
    for loaded in (TRMForGridReasoning.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is TRMForGridReasoning
        assert not loaded.training
        assert_same_function(model, loaded)
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    saved = sorted(tmp_path.glob("*.safetensors"))
    assert [path.name for path in saved] == ["model.safetensors", "puzzle_table.safetensors"][: 1 + has_table]
    for path in saved:
        assert (again / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_every_buffer_is_saved(preset: str, tiny_model) -> None:
    """transformers loads on the meta device: a buffer that is not in the file would come back as garbage."""
    model = tiny_model(preset)
    assert {name for name, _ in model.named_buffers()} <= set(model.state_dict())
    assert all(value.device.type == "cpu" for value in (*model.buffers(), *model.parameters()))


def test_folder_holds_everything_that_the_hub_needs(tiny_model, tmp_path: Path) -> None:
    tiny_model("tr-mamba2mlpt").save_pretrained(tmp_path)
    GridProcessor("sudoku", grid_shape=(4, 4)).save_pretrained(tmp_path)
    package = Path(__file__).parents[2] / "modeling_trm"
    saved = {path.name: path for path in tmp_path.iterdir()}
    assert set(saved) - {"README.md"} == {
        "config.json",
        "model.safetensors",
        "puzzle_table.safetensors",
        "preprocessor_config.json",
        "reasoning_config.json",
        *(path.name for path in package.glob("*_trm.py")),
    }
    for path in package.glob("*_trm.py"):
        assert saved[path.name].read_bytes() == path.read_bytes()
    config = json.loads(saved["config.json"].read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_trm.TRMForGridReasoning"
    assert config["auto_map"]["AutoConfig"] == "configuration_trm.TRMConfig"
    processor = json.loads(saved["preprocessor_config.json"].read_text())
    assert processor["auto_map"]["AutoFeatureExtractor"] == "processing_trm.GridProcessor"


@pytest.mark.parametrize("auto_class", [AutoFeatureExtractor, AutoProcessor])
def test_auto_classes_load_config_and_processor(auto_class: Any, tiny_model, tmp_path: Path) -> None:
    model, processor = tiny_model("trm-attn"), GridProcessor("sudoku", grid_shape=(4, 4))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is TRMConfig
    loaded = auto_class.from_pretrained(tmp_path)
    assert type(loaded) is GridProcessor
    assert loaded == processor
    assert torch.equal(loaded("1.3.....2...4...")["input_ids"], processor("1.3.....2...4...")["input_ids"])


def test_the_installed_class_wins_over_the_code_in_the_folder(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("trm-attn")
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    assert_same_function(model, loaded)


def test_sharded_weights_load(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("tr-mamba2attn")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same_function(model, AutoModel.from_pretrained(tmp_path))


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_bf16_weights_run_train_and_survive_a_round_trip(preset: str, tiny_model, tiny_batch, tmp_path: Path) -> None:
    model = tiny_model(preset)
    model.save_pretrained(tmp_path)
    narrow = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in (*narrow.parameters(), *narrow.buffers())} == {torch.bfloat16}
    batch = tiny_batch(model.config)
    out = narrow(**batch)
    out.loss.backward()
    assert out.logits.dtype == out.state.z_H.dtype == torch.bfloat16
    assert all(p.grad.to_dense().isfinite().all() for p in narrow.parameters())
    expected = model(**batch).logits
    # One step of a tiny model in 8 bits: 10 % of the root mean square.
    assert (out.logits.float() - expected).square().mean().sqrt() < 0.1 * expected.square().mean().sqrt()
    assert narrow.solve(batch["input_ids"]).halt_probability.isfinite().all()
    narrow.save_pretrained(tmp_path / "narrow")
    assert_same_function(narrow, AutoModel.from_pretrained(tmp_path / "narrow", dtype="auto"))


def test_the_trunk_loads_alone(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("tr-mamba2attn")
    model.save_pretrained(tmp_path)
    trunk = TRMModel.from_pretrained(tmp_path)
    for name, value in model.model.state_dict().items():
        assert torch.equal(trunk.state_dict()[name], value), name


# --- what does not fit ----------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tiny_model, tmp_path: Path) -> Path:
    tiny_model("tr-mamba2attn").save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("field", "value"), [("L_cycles", 5), ("H_cycles", 1), ("blank_token_id", 1), ("ssd_backend", "torch")]
)
def test_overrides_at_load_time_are_taken(field: str, value: Any, checkpoint: Path) -> None:
    config = TRMForGridReasoning.from_pretrained(checkpoint, **{field: value}).config
    assert vars(config)[field] == value


def test_the_choice_of_kernels_is_the_models_and_not_the_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    model = TRMForGridReasoning.from_pretrained(checkpoint, ssd_backend="torch")
    model.set_kernels(attention_backend="math")
    assert (model.config.ssd_backend, model.config.attention_backend) == ("torch", "math")
    model.save_pretrained(tmp_path / "again")
    again = TRMForGridReasoning.from_pretrained(tmp_path / "again").config
    assert (again.ssd_backend, again.attention_backend, again.mlp_t_backend) == ("auto", "auto", "auto")


def test_set_kernels_names_what_is_wrong_and_changes_nothing(tiny_model) -> None:
    model = tiny_model("tr-mamba2attn", mamba_d_state=13)
    before = copy.deepcopy(model.config)
    for wrong, named in (
        ({"ssd_backend": "gpu"}, "ssd_backend"),
        ({"ssd": "torch"}, "set_kernels knows no ssd; allowed: attention_backend, mlp_t_backend, ssd_backend"),
        ({"attention_backend": "math", "ssd_backend": "cuda"}, "ssd_backend='cuda' needs"),
    ):
        with pytest.raises((TypeError, ValueError, StrictDataclassError), match=named):
            model.set_kernels(**wrong)
        assert model.config == before


def test_portable_kernels_are_those_of_the_moment(tiny_model) -> None:
    model = tiny_model("tr-mamba2attn", attention_backend="math", ssd_backend="triton")
    ids = torch.zeros(1, 16, dtype=torch.long)
    with model.portable_kernels():
        assert (model.config.attention_backend, model.config.ssd_backend) == ("auto", "torch")
        model(ids)
    assert (model.config.attention_backend, model.config.ssd_backend) == ("math", "triton")
    with pytest.raises((RuntimeError, ImportError), match="ssd_backend='triton' cannot be used"):
        model(ids)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ({"num_attention_heads": 3}, "num_attention_heads=3"),
        ({"L_cycles": 0}, "L_cycles=0"),
        ({"num_latents": 3}, "num_latents"),
        ({"ssd_backend": "gpu"}, "ssd_backend"),
        ({"blank_token_id": 99}, "blank_token_id=99"),
        ({"hidden_sise": 64}, "hidden_sise"),
        ({"block_operators": ["mamba2", "mamba2", "atention", "mlp"]}, "atention"),
    ],
    ids=str,
)
@pytest.mark.parametrize("auto", [TRMForGridReasoning, AutoModel], ids=["class", "auto"])
def test_bad_overrides_at_load_time_are_refused(
    auto: Any, override: dict[str, Any], named: str, checkpoint: Path
) -> None:
    with pytest.raises(Exception, match=named) as error:
        auto.from_pretrained(checkpoint, **override)
    assert type(error.value).__name__ in ("ValueError", "TypeError", "StrictDataclassFieldValidationError")


@pytest.mark.parametrize("preset", [preset for preset in ONE_OF_A_KIND if preset != "tr-mamba2attn"])
def test_a_checkpoint_of_another_preset_is_refused_by_name(
    preset: str, checkpoint: Path, tiny_config: Callable[..., TRMConfig]
) -> None:
    """transformers alone would warn and leave the missing weights at random."""
    config = tiny_config(preset)
    with pytest.raises(ValueError, match="checkpoint does not fit") as error:
        TRMForGridReasoning.from_pretrained(checkpoint, config=config)
    assert str(config.block_operators) in str(error.value)
    assert "model.stack." in str(error.value)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ({"hidden_size": 64}, ["hidden_size=64", "lm_head.weight [6, 32] instead of [6, 64]"]),
        ({"vocab_size": 7}, ["model.embed_tokens.weight [6, 32] instead of [7, 32]"]),
        ({"num_latents": 1}, ["num_latents=1", "model.L_init"]),
        ({"position_embedding": "learned"}, ["missing", "model.embed_positions.weight"]),
        ({"mlp_gate_bias": 1.0}, ["missing", "model.stack.3.gate_bias"]),
        ({"block_operators": ["mamba2", "mamba2", "attention"]}, ["model.stack.3.down_proj.weight"]),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_architecture_is_refused_by_name(
    override: dict[str, Any], named: list[str], checkpoint: Path
) -> None:
    with pytest.raises(ValueError, match="checkpoint does not fit") as error:
        AutoModel.from_pretrained(checkpoint, **override)
    for text in named:
        assert text in str(error.value)


def test_another_size_is_allowed_when_asked_for(checkpoint: Path) -> None:
    """A larger vocabulary on trained weights: what depends on it is fresh, everything else is the checkpoint's."""
    model, info = TRMForGridReasoning.from_pretrained(
        checkpoint, vocab_size=9, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert sorted(key for key, *_ in info["mismatched_keys"]) == ["lm_head.weight", "model.embed_tokens.weight"]
    assert model.lm_head.weight.shape == (9, 32)
    whole = TRMForGridReasoning.from_pretrained(checkpoint)
    assert torch.equal(model.q_head.weight, whole.q_head.weight)
    assert torch.equal(model.model.puzzle_emb.weight, whole.model.puzzle_emb.weight)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing_here"):
        TRMForGridReasoning.from_pretrained(tmp_path / "nothing_here")


@pytest.mark.parametrize("auto", [TRMForGridReasoning, AutoModel, TRMModel], ids=["class", "auto", "trunk"])
def test_a_truncated_weight_file_is_an_error(auto: Any, checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors, [\d,]+ bytes, is damaged or no safetensors file"):
        auto.from_pretrained(checkpoint)


@pytest.mark.parametrize("auto", [TRMForGridReasoning, AutoModel, TRMModel], ids=["class", "auto", "trunk"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_weights_that_are_no_numbers_are_refused_by_name(value: float, auto: Any, tiny_model, tmp_path: Path) -> None:
    model = tiny_model("tr-mamba2attn")
    model.model.stack[0].A_log.data[1] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 weights \(.*stack\.0\.A_log\)"):
        auto.from_pretrained(tmp_path)


def test_a_pickle_is_opened_only_on_request(checkpoint: Path) -> None:
    whole = TRMForGridReasoning.from_pretrained(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    torch.save(whole.state_dict(), checkpoint / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"pytorch_model\.bin: pickles can hold code and are not opened"):
        TRMForGridReasoning.from_pretrained(checkpoint)


def test_a_model_whose_config_got_attributes_is_saved_and_loaded_again(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("trm-attn")
    added = {"pad_token_id": 0, "my_note": "mine", "license": "mit", "tie_word_embeddings": True}
    added["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    for name, value in added.items():
        setattr(model.config, name, value)
    model.save_pretrained(tmp_path)
    for loaded in (TRMForGridReasoning.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(TypeError, match="hiden_size"):
        TRMForGridReasoning.from_pretrained(tmp_path, hiden_size=32)
