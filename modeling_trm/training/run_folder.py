"""What a run leaves behind: the log, model folders, and at the end metrics, plots and card."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from ..cards.card import write_model_card
from ..evaluation.plots import write_plots
from ..evaluation.trained_on import KEY, made_test
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..reasoning_config_trm import ReasoningConfig
from ..utils.files import alone_in, replaced, told, write_json, write_text
from ..utils.machine import describe_machine, library_versions
from ..utils.manifest import weights_sha256
from ..utils.outputs import check_folder, refuse_source
from .arguments import Recipe, RunArguments
from .checkpointing import prune
from .fields import parse_files

RESULTS = ("metrics.json", "weights/last", "weights/ema", "model")  # of a run that came to its end
WRITTEN = (*RESULTS, "log.jsonl", "checkpoints", "weights", "evaluation", "trackers", made_test())


@contextmanager
def own_folder(recipe: Recipe) -> Iterator[None]:
    """The run's folder is this run's alone while the block runs; what a killed run left in it is finished or undone.

    Raises:
        ValueError: something else than this run's folder is there, or it holds what the run is to read.
        InUseError: another process is writing there.
    """
    if int(os.environ.get("RANK", 0)):  # accelerate and torchrun number the processes of a run; the first one writes
        yield
        return
    output = Path(recipe.run.output_dir)
    check_folder(output)
    read, others = [recipe.optimisation.start_from], recipe.other_sizes()
    written = (*WRITTEN, *(made_test(f"{side}x{side}") for side in others))
    for data in (recipe.data, *(other.data for other in others.values())):
        files = (parse_files("data_files", data.data_files) or {}).values()
        named = [file for files in files for file in (files if isinstance(files, list) else [files])]
        read += [data.data, data.data_dir, data.dataset, *named]
    refuse_source(output, read, written)
    with alone_in(output):
        prune(output / "checkpoints")
        found = [name for name in RESULTS if (output / name).exists()]
        if found and not (output / "checkpoints").is_dir():
            raise ValueError(
                f"{output} holds {', '.join(found)}, but no checkpoints to go on from: a finished run, or something "
                f"else; give another output_dir, or move them away"
            )
        yield


def choose_trackers(report_to: Sequence[str]) -> list[str]:
    """Those of report_to, "all" for all that are installed; the default one, for which nobody asked, only where it is.

    Raises:
        ValueError: a tracker is asked for and not installed, which accelerate would leave out with a warning.
    """
    here = set(map(str, get_available_trackers()))
    missing = [name for name in report_to if name not in ("none", "all", *here)]
    if missing and list(report_to) != RunArguments().report_to:
        raise ValueError(f"report_to: {', '.join(missing)} is not installed here; install it, or report_to: none")
    return sorted(here) if "all" in report_to else [name for name in report_to if name in here]


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
        write_text(self.path, "".join(kept))

    def write(self, record: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            line = json.dumps(record) + "\n"
            with told(self.path, len(line), "the lines before it are intact"), self.path.open("a") as log:
                log.write(line)
        groups = {"train": record}
        if "eval" in record:
            groups = {"eval": record["eval"], **{f"eval {grid}": one for grid, one in record["others"].items()}}
        for prefix, values in groups.items():
            scalars = {f"{prefix}/{k}": v for k, v in values.items() if isinstance(v, int | float) and k != "step"}
            self.accelerator.log(scalars, step=record["step"])


def save_model(model: TRMForGridReasoning, processor: GridProcessor, folder: Path) -> None:
    """Model, processor and their code as a folder for from_pretrained; the folder changes whole or not at all.

    Raises:
        OSError: naming the folder, for example when the disk is full.
    """
    with replaced(folder, sum(value.nbytes for value in model.state_dict().values())) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)


def publish_folder(
    source: Path,
    output: Path,
    *,
    reasoning: ReasoningConfig,
    metrics: dict[str, Any],
    recipe: Recipe,
    run: dict[str, Any],
    plots: Path | None = None,
    trained_on: dict[str, str] | None = None,
) -> Path:
    """output/model: the weights of `source` with plots and a card whose figures all come from metrics.json.

    Args:
        reasoning: the checkpoint's own defaults of `solve`.
        metrics: {name: what evaluate_puzzles returned, with its command and data}. run: command, seed, steps, seconds,
            flops, device and facts of the training, and the runs before it. plots: a folder of pictures to show besides
            those made here.
        trained_on: the hashes that tell of a puzzle whether it was trained on.
    """
    facts = {
        "recipe": recipe.to_dict(),
        "stated": recipe.stated(),
        "command": run["command"],
        "seed": recipe.run.seed,
        "steps": run["steps"],
        "seconds": run["seconds"],
        "flops": run["flops"],
        "hardware": describe_machine(run["device"]),
        "versions": library_versions(),
        "train": run["train"],
        "evaluations": metrics,
    }
    if run["before"]:
        facts["before"] = run["before"]
    if trained_on is not None:
        facts[KEY] = trained_on
    write_json(output / "metrics.json", facts)
    with replaced(output / "model") as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        reasoning.save_pretrained(folder)
        write_plots(folder / "plots", metrics, output / "log.jsonl")
        if plots is not None:
            shutil.copytree(plots, folder / "plots", dirs_exist_ok=True)
        write_model_card(folder, facts | {"weights": weights_sha256(folder)})
    return output / "model"
