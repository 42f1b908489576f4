"""A full disk: the message names the file, what it needs and what is intact; nothing is half written. POSIX."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from modeling_trm import GridProcessor
from modeling_trm.cards.card import write_model_card
from modeling_trm.cards.update import WORKPLACE, CardUpdate
from modeling_trm.conversion.to_reference import export_reference
from modeling_trm.exporting.programs import save_program
from modeling_trm.training.checkpointing import newest_checkpoint, save_checkpoint
from modeling_trm.training.run_folder import RunLog, save_model
from modeling_trm.utils.files import write_text
from modeling_trm.utils.outputs import new_folder
from tests.robustness.scenarios import content


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can be longer than this: what a full disk is to who writes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def told_without_change(folder: Path, name: str, need: str, kept: str = "what was there is intact") -> Iterator[None]:
    """Writing `name` in the folder is refused for want of room, and afterwards the folder is as it was."""
    before = content(folder)
    with pytest.raises(OSError, match=rf"{need} bytes to write, [\d,]+ are free; {kept}") as error:
        yield
    assert error.value.errno == errno.EFBIG
    assert str(error.value).endswith(f"{folder / name}'")
    assert content(folder) == before
    assert [path.name for path in folder.rglob(".*")] == []


def test_a_file(tmp_path: Path) -> None:
    write_text(tmp_path / "figures.json", "old")
    with told_without_change(tmp_path, "figures.json", "5,000"), full_disk(1000):
        write_text(tmp_path / "figures.json", "x" * 5000)


def test_a_folder(tmp_path: Path) -> None:
    """What was written until then is all that is known of its size."""
    with new_folder(tmp_path / "set", overwrite=False) as folder:
        write_text(folder / "a", "old")
    with (
        told_without_change(tmp_path, "set", r"more than [1-3],\d{3}"),
        full_disk(2000),
        new_folder(tmp_path / "set", overwrite=True) as folder,
    ):
        write_text(folder / "a", "x" * 1500)
        (folder / "b").write_bytes(bytes(3000))


def test_an_error_of_another_kind_passes(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"No such file or directory: 'nowhere\.csv'"),
        new_folder(tmp_path / "set", overwrite=False),
    ):
        Path("nowhere.csv").read_bytes()
    assert os.listdir(tmp_path) == []


def test_a_model(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("trm-mlp-t")
    size = sum(value.nbytes for value in model.state_dict().values())
    with told_without_change(tmp_path, "model", f"{size:,}"), full_disk(5000):
        save_model(model, GridProcessor("grid", grid_shape=(4, 4), alphabet=".1234"), tmp_path / "model")


def test_a_checkpoint(tmp_path: Path) -> None:
    parts = {part: {"a": torch.zeros(1000)} for part in ("model", "ema", "optimisers", "slots")}
    accelerator = Accelerator(cpu=True)
    whole = save_checkpoint(accelerator, tmp_path, 1, parts, {})
    with told_without_change(tmp_path, "step-00000002", "16,000", "earlier checkpoints are intact"), full_disk(2000):
        save_checkpoint(accelerator, tmp_path, 2, parts, {})
    assert newest_checkpoint(tmp_path) == whole
    assert load_file(whole / "model.safetensors")["a"].shape == (1000,)


def test_a_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Accelerator(cpu=True))
    log.write({"step": 1})
    size = (tmp_path / "log.jsonl").stat().st_size
    with pytest.raises(OSError, match=r"26 bytes to write, .* the lines before it are intact"), full_disk(size + 5):
        log.write({"step": 2, "loss": 0.25})
    log.truncate(1)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n'


def test_a_program(tmp_path: Path) -> None:
    """Left to itself torch.export.save ends the process."""
    program = torch.export.export(torch.nn.Linear(30, 30), (torch.zeros(1, 30),))
    with told_without_change(tmp_path, "step.pt2", r"[\d,]+"), full_disk(3000):
        save_program(program, tmp_path / "step.pt2")


def test_a_checkpoint_of_the_reference(tiny_model, tmp_path: Path) -> None:
    """Left to itself torch.save does not say why it failed."""
    tiny_model("trm-attn", mlp_multiple_of=256).save_pretrained(tmp_path / "model")
    GridProcessor("grid", grid_shape=(4, 4), alphabet=".1234").save_pretrained(tmp_path / "model")
    (tmp_path / "out").mkdir()
    with told_without_change(tmp_path / "out", "step_0", r"[\d,]+"), full_disk(3000):
        export_reference(str(tmp_path / "model"), tmp_path / "out" / "step_0")


def test_a_card(tiny_model, tmp_path: Path) -> None:
    tiny_model("trm-attn").save_pretrained(tmp_path / "model")
    GridProcessor("grid", grid_shape=(4, 4), alphabet=".1234").save_pretrained(tmp_path / "model")
    write_model_card(tmp_path / "model", {"evaluations": {}})
    update = CardUpdate.begin(tmp_path / "model", "test", may_replace=False)
    (tmp_path / "test_halting.png").write_bytes(bytes(20_000))
    figures = {"split": "test", "dataset": "x"}
    with (
        told_without_change(tmp_path / "model", WORKPLACE, r"more than [\d,]+", "the card is as it was"),
        full_disk(9000),
    ):
        update.write_plain(figures, tmp_path)
