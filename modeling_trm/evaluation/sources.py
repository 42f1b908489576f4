"""What the sources of the shipped samples are, in words; a source of another data set is its name alone."""

WORDS = {
    "gen_easy": "30 to 37 clues, solved by singles",
    "gen_unbiased": "random minimal puzzles, 20 to 29 clues",
    "gen_vicinity_hard": "neighbours of the hardest known puzzles",
    "gen_maze_10x10": "random walls, shortest path above 14 moves",
    "gen_maze_15x15": "random walls, shortest path above 30 moves",
    "gen_maze_20x20": "random walls, shortest path above 40 moves",
    "gen_maze_30x30_hard": "random walls, shortest path above 110 moves",
}


def source_in_words(name: str) -> str:
    return f"{name}: {WORDS[name]}" if name in WORDS else name
