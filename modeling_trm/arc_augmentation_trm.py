"""ARC augmentations: the eight dihedral maps times the permutations of the colours 1..9, drawn without duplicates.

Source: the public code of arXiv 2510.04871, dataset/build_arc_dataset.py: 1000 augmentations a task, drawn at random;
one whose puzzle (all its pairs, as a multiset) occurred before is dropped; at most 5 * 1000 trials. There each trial
rebuilds and hashes every grid. Here a grid is hashed once for each dihedral map, by a hash that is linear in the
colours, so that a trial costs one multiplication a grid and colour:

    S[d, c] = sum of position_key(cell) over the cells that have colour c after map d
    hash of the grid under map d and colours p = sum over c of S[d, c] * colour_key[p[c]]      (mod 2^64)

A position key depends on cell, shape and side (input or output). The hash of a pair mixes those of its two grids, that
of a puzzle is the sum over its pairs. Two lanes with keys of their own make 128 bits.

Shapes: N augmentations, G grids of a task, lane 2 (last axis of every hash), 8 dihedral maps, 10 colours.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .arc_task_trm import MAX_SIDE, NUM_COLOURS, ArcTask
from .augmentation_trm import NUM_DIHEDRALS, Dihedral
from .puzzle_index_trm import AUGMENTATION_BYTES, IDENTITY
from .randomness_trm import mix, random_bits, random_permutations

MAX_TRIALS_FACTOR = 5  # the reference's bound: tasks with few colours have fewer distinct puzzles than are asked for
STREAM_ARC_DIHEDRAL, STREAM_ARC_COLOURS, STREAM_INPUT_KEYS, STREAM_OUTPUT_KEYS, STREAM_COLOUR_KEYS = range(21, 26)
KEY_SEED = 0  # of the hash's keys; no draw depends on it, except for a collision of 128 bits
LANES = 2


@dataclass(frozen=True)
class ArcAugmentation:
    """grid -> its colours renamed, then mapped by the dihedral map of that number (see `Dihedral`).

    `colours[c]` is the colour that c becomes; 0, the background, stays.
    """

    dihedral: int
    colours: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dihedral not in range(NUM_DIHEDRALS):
            raise ValueError(f"dihedral={self.dihedral!r} must be one of 0..{NUM_DIHEDRALS - 1}")
        if sorted(self.colours) != list(range(NUM_COLOURS)) or self.colours[0] != 0:
            raise ValueError(f"colours={self.colours} must be a permutation of 0..{NUM_COLOURS - 1} that keeps 0")

    @classmethod
    def identity(cls) -> "ArcAugmentation":
        return cls.from_bytes(IDENTITY)

    def apply(self, grid: np.ndarray) -> np.ndarray:
        """Colours [..., height, width] -> the transformed grids, of the same type; the input is left alone."""
        return Dihedral.from_number(self.dihedral).apply(np.array(self.colours, dtype=grid.dtype)[grid])

    def inverse(self) -> "ArcAugmentation":
        colours = tuple(self.colours.index(colour) for colour in range(NUM_COLOURS))
        return ArcAugmentation(Dihedral.from_number(self.dihedral).inverse().number, colours)

    def to_bytes(self) -> np.ndarray:
        """uint8 [11]: the dihedral number, then the colours. As in `PuzzleIndex.augmentation_of_row`."""
        return np.array([self.dihedral, *self.colours], dtype=np.uint8)

    @classmethod
    def from_bytes(cls, values: np.ndarray) -> "ArcAugmentation":
        if values.shape != (AUGMENTATION_BYTES,):
            raise ValueError(f"an ARC augmentation has {AUGMENTATION_BYTES} bytes, not shape {values.shape}")
        dihedral, *colours = values.tolist()
        return cls(dihedral, tuple(colours))

    def __str__(self) -> str:
        return f"arc/{self.dihedral:03b}/{''.join(map(str, self.colours))}"

    @classmethod
    def from_string(cls, text: str) -> "ArcAugmentation":
        head, _, rest = text.partition("/")
        bits, _, colours = rest.partition("/")
        if head != "arc" or len(bits) != 3 or set(bits) - set("01") or set(colours) - set("0123456789"):
            raise ValueError(f"{text!r} is no ARC augmentation; the form is arc/TRC/COLOURS: three bits, ten digits")
        return cls(int(bits, 2), tuple(map(int, colours)))


def draw_augmentations(task: ArcTask, count: int, seed: int, keep_colours: bool = False) -> np.ndarray:
    """uint8 [N, 11], N <= count + 1: the identity, then up to `count` more; the puzzles they give all differ.

    Trial t is a pure function of (seed, task id, t); the first of several trials with the same puzzle is kept.
    N is smaller where 5 * count trials do not bring so many.

    Args:
        keep_colours: the dihedral maps alone, in the order of their numbers; nothing is drawn.
    """
    if count < 0:
        raise ValueError(f"count={count} must not be negative")
    hasher = _PuzzleHasher(task)
    if keep_colours:
        maps = np.repeat(IDENTITY[None], NUM_DIHEDRALS, axis=0)
        maps[:, 0] = np.arange(NUM_DIHEDRALS)
        return maps[_first_of_each(hasher.keys(maps))][: count + 1]
    kept = IDENTITY[None]
    keys = hasher.keys(kept)
    done, bound = 0, MAX_TRIALS_FACTOR * count
    while len(kept) <= count and done < bound:
        # How many at once changes nothing but the time; some are drawn in stock for those that will be duplicates.
        missing = count + 1 - len(kept)
        size = min(missing + missing // 8 + 16, bound - done)
        trials = random_augmentations(task.id, np.arange(done, done + size), seed)
        done += size
        kept = np.concatenate([kept, trials])
        keys = np.concatenate([keys, hasher.keys(trials)])
        fresh = _first_of_each(keys)
        kept, keys = kept[fresh], keys[fresh]
    return kept[: count + 1]


def random_augmentations(task_id: str, trials_N: np.ndarray, seed: int) -> np.ndarray:
    """uint8 [N, 11]: trial t of a task for each t, uniform over the 8 * 9! augmentations; duplicates are possible."""
    digest = hashlib.sha256(task_id.encode("utf-8")).digest()
    # An array, not a scalar: its sums wrap around silently.
    counters_N = np.frombuffer(digest[:8], dtype="<u8") + trials_N.astype(np.uint64)
    augmentations = np.zeros((len(counters_N), AUGMENTATION_BYTES), dtype=np.uint8)
    augmentations[:, 0] = random_bits(seed, counters_N, STREAM_ARC_DIHEDRAL, 1)[:, 0] >> np.uint64(61)
    augmentations[:, 2:] = random_permutations(seed, counters_N, STREAM_ARC_COLOURS, NUM_COLOURS - 1) + 1
    return augmentations


def puzzle_keys(task: ArcTask, augmentations: np.ndarray) -> np.ndarray:
    """uint64 [N, 2] for augmentations uint8 [N, 11]: equal where the augmented puzzles are (up to 128-bit collisions).

    A puzzle is the multiset of its pairs, demonstrations and tests alike; of a test without output, its input.
    """
    return _PuzzleHasher(task).keys(augmentations)


class _PuzzleHasher:
    """The colour sums of all grids of a task, one after another; a part is the cells of one colour in one grid."""

    def __init__(self, task: ArcTask):
        pairs = (*task.train, *task.test)
        grids = [(pair.input, STREAM_INPUT_KEYS) for pair in pairs]
        grids += [(pair.output, STREAM_OUTPUT_KEYS) for pair in pairs if pair.output is not None]
        colours = np.concatenate([grid.ravel() for grid, _ in grids])
        grid_of_cell = np.repeat(np.arange(len(grids)), [grid.size for grid, _ in grids])
        part_of_cell = grid_of_cell * NUM_COLOURS + colours
        order = np.argsort(part_of_cell, kind="stable")
        parts, first_cells = np.unique(part_of_cell[order], return_index=True)
        keys = np.concatenate([_moved_keys(*grid.shape, stream) for grid, stream in grids])[order]
        self.sums = np.add.reduceat(keys, first_cells, axis=0)  # [parts, 8, 2]
        self.colour_of_part = parts % NUM_COLOURS
        self.first_parts = np.unique(parts // NUM_COLOURS, return_index=True)[1]  # of each grid
        self.has_output = np.array([pair.output is not None for pair in pairs])

    def keys(self, augmentations: np.ndarray) -> np.ndarray:
        colour_keys = random_bits(KEY_SEED, np.arange(NUM_COLOURS), STREAM_COLOUR_KEYS, LANES)
        products = colour_keys[augmentations[:, 1:].T][self.colour_of_part]  # [parts, N, 2]
        products *= self.sums[:, augmentations[:, 0]]
        hashes = np.add.reduceat(products, self.first_parts, axis=0)  # [G, N, 2]
        inputs = hashes[: len(self.has_output)]
        outputs = np.zeros_like(inputs)
        outputs[self.has_output] = hashes[len(self.has_output) :]
        # Not symmetric, and not linear: which output belongs to which input counts.
        return mix(mix(inputs) + outputs).sum(axis=0)


@lru_cache(maxsize=128)
def _moved_keys(height: int, width: int, stream: int) -> np.ndarray:
    """uint64 [height * width, 8, 2]: for each dihedral map, the key of the place to which each cell moves."""
    moved = []
    for number in range(NUM_DIHEDRALS):
        dihedral = Dihedral.from_number(number)
        keys = _position_keys(*((width, height) if dihedral.transpose else (height, width)), stream)
        moved.append(dihedral.inverse().apply(keys).reshape(LANES, height * width).T)
    return np.stack(moved, axis=1)


@lru_cache(maxsize=128)
def _position_keys(height: int, width: int, stream: int) -> np.ndarray:
    """uint64 [2, height, width]: a key for each cell of a grid of this shape."""
    cells = (height * (MAX_SIDE + 1) + width) * MAX_SIDE**2 + np.arange(height * width)  # of all shapes
    return random_bits(KEY_SEED, cells, stream, LANES).T.reshape(LANES, height, width)


def _first_of_each(keys: np.ndarray) -> np.ndarray:
    """int64: the row numbers, ascending, of the first of each set of equal rows of uint64 [N, 2]."""
    order = np.lexsort(keys.T)  # stable: of equal rows the first comes first
    ordered = keys[order]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.sort(order[is_first])
