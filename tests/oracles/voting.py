"""Voting pass@K with dictionaries and loops, as the published evaluator computes it. Source: arXiv 2510.04871, public
code evaluators/arc.py: votes grouped by input and grid, the mean halt probability as second key, a stable sort.

Here a grid is text, and a test input its number; the empty grid "" is a candidate like any other, and exact ties keep
the order in which the grids were first predicted.
"""


def published_ranking(votes: list[tuple[str, float]]) -> list[str]:
    """Grids of one input, best first; `votes` are (grid, halt probability) in the order of prediction."""
    tally: dict[str, list[float]] = {}
    for grid, halt_probability in votes:
        if grid not in tally:
            tally[grid] = [0, 0.0]
        tally[grid][0] += 1
        tally[grid][1] += halt_probability
    entries = [(count, total / count, grid) for grid, (count, total) in tally.items()]
    ranking: list[str] = []
    while entries:  # selection sort: the earliest of the best comes first
        best = 0
        for place in range(1, len(entries)):
            if entries[place][:2] > entries[best][:2]:
                best = place
        ranking.append(entries.pop(best)[2])
    return ranking


def published_pass_at_k(
    votes: list[list[tuple[str, float]]], references: list[str], task_ids: list[str], k: list[int]
) -> dict[str, float]:
    """Mean over the tasks of the share of their inputs whose reference is among the first K of the ranking."""
    figures = {}
    for places in k:
        total = 0.0
        for task in sorted(set(task_ids)):
            solved, inputs = 0, 0
            for number, owner in enumerate(task_ids):
                if owner == task:
                    inputs += 1
                    solved += references[number] in published_ranking(votes[number])[:places]
            total += solved / inputs
        figures[f"pass@{places}"] = total / len(set(task_ids))
    return figures
