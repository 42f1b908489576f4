"""What a run leaves behind: the log, model folders, and at the end metrics, plots and card."""

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from ..cards.card import write_model_card
from ..evaluation.plots import write_plots
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..reasoning_config_trm import ReasoningConfig
from ..utils.files import write_json
from ..utils.machine import describe_machine, library_versions


class RunLog:
    """log.jsonl of a run and its trackers; only the main process writes."""

    def __init__(self, output: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = output / "log.jsonl", accelerator
        if accelerator.is_main_process:
            output.mkdir(parents=True, exist_ok=True)
        if accelerator.log_with:
            accelerator.init_trackers("trm")

    def truncate(self, step: int) -> None:
        """Drop what was logged after `step`: a resumed run does these steps again."""
        if not self.accelerator.is_main_process or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n") or json.loads(line)["step"] > step:
                break  # the last line may have been cut off when the process died
            kept.append(line)
        temporary = self.path.with_suffix(".part")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(self.path)

    def write(self, record: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
        values = record.get("eval", record)
        prefix = "eval" if "eval" in record else "train"
        scalars = {f"{prefix}/{k}": v for k, v in values.items() if isinstance(v, int | float) and k != "step"}
        self.accelerator.log(scalars, step=record["step"])


def save_model(model: TRMForGridReasoning, processor: GridProcessor, folder: Path) -> None:
    """Model, processor and their code as a folder for from_pretrained; the folder changes whole or not at all.

    Raises:
        OSError: naming the folder, for example when the disk is full.
    """
    temporary = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        _replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"the model folder {folder} could not be written: {error}") from error


def publish_folder(
    source: Path,
    output: Path,
    *,
    reasoning: ReasoningConfig,
    metrics: dict[str, Any],
    recipe: dict[str, Any],
    run: dict[str, Any],
    plots: Path | None = None,
) -> Path:
    """output/model: the weights of `source` with plots and a card whose figures all come from metrics.json.

    Args:
        reasoning: the checkpoint's own defaults of `solve`.
        metrics: {name: what evaluate_puzzles returned, with its command and data}. run: command, seed, steps, seconds,
            flops, device and facts of the training. plots: a folder of pictures to show besides those made here.
    """
    facts = {
        "recipe": recipe,
        "command": run["command"],
        "seed": recipe["seed"],
        "steps": run["steps"],
        "seconds": run["seconds"],
        "flops": run["flops"],
        "hardware": describe_machine(run["device"]),
        "versions": library_versions(),
        "train": run["train"],
        "evaluations": metrics,
    }
    write_json(output / "metrics.json", facts)
    folder, temporary = output / "model", output / ".model.part"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    reasoning.save_pretrained(temporary)
    write_plots(temporary / "plots", metrics, output / "log.jsonl")
    if plots is not None:
        shutil.copytree(plots, temporary / "plots", dirs_exist_ok=True)
    write_model_card(temporary, facts)
    _replace(temporary, folder)
    return folder


def _replace(temporary: Path, folder: Path) -> None:
    """Put a complete folder in the place of an older one."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
