"""Put new figures into the card of a checkpoint's folder: metrics.json, plots/, README.md and .eval_results/.

Everything is written into a temporary folder inside first and then moved into place, so that the card changes whole or
not at all. What is not evaluated anew stays: single answers (`evaluate_puzzles`) and votes (`voting.report`) of one
name are kept apart, and so are the evaluations of other names.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..utils.files import sync_folder, told, write_json
from ..utils.locks import locked
from ..utils.reading import read_json
from .card import SOLVING, check_metrics, check_name, render_card, write_model_card
from .sections import is_plain

VOTES_ON_CARD = ("protocol", "counts", "pass_at_k", "coverage", "means")
VOTING_FACTS = ("command", "dataset", "hardware", "max_steps", "halt", "precision", "num_views")  # of the manifest
PLAIN_PLOTS = ("accuracy_by_step", "halting")
VOTE_PLOTS = ("vote_entropy", "pass_at_k", "correct_rank")
PICTURES = ("*.png", "*.gif")
# In the checkpoint's folder, while its card is replaced. No .trm-part: `files.clear_up` would lose the plan.
WORKPLACE, PLAN, LOCKED = ".card.trm-update", "plan.json", ".card.trm-lock"
CARD, CHANGED_CARD = "README.md", "README.before.md"  # the second keeps one that somebody wrote or changed
RENDERED_FROM = ("config.json", "preprocessor_config.json", "reasoning_config.json")


@dataclass(frozen=True)
class CardUpdate:
    """Made before an evaluation, so that a card that cannot be updated shows before anything runs.

    Attributes:
        folder: the checkpoint's. entry: name of the evaluation on the card. may_replace: figures of other data of that
            name. weights: SHA-256 of the checkpoint that is about to be evaluated.
    """

    folder: Path
    entry: str
    may_replace: bool
    weights: str

    @classmethod
    def begin(cls, folder: str | Path, entry: str, *, may_replace: bool) -> "CardUpdate":
        """Raises ValueError or OSError: no such folder, one that cannot be written into, an unreadable metrics.json."""
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"--update-card writes into a local folder; {str(folder)!r} is none")
        check_name(entry)
        finish_update(folder)  # and so it is known that it can be written into
        read_metrics(folder)
        return cls(folder, entry, may_replace, checkpoint_sha256(folder))

    def check_data(self, dataset: str, *, voting: bool) -> None:
        """Raise a ValueError when the entry holds figures of other data and may not be replaced."""
        old = read_metrics(self.folder)["evaluations"].get(self.entry, {})
        if voting:
            before = old["votes"].get("dataset", old["dataset"]) if "votes" in old else None
        else:
            before = old["dataset"] if is_plain(old) else None
        if before not in (None, dataset) and not self.may_replace:
            raise ValueError(
                f"the card of {self.folder} has figures of other data under {self.entry!r}: {before}, now {dataset}; "
                f"--card-entry NAME keeps both, --card-entry {self.entry} replaces them"
            )

    def write_plain(self, figures: Mapping[str, Any], plots: Path) -> list[Path]:
        """Put what `evaluate_puzzles` returned, with what a card needs, in the place of the entry's single answers.

        Args:
            plots: folder with the plots of `figures`, named after their split (`plots.write_plots`), and where there is
                one the picture of a puzzle being solved.

        Returns:
            The files written.
        """
        drawn = PLAIN_PLOTS if "by_step" in figures else PLAIN_PLOTS[1:]
        pictures = {self._picture(name): plots / f"{figures['split']}_{name}.png" for name in drawn}
        if (plots / SOLVING).is_file():
            pictures[f"plots/{SOLVING}"] = plots / SOLVING
        with locked(self.folder, LOCKED):
            metrics = read_metrics(self.folder)
            old = metrics["evaluations"].get(self.entry, {})
            new = {**figures, "date": _today()}
            if "ways" in old and old["dataset"] == new["dataset"]:
                new.setdefault("ways", old["ways"])
            if "votes" in old:  # they keep their own data in words
                new["votes"] = {"dataset": old["dataset"]} | old["votes"]
            metrics["evaluations"][self.entry] = new
            return self._write(metrics, pictures, {self._picture(name) for name in PLAIN_PLOTS})

    def write_votes(self, report: Mapping[str, Any], split: str, plots: Path) -> list[Path]:
        """Put a report of `voting.report.write_report` in the place of the entry's votes; as `write_plain`."""
        manifest = report["manifest"]
        votes = {name: report[name] for name in VOTES_ON_CARD}
        votes |= {name: manifest[name] for name in VOTING_FACTS if name in manifest} | {"date": _today()}
        drawn = VOTE_PLOTS if report["pass_at_k"] else VOTE_PLOTS[:1]
        pictures = {self._picture(name): plots / f"{name}.png" for name in drawn}
        gone = {self._picture(name) for name in VOTE_PLOTS}
        if self.entry == "test":  # the trainer's are named without it
            gone |= {f"plots/{name}.png" for name in VOTE_PLOTS}
        with locked(self.folder, LOCKED):
            metrics = read_metrics(self.folder)
            old = metrics["evaluations"].get(self.entry, {})
            if not is_plain(old):
                old = {"task": report["task"], "dataset": manifest["dataset"], "split": split}
            metrics["evaluations"][self.entry] = {**old, "votes": votes}
            return self._write(metrics, pictures, gone)

    def _picture(self, name: str) -> str:
        return f"plots/{self.entry}_{name}.png"

    def _write(self, metrics: dict[str, Any], pictures: Mapping[str, Path], gone: set[str]) -> list[Path]:
        """Write the card anew, for who has its lock: `pictures` come in the place of those `gone`, others stay."""
        if checkpoint_sha256(self.folder) != self.weights:
            raise ValueError(f"the checkpoint in {self.folder} changed while it was evaluated; its card is as it was")
        workplace = self.folder / WORKPLACE
        undo(self.folder)
        try:
            with told(workplace, kept="the card is as it was"):
                stage = workplace / "new"
                (stage / "plots").mkdir(parents=True)
                copied = [name for name in RENDERED_FROM if (self.folder / name).is_file()]
                for name in copied:
                    shutil.copyfile(self.folder / name, stage / name)
                shown = [path for pattern in PICTURES for path in (self.folder / "plots").glob(pattern)]
                kept = {f"plots/{path.name}": path for path in shown if f"plots/{path.name}" not in gone}
                for name, path in {**kept, **pictures}.items():
                    shutil.copyfile(path, stage / name)
                write_model_card(stage, metrics)
                for name in copied:
                    (stage / name).unlink()
                card = self.folder / CARD
                if card.exists() and card.read_bytes() != render_card(self.folder, read_metrics(self.folder)).encode():
                    shutil.copyfile(card, stage / CHANGED_CARD)
                written = _swap(stage, self.folder, gone | {f".eval_results/{self.entry}.yaml"})
            (workplace / PLAN).unlink()  # from here on there is nothing to undo
            return written
        finally:
            undo(self.folder)


def finish_update(folder: Path) -> None:
    """Undo what an update began that was killed.

    Raises:
        InUseError: one is at it now, in another process.
        OSError: the folder cannot be written into.
    """
    with locked(folder, LOCKED):
        undo(folder)


def undo(folder: Path) -> None:
    """Give a folder its former files back where an update did not come to its end; for who has its lock."""
    workplace = folder / WORKPLACE
    if (workplace / PLAN).is_file():
        new, old = _read_plan(workplace / PLAN, folder)
        for name in new - old:
            (folder / name).unlink(missing_ok=True)
        for name in old:
            if (workplace / "old" / name).exists():
                os.replace(workplace / "old" / name, folder / name)
        (workplace / PLAN).unlink()
    shutil.rmtree(workplace, ignore_errors=True)


def _read_plan(path: Path, folder: Path) -> tuple[set[str], set[str]]:
    """(files that come, files that were there). The folder may be another's: nothing outside of it is named."""
    plan = read_json(path)
    new, old = plan.get("new"), plan.get("old")
    if not isinstance(new, list) or not isinstance(old, list) or not all(isinstance(name, str) for name in new + old):
        raise ValueError(f"{path}: is no plan of an update; remove {path.parent}")
    for name in new + old:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path}: names {name}, which is not in {folder}; remove {path.parent}")
    return set(new), set(old)


def _swap(stage: Path, folder: Path, gone: set[str]) -> list[Path]:
    """Move all files of `stage` into `folder` and remove there what is `gone` and not among them; `undo` reverts it."""
    backup = stage.with_name("old")
    new = sorted(str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file())
    new.sort(key=lambda name: name != "metrics.json")  # first: a card can be written again from it
    old = [name for name in {*new, *gone} if (folder / name).exists()]
    for name in old:
        (backup / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, backup / name)
    sync_folder(stage.parent)
    write_json(stage.with_name(PLAN), {"new": new, "old": old})  # the backup is whole: now it can be undone
    for name in new:
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(stage / name, folder / name)
    for name in set(old) - set(new):
        (folder / name).unlink()
    return [folder / name for name in new]


def checkpoint_sha256(folder: Path) -> str:
    """SHA-256 over everything that decides what the checkpoint in the folder answers."""
    digest = hashlib.sha256()
    for path in sorted([*(folder / name for name in RENDERED_FROM), *folder.glob("*.safetensors")]):
        digest.update(path.name.encode())
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def read_metrics(folder: Path) -> dict[str, Any]:
    """The metrics.json of a card, or an empty one. Raises ValueError naming the file and what is wrong with it."""
    path = folder / "metrics.json"
    if not path.exists():
        return {"evaluations": {}}
    try:
        metrics = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; correct it, or remove it to start a new card") from error
    try:
        check_metrics(metrics)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; correct it, or remove it to start a new card") from error
    return metrics
