"""Train on puzzles of your own: a csv with the columns question and answer. Here 4 x 4 Sudokus, made on the spot.

python examples/train_own_csv.py
"""

import csv
import random

from modeling_trm.commands import trm

SOLVED = "1234341221434321"
draw = random.Random(0)

with open("own.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["question", "answer"])
    for _ in range(200):
        digits = dict(zip("1234", draw.sample("1234", 4)))
        answer = "".join(digits[cell] for cell in SOLVED)
        blanks = set(draw.sample(range(16), 3))
        rows.writerow(["".join("." if i in blanks else cell for i, cell in enumerate(answer)), answer])

small = "--block_operators mlp_t mlp --hidden_size 32 --train_steps 20 --batch_size 16 --eval_every 10 --warmup_steps 2"
trm.main(["train", "quickstart", "--data", "own.csv", "--output_dir", "runs/own", *small.split(), "--compile", "no"])
trm.main(["solve", "--model", "runs/own/model", "12.4341221434321"])
