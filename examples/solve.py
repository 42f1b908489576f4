"""Solve a Sudoku with a checkpoint that comes with the package, and watch the answer change.

python examples/solve.py
"""

from transformers import pipeline

from modeling_trm.utils.shipped import find_checkpoint

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"

solver = pipeline("grid-reasoning", model=find_checkpoint("tr-mamba2mlpt-sudoku-quickstart"), trust_remote_code=True)
result = solver(PUZZLE, max_steps=16, halt=0.95, return_trace=True)
for step in result["trace"]:
    print(step["step"], step["answer"], f"halt probability {step['halt_probability']:.3f}")
print(solver.feature_extractor.render(result["answer"]))
