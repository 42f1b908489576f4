"""How a model reasons at inference, in one value: what GenerationConfig is to `generate`, this is to `solve`.

A checkpoint carries its own in reasoning_config.json: `solve`, the pipeline and the commands begin with it, and their
options replace single fields of it.
"""

import dataclasses
import difflib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .text_file_trm import decode, parse_json

SELECTIONS = ("halt", "vote", "residual", "valid")
LATENTS = ("z_H", "z_L")
RULES = "rules"  # the certificate that the puzzle's own rules give
REASONING_FILE = "reasoning_config.json"
COUNTS = ("max_steps", "views", "num_trajectories", "max_batch")  # whole numbers from 1
OPTIONAL = ("max_steps", "max_batch")  # or None
SEARCH = tuple("num_trajectories noise_std noise_on random_start selection guidance damping max_batch".split())
RENAMED = {"num_votes": "views", "max_augmentations": "views"}  # names of earlier versions


@dataclass(frozen=True)
class ReasoningConfig:
    """Immutable, and checked when it is made; `updated` gives another one.

    Args:
        max_steps: supervision steps; None takes the architecture's halt_max_steps; more than in training is allowed.
        halt: stop each trajectory after the first step whose halt probability is above 0.5 (True) or this number; what
            has stopped costs nothing more. False: all max_steps, as the reference does.
        views: how many views of a puzzle vote, itself included; see views_trm. The pipeline makes them: `solve` takes
            token ids, which are one view already.
        num_trajectories: K, of each view; they differ by noise or random starts alone.
        noise_std: of the normal noise added to the latent `noise_on`, "z_H" or "z_L", before each step.
        random_start: begin with normal noise instead of the model's fixed initial latents.
        selection: which trajectory is taken, "halt", "vote", "residual" or "valid"; see trajectories_trm.select.
        guidance: w of l_before + w (l_after - l_before), the logits before and after a step, which give the answer,
            also the one that is fed back; 1 is plain, more extrapolates.
        damping: share of the former latents that is kept in each step; 0 is plain.
        certificate: what makes an answer certain: "rules", the puzzle's own, which the model does not know; or a
            number, a halt probability above it. Views and trajectories are then attempts, made in turn until one is
            certain, the first of each view without noise; where none is, the answer is "not sure". None: every answer
            is given.
        max_batch: trajectories that run together, all when None; bounds the memory, changes nothing but rounding.
        engine: of engines_trm.ENGINES; "auto" is the fastest of the precision, the model's own or autocast's.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    max_steps: int | None = None
    halt: bool | float = False
    views: int = 1
    num_trajectories: int = 1
    noise_std: float = 0.0
    noise_on: str = "z_H"
    random_start: bool = False
    selection: str = "halt"
    guidance: float = 1.0
    damping: float = 0.0
    certificate: str | float | None = None
    max_batch: int | None = None
    engine: str = "auto"

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = vars(self)[name]
            if not (type(value) is int and value >= 1) and not (value is None and name in OPTIONAL):
                self._refuse(name, "whole numbers from 1")
        if not isinstance(self.halt, bool) and not (isinstance(self.halt, float) and 0 < self.halt < 1):
            self._refuse("halt", "True, False, or a probability between 0 and 1")
        known = self.certificate is None or self.certificate == RULES
        if not known and not (isinstance(self.certificate, float) and 0 < self.certificate < 1):
            self._refuse("certificate", f"None, {RULES!r}, or a probability between 0 and 1")
        if not (_is_number(self.noise_std) and self.noise_std >= 0):
            self._refuse("noise_std", "finite numbers from 0")
        if not _is_number(self.guidance):
            self._refuse("guidance", "finite numbers")
        if not (_is_number(self.damping) and 0 <= self.damping < 1):
            self._refuse("damping", "numbers from 0 up to, not including, 1")
        if not isinstance(self.random_start, bool):
            self._refuse("random_start", "True, False")
        for name, choices in (("noise_on", LATENTS), ("selection", SELECTIONS)):
            if vars(self)[name] not in choices:
                self._refuse(name, ", ".join(choices))
        if self.num_trajectories > 1 and not self.is_random:
            raise ValueError(
                f"num_trajectories={self.num_trajectories}: all trajectories would be the same one; give noise_std "
                f"above 0 or random_start=True"
            )

    @property
    def halt_logit(self) -> float | None:
        """The halt logit above which a trajectory stops; None for never."""
        if isinstance(self.halt, bool):
            return 0.0 if self.halt else None
        return _logit(self.halt)

    @property
    def certain_logit(self) -> float:
        """The halt logit above which an answer is certain; above all where no probability makes it so."""
        return _logit(self.certificate) if isinstance(self.certificate, float) else math.inf

    @property
    def is_random(self) -> bool:
        return self.random_start or self.noise_std > 0

    @property
    def search(self) -> dict[str, Any]:
        """The fields of a search at test time, all of them; none where they are those of plain solving."""
        asked, plain = ({name: vars(config)[name] for name in SEARCH} for config in (self, ReasoningConfig()))
        return {} if asked == plain else asked

    def updated(self, **options: Any) -> "ReasoningConfig":
        """With these fields replaced. Raises TypeError for an unknown one, naming the nearest."""
        self.check_names(options)
        return dataclasses.replace(self, **options)

    @classmethod
    def check_names(cls, options: Any, more: tuple[str, ...] = ()) -> None:
        """Raises TypeError for a name that is neither a field nor one of `more`."""
        known = (*(field.name for field in dataclasses.fields(cls)), *more)
        for name in options:
            if name in RENAMED:
                raise TypeError(f"there is no option {name!r}: it is called {RENAMED[name]!r}")
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(known)}"
                raise TypeError(f"there is no option {name!r}; {hint}")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write reasoning_config.json into the folder, whole or not at all."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        part = Path(folder, f".{REASONING_FILE}.trm-part")  # one name: what a killed process left is written over
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, Path(folder, REASONING_FILE))
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def from_file(cls, path: str | Path) -> "ReasoningConfig":
        """Fields that the file does not have are the class's defaults. Raises ValueError naming file and field."""
        try:
            content = parse_json(decode(Path(path).read_bytes()))
            if not isinstance(content, dict):
                raise ValueError("is no JSON object")
            return cls().updated(**content)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    def _refuse(self, name: str, allowed: str) -> None:
        raise ValueError(f"{name}={vars(self)[name]!r} is not allowed; allowed: {allowed}")


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
