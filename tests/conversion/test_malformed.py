"""Damaged files, hostile files and relatives: each refused by name, in one line, and nothing is written."""

import argparse
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modeling_trm.conversion import plain_pickle
from modeling_trm.conversion.checkpoint_file import ConversionError
from modeling_trm.conversion.from_reference import convert_reference
from tests.conversion.conftest import ATTENTION, MLP_T, PREFIX, SIZES
from tests.oracles import reference


def refused(path: Path, tmp_path: Path, message: str, **arguments: Any) -> None:
    with pytest.raises(ConversionError, match=message) as raised:
        convert_reference(path, tmp_path / "out", **arguments)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


class Code:
    """What a pickle runs when it is opened carelessly."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_never_run(zipped: bool, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path, witness = save_reference(ATTENTION), tmp_path / "witness"
    content = {**torch.load(path), "extra": Code(witness)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    refused(path, tmp_path, r"holds more than tensors: it asks to run posix.mkdir; nothing was run")
    assert not witness.exists()


@pytest.mark.parametrize("thing", [np.ones(3), np.float64(1.0), Path("a"), argparse.Namespace(lr=1.0)], ids=type)
def test_what_trainings_store_is_passed_over_beside_weights(
    thing: Any, save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    """Nothing of it is imported or run; among the weights themselves it is named."""
    path = save_reference(ATTENTION)
    weights = torch.load(path)
    torch.save({"model": weights, "more": {"deep": [thing]}}, path)
    convert_reference(path, tmp_path / "converted")
    torch.save({**weights, "mean": thing}, path)
    refused(path, tmp_path, r"'mean' among the weights is (numpy|pathlib|argparse)\..*, not a tensor")


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_plain_pickle_is_named_with_what_it_needs(protocol: int, tmp_path: Path) -> None:
    path, witness = tmp_path / "plain.pkl", tmp_path / "witness"
    path.write_bytes(pickle.dumps({"a": Code(witness), "b": Code(witness)}, protocol))
    refused(path, tmp_path, r"is a plain pickle that needs posix\.mkdir; nothing was run")
    path.write_bytes(pickle.dumps({"weights": [1.0, 2.0]}, protocol))
    refused(path, tmp_path, r"is a plain pickle; nothing was run. Give a file of torch.save or safetensors")
    assert not witness.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_imports_are_listed_once_and_shortened(
    protocol: int, save_reference: Callable[..., Path], tmp_path: Path
) -> None:
    """By Python's own unpickler, which says what it was asked for: the pickle here is harmless."""
    asked: list[str] = []

    class Listening(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found = super().find_class(module, name)
            asked.append(f"{module}.{name}")
            return found

    path = save_reference(ATTENTION)
    path.write_bytes(pickle.dumps([torch.load(path), re.compile("x"), Path, Path("a"), Code], protocol))
    with path.open("rb") as file:
        Listening(file).load()
    names = plain_pickle.imports_of_pickle(path)
    assert names == list(dict.fromkeys(asked))
    refused(path, tmp_path, rf"that needs {re.escape(', '.join(names[:3]))}, \.\.\.; nothing was run")
    path.write_bytes(b"cbuiltins\nint\ncbuiltins\nint\n.")
    assert plain_pickle.imports_of_pickle(path) == ["builtins.int"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_short_is_damaged_or_nothing(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "plain.pkl"
    whole = pickle.dumps({"a": Code(tmp_path / "witness")}, protocol)
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        refused(path, tmp_path, "is damaged: it begins as a pickle" if protocol >= 2 else "is no checkpoint")


def test_a_reason_keeps_its_front_and_ends_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step"
    torch.save({"lm_head.weight": torch.ones(2, 2)}, path)

    def fail(*_: Any, **__: Any) -> None:
        raise pickle.UnpicklingError(f"Weights only load failed.\nWeightsUnpickler error: Odd {'operand ' * 99}")

    monkeypatch.setattr(torch, "load", fail)
    refused(path, tmp_path, r"is damaged: Odd (operand ){10,}\.\.\.$")


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.999])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_truncated(form: str, share: float, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION)
    if form == "legacy":
        torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)
    elif form == "safetensors":
        save_file(torch.load(path), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, tmp_path, "is damaged")


def test_every_record_of_a_zip_is_checked(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(("data/0", "data.pkl", "version"))]
        contents = {name: archive.read(name) for name in names}
    for name, content in contents.items():
        place = whole.index(content[:64], whole.index(name.encode()))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(path, tmp_path, f"is damaged: its record '{name}' does not give the checksum")
    for length in (2, 3, 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, tmp_path, "is damaged: it ends early" if length > 2 else "is no checkpoint|is damaged")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    refused(path, tmp_path, "is damaged")


def test_a_zip_written_without_checksums_is_read(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION)
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(torch.load(path), path)
    finally:
        torch.serialization.set_crc32_options(before)
    convert_reference(path, tmp_path / "out")


def test_no_checkpoint_at_all(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION)
    refused(path.parent, tmp_path, "is a folder; give the checkpoint file in it")
    path.write_bytes(b"")
    refused(path, tmp_path, r"is empty \(0 bytes\)")
    path.write_text("lm_head.weight: 1, 2, 3\n", encoding="utf-8")
    refused(path, tmp_path, "is no checkpoint: neither of torch.save nor safetensors")
    torch.save({"other.weight": torch.ones(2)}, path)
    refused(path, tmp_path, "holds no state dict of a TRM")
    torch.save([torch.ones(2)], path)
    refused(path, tmp_path, "holds no state dict of a TRM")
    refused(path.with_name("missing"), tmp_path, "cannot be read: No such file")


def changed(change: Callable[[dict[str, torch.Tensor]], Any], arch: dict[str, Any] = ATTENTION) -> dict[str, Any]:
    state = reference.random_state_dict({**SIZES, **arch}, 3)
    change(state)
    return state


def poisoned(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda state: state[name].view(-1)[-1:].fill_(value)


DOWN = "L_level.layers.1.mlp.down_proj.weight"
WEIGHTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (lambda s: s.pop(DOWN), rf"1 weight missing \({DOWN}\)"),
    "several missing": (lambda s: [s.pop(n) for n in list(s) if "layers.0" in n], "missing"),
    "no tokens": (lambda s: s.pop("embed_tokens.embedding_weight"), "1 weight missing .embed_tokens"),
    "no latents": (lambda s: s.pop("L_init"), r"1 weight missing \(L_init\)"),
    "extra": (lambda s: s.update({"gate.weight": torch.ones(2)}), r"1 weight unknown \(gate.weight\)"),
    "another shape": (
        lambda s: s.update({DOWN: s[DOWN][:, :-1]}),
        r"down_proj.weight \[32, 255\] instead of \[32, 256\]",
    ),
    "a vector for a matrix": (lambda s: s.update({DOWN: s[DOWN][0]}), r"down_proj.weight \[256\] instead of"),
    "one halting output": (
        lambda s: s.update({"q_head.bias": s["q_head.bias"][:1]}),
        r"q_head.bias \[1\] instead of \[2\]",
    ),
    "grouped attention": (
        lambda s: s.update({"L_level.layers.0.self_attn.qkv_proj.weight": torch.ones(64, 32)}),
        r"qkv_proj.weight \[64, 32\] instead of \[96, 32\]",
    ),
    "NaN": (poisoned(DOWN, float("nan")), f"{DOWN} holds NaN or infinity"),
    "infinity in the table": (poisoned("puzzle_emb.weights", float("inf")), "puzzle_emb.weights holds NaN or infinity"),
    "integers": (lambda s: s.update({"q_head.bias": torch.ones(2, dtype=torch.int64)}), "q_head.bias is torch.int64"),
    "fp8": (
        lambda s: s.update({"lm_head.weight": s["lm_head.weight"].to(torch.float8_e4m3fn)}),
        "lm_head.weight is torch.float8_e4m3fn; allowed: dense torch.float16, torch.bfloat16, torch.float32, torch",
    ),
    "complex": (lambda s: s.update({"L_init": s["L_init"].to(torch.complex64)}), "L_init is torch.complex64; allowed"),
    "sparse": (
        lambda s: s.update({"lm_head.weight": s["lm_head.weight"].to_sparse()}),
        "lm_head.weight is torch.float32 of layout torch.sparse_coo; allowed: dense",
    ),
    "meta": (lambda s: s.update({DOWN: s[DOWN].to("meta")}), rf"{DOWN} is torch.float32 on the meta device"),
    "a stray layer": (
        lambda s: s.update({"L_level.layers.3000000.mlp.down_proj.weight": torch.ones(1)}),
        r"has weights of L_level.layers.3000000, but layer 2 is missing; allowed: layers 0 to 2 for 3 of them",
    ),
    "no first layer": (
        lambda s: [s.pop(n) for n in list(s) if "layers.0" in n],
        r"has weights of L_level.layers.1, but layer 0 is missing",
    ),
    "a number among them": (lambda s: s.update({"q_head.bias": 3.0}), "'.*q_head.bias' among the weights is float"),
    "both mixers": (
        lambda s: s.update({"L_level.layers.0.mlp_t.down_proj.weight": torch.ones(97, 512)}),
        "has layers with self_attn and with mlp_t",
    ),
    "a wide table": (
        lambda s: s.update({"puzzle_emb.weights": torch.ones(3, 33)}),
        "puzzle_emb_ndim=32 .* puzzle_emb_ndim=33",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # of torch 2.11, which reads the sparse one
@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(case: str, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    change, message = WEIGHTS[case]
    refused(save_reference(ATTENTION, state=changed(change)), tmp_path, message)


def test_a_table_wider_than_the_model(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    wide = {**ATTENTION, "puzzle_emb_ndim": 64}
    refused(save_reference(wide), tmp_path, r"rows of the puzzle table have 64 numbers; allowed: up to hidden_size=32")


def test_one_name_under_two_prefixes(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION)
    torch.save({**torch.load(path), "model.lm_head.weight": torch.ones(11, 32)}, path)
    refused(path, tmp_path, "two weights are named lm_head.weight, under different prefixes")


RELATIVES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "EqR": (lambda s: [s.pop(n) for n in ("H_init", "L_init", "puzzle_emb.weights")], r"of EqR: .* \(no H_init"),
    "trm_singlez": (lambda s: s.pop("H_init"), r"trm_singlez .* no input injection, which ours has"),
    "trm_hier6": (lambda s: s.update({f"L{i}_init": s["L_init"] for i in range(1, 7)}), "trm_hier6"),
    "HRM": (
        lambda s: s.update({n.replace("L_level", "H_level"): t for n, t in list(s.items()) if "L_level" in n}),
        "of HRM",
    ),
    "transformers_baseline": (
        lambda s: [s.update({n.replace("L_level", "H_level"): s.pop(n)}) for n in list(s) if "L_level" in n],
        "transformers_baseline",
    ),
}


@pytest.mark.parametrize("relative", RELATIVES)
def test_relatives_are_refused_by_name(relative: str, save_reference: Callable[..., Path], tmp_path: Path) -> None:
    change, message = RELATIVES[relative]
    refused(save_reference(ATTENTION, state=changed(change)), tmp_path, message)


def test_inner_widths_that_no_expansion_gives(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    def widen(state: dict[str, torch.Tensor]) -> None:
        for i in range(2):
            state[f"L_level.layers.{i}.mlp.gate_up_proj.weight"] = torch.ones(2 * 2560, 32)
            state[f"L_level.layers.{i}.mlp.down_proj.weight"] = torch.ones(32, 2560)

    path = save_reference(MLP_T, state=changed(widen, MLP_T), config=False)
    refused(
        path,
        tmp_path,
        r"no expansion gives the inner widths 2560 over 32, 512 over 97",
        options={"H_cycles": 1, "L_cycles": 1},
    )


def test_yaml_files_that_are_none(save_reference: Callable[..., Path], tmp_path: Path) -> None:
    path = save_reference(ATTENTION)
    for text, message in (("a: [", "cannot be read as YAML"), ("- 1", "no arch section"), ("lr: 1", "no arch section")):
        path.with_name("all_config.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ConversionError, match=message):
            convert_reference(path, tmp_path / "out")
    with pytest.raises(ConversionError, match=re.escape(f"{tmp_path / 'no.yaml'}: cannot be read")):
        convert_reference(path, tmp_path / "out", arch=tmp_path / "no.yaml")
    assert PREFIX in next(iter(torch.load(path)))
