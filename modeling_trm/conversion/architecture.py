"""From the tensors and from what is given: the TRMConfig of a reference checkpoint, each field with its reason.

Source: models/recursive_reasoning/trm.py of the public code of arXiv 2510.04871. Tensors tell neither the cycles nor
the heads of attention: these must be given. What the reference's code fixes is taken from there, recorded as assumed.
"""

from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from ..configuration_trm import TRMConfig
from ..processing_trm import GridProcessor
from .checkpoint_file import ConversionError
from .given import Said
from .layout import Layout

# The defaults of the reference's configuration class, and of its arch YAML for halt_max_steps and forward_dtype.
ASSUMED: dict[str, Any] = {"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "puzzle_emb_len": 16, "halt_max_steps": 16}
EXPANSION = 4
# What --puzzle-emb-len says about a file without a puzzle table.
NO_TABLE = "0 = trained without a puzzle table, 16 = the table was stripped and a blank row of zeros takes its place"
TASK_OF_VOCABULARY = {11: "sudoku", 6: "maze", 12: "arc"}


@dataclass(frozen=True)
class Architecture:
    config: TRMConfig
    processor: GridProcessor
    facts: dict[str, str]


def choose_processor(
    layout: Layout, source: str, task: str | None, grid_shape: tuple[int, int] | None, alphabet: str | None
) -> tuple[GridProcessor, str]:
    """The processor of the grids that the model reads, and how it was told.

    Raises:
        ConversionError: a vocabulary that no task or several could have, or one that is not the task's.
    """
    origin = "--task"
    if task is None:
        task = TASK_OF_VOCABULARY.get(layout.vocab_size)
        origin = f"inferred from the {layout.vocab_size} token ids"
        if task is None or (grid_shape is not None and task == "sudoku" and tuple(grid_shape) != (9, 9)):
            raise ConversionError(
                f"{source}: has {layout.vocab_size} token ids, which tells no task; add --task sudoku, maze, arc, or "
                f"grid with --alphabet and --grid-shape"
            )
    try:
        processor = GridProcessor(task, grid_shape=grid_shape, alphabet=alphabet)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    if processor.vocab_size != layout.vocab_size:
        raise ConversionError(
            f"{source}: has {layout.vocab_size} token ids (tensors), --task {task} needs {processor.vocab_size}"
        )
    return processor, origin


def resolve(layout: Layout, said: Said, processor: GridProcessor, source: str) -> Architecture:
    """The configuration of the checkpoint, checked against everything that is given.

    Raises:
        ConversionError: what must be given and is not, with the options to add; or two facts that contradict, by name.
    """
    _require_given(layout, said, source)
    facts: dict[str, str] = {}

    def take(name: str) -> Any:
        if name in said.values:
            facts[name] = f"{said.get(name)} ({said.origins[name]})"
            return said.get(name)
        facts[name] = f"{ASSUMED[name]} (assumed: the reference's own default)"
        return ASSUMED[name]

    for name, inferred in (
        ("mlp_t", layout.mixer == "mlp_t"),
        ("hidden_size", layout.hidden_size),
        ("L_layers", layout.layers),
        ("vocab_size", layout.vocab_size),
    ):
        said.check(name, inferred, source)
    if "seq_len" in said.values and said.get("seq_len") != processor.seq_len:
        raise ConversionError(
            f"seq_len={said.get('seq_len')} ({said.origins['seq_len']}) does not fit a {processor.task} grid of "
            f"{' x '.join(map(str, processor.grid_shape))}; say which with --task and --grid-shape"
        )
    prefix = _prefix(layout, said, processor, source, facts)
    fields: dict[str, Any] = {
        "vocab_size": layout.vocab_size,
        "seq_len": processor.seq_len,
        "puzzle_prefix_len": prefix,
        "num_puzzles": layout.table[0] if layout.table else 1,
        "hidden_size": layout.hidden_size,
        "block_operators": [layout.mixer, "mlp"] * layout.layers,
        "mlp_expansion": _expansion(layout, said, source),
        "position_embedding": _positions(layout, said, source, facts),
    }
    fields |= {name: take(name) for name in ("H_cycles", "L_cycles", "halt_max_steps", "rms_norm_eps")}
    if layout.mixer == "attention":
        fields |= {"num_attention_heads": take("num_heads"), "rope_theta": float(take("rope_theta"))}
    try:
        return Architecture(TRMConfig(**fields), processor, facts)
    except (StrictDataclassError, ValueError) as error:
        reason = error.__cause__ or error
        raise ConversionError(f"{source}: {' '.join(str(reason).split())}") from error


def _require_given(layout: Layout, said: Said, source: str) -> None:
    needed = ["H_cycles", "L_cycles"] + ["num_heads"] * (layout.mixer == "attention")
    # Without a table the code says that there is no prefix; but somebody may have taken the table out of the file.
    unknown = layout.table is None and layout.positions is None and "puzzle_emb_ndim" not in said.values
    needed += ["puzzle_emb_len"] * unknown
    missing = [name for name in needed if name not in said.values]
    if missing:
        options = " ".join(f"--{name.replace('_', '-')} N" for name in missing)
        meanings = f" ({NO_TABLE})" if "puzzle_emb_len" in missing else ""
        raise ConversionError(
            f"{source}: its tensors do not tell {', '.join(missing)}; add {options}{meanings}, or --arch with the "
            f"YAML of its training run"
        )


def _prefix(layout: Layout, said: Said, processor: GridProcessor, source: str, facts: dict[str, str]) -> int:
    """Positions in front of the grid. In the reference puzzle_emb_len=0 means: as many as the table's rows fill."""
    D = layout.hidden_size
    if layout.table is not None:
        rows, width = layout.table
        said.check("puzzle_emb_ndim", width, source)
        said.check("num_puzzle_identifiers", rows, source)
        if width > D:
            raise ConversionError(
                f"{source}: rows of the puzzle table have {width} numbers; allowed: up to hidden_size={D}, the first "
                f"position of the prefix"
            )
        facts["puzzle table"] = f"{rows:,} rows of {width}" + (f", padded with zeros to {D}" if width < D else "")
    length = said.values.get("puzzle_emb_len")
    width = layout.table[1] if layout.table else said.values.get("puzzle_emb_ndim", D if length != 0 else 0)
    if length == 0 or width == 0:
        if width == 0 and length:
            raise ConversionError(f"puzzle_emb_ndim=0 with puzzle_emb_len={length}: the reference cannot run that")
        length = -(-width // D)
    if layout.positions is not None:
        told = layout.positions - processor.seq_len
        if told < 0 or length not in (None, told):
            grid = " x ".join(map(str, processor.grid_shape))
            raise ConversionError(
                f"{source}: has {layout.positions} positions (tensors), but a prefix of "
                f"{ASSUMED['puzzle_emb_len'] if length is None else length} and a {processor.task} grid of {grid} are "
                f"{(length or 0) + processor.seq_len}; give the --task, --grid-shape and --puzzle-emb-len it has"
            )
        facts["puzzle_emb_len"] = f"{told} ({layout.positions} positions less {processor.seq_len} cells)"
        length = told
    elif length is None:
        length = ASSUMED["puzzle_emb_len"]
        facts["puzzle_emb_len"] = f"{length} (assumed: the reference's own default)"
    else:
        facts["puzzle_emb_len"] = f"{length} (given)"
    if layout.table is None and length:
        facts["puzzle table"] = "none in the file: one blank row of zeros"
    if layout.table is not None and not length:
        raise ConversionError(f"{source}: has a puzzle table, but no position for it (puzzle_emb_len={length})")
    return int(length)


def _positions(layout: Layout, said: Said, source: str, facts: dict[str, str]) -> str:
    given = said.get("pos_encodings")
    if layout.learned_positions:
        said.check("pos_encodings", "learned", source)
        return "learned"
    if given == "learned":
        said.check("pos_encodings", "rope or none", source)
    if given is None:
        assumed = "rope" if layout.mixer == "attention" else "none"
        facts["pos_encodings"] = f"{assumed} (assumed: no learned positions in the file)"
        return assumed
    facts["pos_encodings"] = f"{given} ({said.origins['pos_encodings']})"
    return given


def _expansion(layout: Layout, said: Said, source: str) -> int | float:
    """A factor that gives the inner widths of the tensors; several do, and all are the same function."""
    widths = {layout.hidden_size: layout.inner}
    if layout.positions is not None and layout.inner_t is not None:
        same = widths.setdefault(layout.positions, layout.inner_t) == layout.inner_t
        if not same:  # as many positions as channels
            raise ConversionError(
                f"{source}: mlp and mlp_t of one width have inner widths {layout.inner} and {layout.inner_t}; the "
                f"reference gives them one"
            )

    def fits(expansion: int | float) -> bool:
        try:
            config = TRMConfig(mlp_expansion=expansion)
            return all(config.inner_width(width) == inner for width, inner in widths.items())
        except (ValueError, StrictDataclassError):  # no width at all, or 1e308 times one
            return False

    told = ", ".join(f"{inner} over {width}" for width, inner in widths.items())
    if "expansion" in said.values:
        if not fits(said.get("expansion")):
            raise ConversionError(
                f"expansion={said.get('expansion')} ({said.origins['expansion']}) does not give the inner widths of "
                f"{source}: {told} (tensors)"
            )
        return said.get("expansion")
    candidates = [EXPANSION, *range(1, 17), *(1.5 * inner / width for width, inner in widths.items())]
    for expansion in candidates:
        if fits(expansion):
            return expansion
    raise ConversionError(
        f"{source}: no expansion gives the inner widths {told}: the reference rounds 2/3 * expansion * width up to a "
        f"multiple of {TRMConfig().mlp_multiple_of}"
    )
