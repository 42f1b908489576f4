"""What a recipe says: its fields, typed and checked, every one overridable on the command line.

Architecture (ModelArguments) has the names of TRMConfig; what the data decides (vocab_size, seq_len) is not asked for.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from ..configuration_trm import IMPROVEMENT, KERNELS, PRESETS, AttentionBackend, MlpTBackend, SsdBackend, TRMConfig
from ..losses_trm import TOKEN_LOSSES
from ..processing_trm import GridProcessor
from .fields import (
    COUNT,
    DECAY,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    FieldError,
    MappingText,
    Range,
    by_side,
    check_known,
    check_range,
    options_by_name,
    stages,
    typed,
)
from .model_arguments import FROM_DATA, PRESET, ModelArguments
from .optimisers import OPTIMISERS
from .recipes import override, read_recipe, where_stated
from .schedule import SCHEDULES, STEP_WEIGHTS

TRAIN_STEPS = 65_104


def _help(text: str, default: Any = None, allowed: Range | None = None) -> Any:
    return field(default=default, metadata={"help": text, "range": allowed})


SOURCE_FIELDS = (  # where puzzles are and which of them, said of each size of other_sizes alone
    "data", "data_dir", "data_files", "dataset", "columns", "characters", "subset", "source_weights",
    "validation_puzzles", "test_puzzles",
)  # fmt: skip
RENAMED = {"test_augmentations": "views"}  # fields of earlier versions


@dataclass
class DataArguments:
    """Which puzzles are trained and evaluated on. Without data, data_dir, data_files and dataset: the shipped sample.

    ARC is different: its data or data_dir is a folder that `trm build-data arc` wrote, and there is no other source.
    """

    task: Literal["sudoku", "maze", "arc", "grid"] = _help("kind of puzzle", "sudoku")
    data: str | None = _help(
        "a file, a folder, a Hub id, or 'hub' for the pinned benchmark; subset, validation_puzzles and source_weights "
        "then give way where it has less"
    )
    data_dir: str | None = _help(
        "folder with files named train, validation, test (csv, parquet, ...); for arc a built folder"
    )
    data_files: MappingText | None = _help("JSON or YAML mapping {split: file or files}")
    dataset: str | None = _help("'hub' for the pinned benchmark, a Hub id, or a data set folder")
    columns: MappingText | None = _help(
        "JSON or YAML mapping {question: name of its column, answer: ...} if not told by names"
    )
    characters: str | None = _help("what grids are written with, in the order of the processor's characters")
    grid_shape: list[int] | None = _help("rows and columns, for task grid", allowed=COUNT)
    alphabet: str | None = _help("characters of a cell, for task grid")
    other_sizes: MappingText | None = _help(
        "JSON or YAML mapping {side: {batch_size: puzzles a step, data: their file, ...}}: square grids of other sides "
        "that are trained in the same steps, if the model answers them; without data, the shipped sample of that side, "
        "where it has puzzles to train on (Sudoku 16, maze 10)"
    )
    subset: int | None = _help(
        "train on this many puzzles, drawn by data_seed (the literature's 1k: 1000)", allowed=COUNT
    )
    data_seed: int = _help("seed of which puzzles are taken: subset, validation_puzzles, test_puzzles", 0, SEED)
    on_bad_row: Literal["error", "skip"] = _help("refuse a data set with bad rows, or leave them out", "error")
    augment: bool = _help("draw a symmetry of the puzzle for every row", True)
    source_weights: MappingText | None = _help("JSON or YAML mapping {source: weight}; default: every puzzle alike")
    reveal_start: float = _help("curriculum: up to this share of a row's blanks is filled in at the start", 0.0, SHARE)
    reveal_end: float = _help("curriculum: where that share ends, falling fast at first", 0.0, SHARE)
    reveal_until: float = _help("curriculum: share of the run after which it has ended", 0.0, SHARE)
    validation_puzzles: int | None = _help(
        "puzzles of the validation split for periodic evaluations; null: none", 512, COUNT
    )
    test_puzzles: int | None = _help("puzzles of the test split for the final evaluation; default: all", allowed=COUNT)
    views: int | None = _help("task arc: views of a test input that vote at the end; default: all", allowed=COUNT)


@dataclass
class OptimisationArguments:
    """How the weights are trained. Defaults: the reference recipe (arXiv 2510.04871, public code config/)."""

    start_from: str | None = _help("checkpoint whose weights and architecture the run starts with; default: none")
    start_step: int = _help(
        "start_from has the weights of this step: the run goes on behind it in schedule, curricula and data, with new "
        "optimisers and slots; the rate rises once more over warmup_steps",
        0,
        NOT_NEGATIVE,
    )
    train_only: Literal["all", "puzzle_table"] = _help("train everything, or the puzzle table alone", "all")
    train_steps: int | None = _help(f"optimiser steps; default, without train_minutes: {TRAIN_STEPS}", allowed=COUNT)
    train_minutes: float | None = _help(
        "instead of train_steps: as many as these minutes hold, evaluations included, by the time that steps of each "
        "depth are measured to take at the start; counted from when the data are read; needs test_puzzles, but for arc",
        allowed=POSITIVE,
    )
    batch_size: int = _help("puzzles a step, over all processes", 768, COUNT)
    gradient_accumulation: int = _help(
        "parts a batch is computed in; the result is the same, the memory smaller", 1, COUNT
    )
    objective: Literal["act", "dis"] = _help(
        "act: every step is asked for the whole answer; dis: for its part of a path from puzzle to answer, and unless "
        "the recipe says otherwise in 6 steps of 1 H cycle of 2 L cycles that read the last answer and their number",
        "act",
    )
    step_weights: str = _help(f"of the token loss over a puzzle's steps: one of {', '.join(STEP_WEIGHTS)}", "uniform")
    depth_curriculum: MappingText | None = _help(
        "JSON or YAML mapping {share of the run until which it holds: [H_cycles, L_cycles]}; then the config's"
    )
    supervision_curriculum: MappingText | None = _help(
        "JSON or YAML mapping {share of the run until which it holds: most supervision steps of a puzzle}; then the "
        "config's halt_max_steps; objective act only"
    )
    random_start: bool = _help("train each puzzle from random latents; evaluations keep the fixed initial ones", False)
    noise_std: float = _help("normal noise on the latents before every supervision step", 0.0, NOT_NEGATIVE)
    damping: float = _help("share of the former latents that is kept in every supervision step", 0.0, DECAY)
    corrupted_share: float = _help(
        "share of the puzzles that begin with a corrupted answer as z_H, and are trained for one step; objective act",
        0.0,
        SHARE,
    )
    corruption: float = _help("up to this share of such an answer's cells is replaced by other cells of it", 0.2, SHARE)
    token_loss: str = _help(f"one of {', '.join(TOKEN_LOSSES)}", "stablemax")
    label_smoothing: float = _help("share of the target spread over the vocabulary", 0.0, DECAY)
    halt_loss_weight: float = _help("weight of the halting loss", 0.5, NOT_NEGATIVE)
    loss_on: Literal["all", "blanks"] = _help(
        "which cells are trained; with blanks (of a maze, the open cells), answers keep the given ones", "all"
    )
    release_when: Literal["halted", "exact"] = _help("what frees a slot before its last step", "halted")
    halt_exploration: float = _help("probability of a random minimum of 2..halt_max_steps steps", 0.1, SHARE)
    optimiser: str = _help(f"one of {', '.join(OPTIMISERS)}", "adam_atan2")
    learning_rate: float = _help(
        "learning rate of everything that muon_lr and puzzle_lr do not cover", 1e-4, NOT_NEGATIVE
    )
    beta1: float = _help("decay of the first moment", 0.9, DECAY)
    beta2: float = _help("decay of the second moment", 0.95, DECAY)
    weight_decay: float = _help("decoupled, times the learning rate", 1.0, NOT_NEGATIVE)
    muon_lr: float = _help("learning rate of the stack's matrices under optimiser muon", 0.02, NOT_NEGATIVE)
    muon_momentum: float = _help("momentum of Muon", 0.95, DECAY)
    muon_ns_steps: int = _help("Newton-Schulz iterations of Muon", 5, Range(1, 99))
    muon_weight_decay: float = _help("weight decay of Muon", 0.0, NOT_NEGATIVE)
    puzzle_lr: float = _help("learning rate of the puzzle table's sign-SGD", 1e-4, NOT_NEGATIVE)
    puzzle_weight_decay: float = _help("weight decay of the puzzle table", 1.0, NOT_NEGATIVE)
    lr_schedule: str = _help(f"one of {', '.join(SCHEDULES)}, after the warm-up", "constant")
    warmup_steps: int = _help("steps of linear warm-up", 2000, NOT_NEGATIVE)
    lr_min_ratio: float = _help("where a falling schedule ends, as a share of the learning rate", 0.0, SHARE)
    lr_decay_share: float = _help("share of the run, its last, over which warmup_stable_decay falls", 0.2, SHARE)
    clip_grad_norm: float | None = _help("largest norm of the core's gradient; default: no clipping", allowed=POSITIVE)
    ema_decay: float = _help("decay of the averaged weights", 0.999, DECAY)

    def depth_stages(self) -> dict[float, tuple[int, int]]:
        """depth_curriculum as {share of the run: (H_cycles, L_cycles)}. Raises ValueError naming the field."""
        allowed = "[H_cycles, L_cycles], neither falling, as in {0.3: [1, 2], 0.6: [2, 4]}"
        return stages("depth_curriculum", self.depth_curriculum, 2, allowed)

    def supervision_stages(self) -> dict[float, int]:
        """supervision_curriculum as {share of the run: supervision steps}. Raises ValueError naming the field."""
        allowed = "a number of supervision steps, not falling, as in {0.15: 1, 0.25: 2, 0.35: 4}"
        found = stages("supervision_curriculum", self.supervision_curriculum, 1, allowed)
        return {share: steps for share, (steps,) in found.items()}


@dataclass
class RunArguments:
    """Where and how the run goes. Nothing here changes what is learnt, but seed, mixed_precision and compile.

    The kernels, named ..._backend, are not saved with a model; they round differently.
    """

    output_dir: str = _help("folder of the run", "runs/trm")
    seed: int = _help("seed of weights, data order, augmentation and exploration", 0, SEED)
    mixed_precision: Literal["auto", "no", "bf16"] = _help("auto: bf16 where it is faster than float32", "auto")
    compile: Literal["auto", "yes", "no"] = _help("torch.compile of the stack; auto: where a compiler is found", "auto")
    attention_backend: AttentionBackend = _help("kernels of attention: see TRMConfig", "auto")
    mlp_t_backend: MlpTBackend = _help("kernels of MLP-t: see TRMConfig", "auto")
    ssd_backend: SsdBackend = _help("kernels of Mamba-2: see TRMConfig", "auto")
    deterministic: bool = _help("only deterministic algorithms: on CUDA too the same bits in every run; slower", False)
    cpu: bool = _help("stay on the CPU although there is a GPU", False)
    log_every: int = _help("steps between two lines of log.jsonl", 50, COUNT)
    eval_every: int = _help("steps between two evaluations on validation puzzles", 1000, COUNT)
    eval_batch_size: int = _help("puzzles a batch in evaluations", 64, COUNT)
    eval_max_steps: int | None = _help(
        "supervision steps in evaluations; default: halt_max_steps of the config", allowed=COUNT
    )
    checkpoint_every: int = _help("steps between two checkpoints to resume from; the newest two are kept", 500, COUNT)
    stop_after_minutes: float | None = _help(
        "write a checkpoint and stop after so long; run again to go on", allowed=NOT_NEGATIVE
    )
    early_stopping_patience: int | None = _help(
        "end the run after so many evaluations in a row without a better one; its best weights are published",
        allowed=COUNT,
    )
    resume_from: str | None = _help(
        "folder written by `trm pack-checkpoint`: go on from it, unless output_dir has a later checkpoint"
    )
    report_to: list[str] = field(
        default_factory=lambda: ["tensorboard"],
        metadata={"help": "trackers of accelerate (tensorboard, trackio, wandb), all that are installed, or none"},
    )

    def kernels(self) -> dict[str, str]:
        """What `set_kernels` of a model takes."""
        return {name: vars(self)[name] for name in KERNELS}


PARTS: tuple[Any, ...] = (ModelArguments, DataArguments, OptimisationArguments, RunArguments)
FIELDS: dict[str, dataclasses.Field] = {one.name: one for part in PARTS for one in fields(part)}


def _default(one: dataclasses.Field) -> Any:
    return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()


def describe_field(one: dataclasses.Field) -> str:
    """Name, default and meaning on one line."""
    default = _default(one)
    shown = "" if default is None else f" [{default if isinstance(default, str) else json.dumps(default)}]"
    return f"{one.name}{shown}: {one.metadata['help']}"


@dataclass
class Recipe:
    """The four parts of a recipe, checked against each other."""

    model: Any
    data: DataArguments
    optimisation: OptimisationArguments
    run: RunArguments

    def __post_init__(self) -> None:
        o = self.optimisation
        for name, value, allowed in (
            ("token_loss", o.token_loss, TOKEN_LOSSES),
            ("optimiser", o.optimiser, OPTIMISERS),
            ("lr_schedule", o.lr_schedule, SCHEDULES),
            ("step_weights", o.step_weights, STEP_WEIGHTS),
        ):
            if value not in allowed:
                raise FieldError(name, value, ", ".join(allowed))
        for part in (self.data, o, self.run):
            for one in fields(part):
                check_range(one.name, getattr(part, one.name), one.metadata.get("range"))
        self._check_length()
        o.depth_stages()
        for name in ("supervision_curriculum", "corrupted_share"):
            if getattr(o, name) and o.objective == "dis":
                raise ValueError(
                    f"{name}={getattr(o, name)!r} is for objective 'act' only: with 'dis' every step of a puzzle has a "
                    f"target of its own, and fewer steps would never reach the answer"
                )
        o.supervision_stages()
        self._check_task()
        self.other_sizes()
        if o.start_from is None and self.model.preset is None:
            self.model.preset = PRESET

    def _check_length(self) -> None:
        """How long the run is and where in it it begins."""
        o, d = self.optimisation, self.data
        if o.train_minutes is None:
            if o.train_steps is None:
                o.train_steps = TRAIN_STEPS
            if o.start_step >= o.train_steps:
                allowed = f"0 to {o.train_steps - 1}, a step before the last of train_steps={o.train_steps}"
                raise FieldError("start_step", o.start_step, allowed)
            if o.start_step and o.start_from is None:
                raise ValueError(f"start_step={o.start_step} needs start_from: the weights that the run had there")
            return
        if o.train_steps is not None:
            raise ValueError(f"train_steps={o.train_steps}, train_minutes={o.train_minutes}: give one of them")
        if o.start_step:
            raise ValueError(f"start_step={o.start_step} needs train_steps, the length of the run that it goes on with")
        if d.task != "arc" and d.test_puzzles is None:
            raise ValueError(
                f"train_minutes={o.train_minutes} needs test_puzzles, how many the final evaluation shall have time for"
            )

    def _check_task(self) -> None:
        """What only some kinds of puzzles know."""
        o, d = self.optimisation, self.data
        curriculum = ("reveal_start", "reveal_end", "reveal_until")
        off = {name: "0" for name in curriculum if getattr(d, name) and d.task != "sudoku"}
        if o.loss_on == "blanks" and d.task not in ("sudoku", "maze"):
            off["loss_on"] = "all"
        if off:
            options = " ".join(f"--{name} {value}" for name, value in off.items())
            raise ValueError(f"{', '.join(off)}: not for task {d.task!r}; switch them off: {options}")
        if d.task == "arc":
            names = (
                "data_files", "dataset", "columns", "characters", "subset", "source_weights", "test_puzzles",
                "other_sizes",
            )  # fmt: skip
            given = [name for name in names if getattr(d, name)]
            if given:
                raise ValueError(f"{', '.join(given)}: task arc takes its data, all of it, from one folder, --data DIR")
            if d.data is None and d.data_dir is None:
                raise ValueError(
                    "task arc needs data, a folder written by: trm build-data arc --on-leak drop --output DIR"
                )
        elif d.task == "grid" and d.other_sizes:
            raise ValueError("other_sizes is for tasks sudoku and maze; of task grid one alphabet has one size")
        elif d.views is not None:
            raise ValueError(f"views={d.views} is for task arc only; task is {d.task!r}")

    def other_sizes(self) -> dict[int, "Recipe"]:
        """{side: this recipe with the puzzles of that side and their batch_size}. Raises ValueError naming the side."""
        kinds = {name: FIELDS[name].type for name in ("batch_size", *SOURCE_FIELDS)}
        found = {}
        for side, stated in by_side("other_sizes", self.data.other_sizes, kinds).items():
            optimisation = replace(self.optimisation, batch_size=stated.pop("batch_size"))
            beside: dict[str, Any] = {name: FIELDS[name].default for name in SOURCE_FIELDS} | stated
            data = replace(self.data, other_sizes=None, grid_shape=[side, side], **beside)
            try:
                found[side] = Recipe(self.model, data, optimisation, self.run)
            except ValueError as error:
                raise ValueError(f"other_sizes: {side}: {error}") from error
        return found

    def architecture(self) -> dict[str, Any]:
        """The fields of the architecture that the recipe sets, beside the preset."""
        return {name: value for name, value in vars(self.model).items() if value is not None and name != "preset"}

    def model_config(self, processor: GridProcessor, num_puzzles: int) -> TRMConfig:
        """The config of the model that this recipe trains on such grids, with so many rows in its puzzle table."""
        overrides = self.architecture()
        if self.optimisation.loss_on == "blanks":
            overrides.setdefault("blank_token_id", processor.blank_token_id)
        if self.optimisation.objective == "dis":
            steps = overrides.get("halt_max_steps", IMPROVEMENT["halt_max_steps"])
            for name, value in (IMPROVEMENT | {"num_step_embeddings": steps}).items():
                overrides.setdefault(name, value)
        height, width = processor.grid_shape
        if height != width:
            overrides.setdefault("grid_width", width)
        sizes = {"vocab_size": processor.vocab_size, "seq_len": processor.seq_len, "num_puzzles": num_puzzles}
        return TRMConfig.from_preset(self.model.preset or PRESET, **sizes, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Flat, without the architecture fields that are left to the preset; what a YAML recipe would say."""
        model = {name: value for name, value in vars(self.model).items() if value is not None}
        return model | vars(self.data) | vars(self.optimisation) | vars(self.run)

    def stated(self) -> dict[str, Any]:
        """A recipe that says the same without its defaults, and without a preset of which it overrides every field."""
        stated = {name: value for name, value in self.to_dict().items() if value != _default(FIELDS[name])}
        if "preset" in stated and PRESETS[stated["preset"]].keys() <= stated.keys():
            del stated["preset"]
        return stated


def parse_recipe(arguments: Sequence[str]) -> Recipe:
    """A recipe from command-line arguments: [NAME_OR_PATH] [--field value ...].

    Raises:
        ValueError: no such recipe, one that is no YAML mapping, an unknown field (with the nearest known one), a bad
            value, with the file and line that say it.
        OSError: the recipe cannot be read.
    """
    rest = list(arguments)
    name = rest.pop(0) if rest and not rest[0].startswith("-") else None
    typed_here = options_by_name(rest, [name for name, one in FIELDS.items() if one.type is bool])
    stated = override({} if name is None else read_recipe(name), typed_here)
    try:
        return _recipe(stated)
    except FieldError as error:
        place = None if name is None or error.field in typed_here else where_stated(name, error.field)
        raise ValueError(str(error) if place is None else f"{error} ({place})") from error


def _recipe(stated: Mapping[str, Any]) -> Recipe:
    for name in map(str, stated):
        check_known(name, FIELDS, RENAMED, FROM_DATA)
    values = {name: typed(name, value, FIELDS[name].type, _default(FIELDS[name])) for name, value in stated.items()}
    return Recipe(
        *(part(**{one.name: values[one.name] for one in fields(part) if one.name in values}) for part in PARTS)
    )
