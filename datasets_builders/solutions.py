"""Whether Sudokus have more than one solution: where one has, its label is one of several right answers.

Every puzzle is searched depth first, all of them in step: candidates that single and hidden digits rule out are struck
off in the latest open states of all puzzles at once, then each such state is split over its narrowest cell.

Shapes: N puzzles, M states, S side, C = S * S cells, U = 3 * S units (rows, columns, boxes). A state is int32 [C], with
bit d of a cell set while digit d may stand there.
"""

import numpy as np

FIRST_DIGIT_ID = 2  # token ids as in GridProcessor("sudoku")
STATES_AT_A_TIME = 256
MOST_OF_A_PUZZLE = 4  # more of one puzzle would no longer be depth first
STATES_OF_A_PUZZLE = 2000  # then it counts as one without a second solution


def several_solutions(inputs_NC: np.ndarray, units_US: np.ndarray) -> np.ndarray:
    """bool [N]: a second solution was found.

    Args:
        inputs_NC: uint8 token ids. units_US: the cells of every row, column and box.
    """
    starts = range(0, len(inputs_NC), STATES_AT_A_TIME)
    parts = [_search(inputs_NC[start : start + STATES_AT_A_TIME], units_US) for start in starts]
    return np.concatenate([np.zeros(0, dtype=bool), *parts])


def singles_solve(inputs_NC: np.ndarray, units_US: np.ndarray) -> np.ndarray:
    """bool [N]: naked and hidden singles alone fill every cell, so that the solution is the only one.

    Args: as several_solutions.
    """
    states_NC, alive_N = _strike_off(_first_states(inputs_NC, units_US.shape[1]), units_US, _units_of_cells(units_US))
    return alive_N & (states_NC & (states_NC - 1) == 0).all(axis=1)


def _units_of_cells(units_US: np.ndarray) -> np.ndarray:
    """int64 [C, 3]: the row, the column and the box of each cell, as rows of units_US."""
    side = units_US.shape[1]
    return np.argsort(units_US.reshape(3, -1), axis=1).T // side + side * np.arange(3)


def _first_states(inputs_NC: np.ndarray, side: int) -> np.ndarray:
    bits = np.array([(1 << side) - 1] * FIRST_DIGIT_ID + [1 << digit for digit in range(side)], dtype=np.int32)
    return bits[inputs_NC]


def _search(inputs_NC: np.ndarray, units_US: np.ndarray) -> np.ndarray:
    side = units_US.shape[1]
    units_C3 = _units_of_cells(units_US)
    stacks = [[state_C] for state_C in _first_states(inputs_NC, side)]
    found, searched = np.zeros(len(stacks), dtype=np.int64), np.zeros(len(stacks), dtype=np.int64)
    while True:
        going = [n for n, stack in enumerate(stacks) if stack and found[n] < 2 and searched[n] < STATES_OF_A_PUZZLE]
        if not going:
            return found >= 2
        width = min(STATES_AT_A_TIME // len(going), MOST_OF_A_PUZZLE)
        owners = [number for number in going for _ in stacks[number][-width:]]
        states_MC, alive_M = _strike_off(
            np.stack([state_C for number in going for state_C in stacks[number][-width:]]), units_US, units_C3
        )
        for number in going:
            del stacks[number][-width:]
        several_MC = (states_MC & (states_MC - 1)) != 0
        counts_MC = np.where(several_MC, sum(states_MC >> digit & 1 for digit in range(side)), side + 1)
        for owner, state_C, is_alive, cell, is_open in zip(
            owners, states_MC, alive_M, counts_MC.argmin(axis=1).tolist(), several_MC.any(axis=1), strict=True
        ):
            searched[owner] += 1
            if is_alive and is_open:
                stacks[owner] += _split(state_C, cell, side)
            elif is_alive:
                found[owner] += 1


def _strike_off(states_MC: np.ndarray, units_US: np.ndarray, units_C3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The states without the candidates that cannot be, as far as singles tell, and which are without contradiction."""
    everything = np.int32((1 << units_US.shape[1]) - 1)
    alive_M = np.ones(len(states_MC), dtype=bool)
    while True:
        before = states_MC
        singles = np.where(before & (before - 1), 0, before)
        placed_MU, placed_twice_MU = _once_and_twice(singles, units_US)
        states_MC = before & ~(np.bitwise_or.reduce(placed_MU[:, units_C3], axis=2) & ~singles)
        once_MU, twice_MU = _once_and_twice(states_MC, units_US)
        hidden = states_MC & np.bitwise_or.reduce((once_MU & ~twice_MU)[:, units_C3], axis=2)
        states_MC = np.where(hidden, hidden, states_MC)
        alive_M &= ~placed_twice_MU.any(axis=1) & (once_MU == everything).all(axis=1) & states_MC.all(axis=1)
        if not (states_MC != before)[alive_M].any():
            return states_MC, alive_M


def _once_and_twice(states_MC: np.ndarray, units_US: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 [M, U] bits of the digits that at least one, and at least two, cells of a unit may have."""
    once = np.zeros((len(states_MC), len(units_US)), dtype=np.int32)
    twice = np.zeros_like(once)
    for cells_U in units_US.T:
        candidates = states_MC[:, cells_U]
        twice |= once & candidates
        once |= candidates
    return once, twice


def _split(state_C: np.ndarray, cell: int, side: int) -> list[np.ndarray]:
    """A state for each candidate of a cell."""
    children = []
    for digit in range(side):
        if state_C[cell] >> digit & 1:
            child = state_C.copy()
            child[cell] = 1 << digit
            children.append(child)
    return children
