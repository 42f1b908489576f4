"""Weights are verified by their contents: a flipped bit is named, by loading and by the doctor."""

from pathlib import Path

import pytest

from modeling_trm import GridProcessor
from modeling_trm.doctor.checkpoints import check_checkpoints
from modeling_trm.utils.files import write_json
from modeling_trm.utils.loading import CheckpointError, load_model
from modeling_trm.utils.manifest import weights_sha256


@pytest.fixture
def folder(tiny_model, tmp_path: Path) -> Path:
    tiny_model("trm-mlp-t").save_pretrained(tmp_path)
    GridProcessor("grid", grid_shape=(4, 4), alphabet=".1234").save_pretrained(tmp_path)
    return tmp_path


def test_a_flipped_bit_is_named(folder: Path) -> None:
    write_json(folder / "metrics.json", {"weights": weights_sha256(folder)})
    load_model(str(folder), verify=True)
    assert [finding.fatal for finding in check_checkpoints([str(folder)])] == [False]
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1  # in the last number: it stays finite, and loads
    weights.write_bytes(content)
    load_model(str(folder))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: the SHA-256 is not the one in metrics\.json"):
        load_model(str(folder), verify=True)
    (finding,) = check_checkpoints([str(folder)])
    assert finding.fatal
    assert "model.safetensors" in finding.value


def test_nothing_to_compare_with_is_not_verified(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="names no SHA-256 of the weights: they cannot be verified"):
        load_model(str(folder), verify=True)
