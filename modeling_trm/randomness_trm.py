"""Counter-based random numbers: every draw is a pure function of (seed, counter, stream).

Library generators may change their sequences between versions, and their state would have to be saved to resume a run.
A hash of the counter has neither problem, and it works on a whole batch at once. The mixer is splitmix64
(Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

import numpy as np

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def mix(bits: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser on uint64 [...]: a bijection whose outputs look independent."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def random_bits(seed: int, counters_N: np.ndarray, stream: int, count: int) -> np.ndarray:
    """uint64 [N, count]: `count` draws for each counter. Streams keep the uses of one counter apart."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed={seed} is not allowed; allowed: 0 to 2**64 - 1")
    # Arrays, not scalars: unsigned arrays wrap around silently, as the hash needs; scalars warn.
    key = mix(np.array([seed, stream], dtype=np.uint64) + GOLDEN_GAMMA)
    state_N = mix(mix(np.asarray(counters_N).astype(np.uint64) ^ key[:1]) + key[1:])
    steps = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_GAMMA
    return mix(state_N[:, None] + steps[None, :])


def random_floats(seed: int, counters_N: np.ndarray, stream: int, count: int) -> np.ndarray:
    """float64 [N, count] in [0, 1), from the upper 53 bits."""
    return (random_bits(seed, counters_N, stream, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_permutations(seed: int, counters_N: np.ndarray, stream: int, size: int) -> np.ndarray:
    """int64 [N, size]: one permutation of 0..size-1 a counter."""
    return np.argsort(random_bits(seed, counters_N, stream, size), axis=1, kind="stable")


def subset_rows(row_numbers_N: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Which rows a subset keeps: those with the `size` smallest hashes of (seed, row number), in file order."""
    keys_N = random_bits(seed, row_numbers_N, stream=0, count=1)[:, 0]
    return np.sort(row_numbers_N[np.argsort(keys_N, kind="stable")[:size]])
