"""Solve puzzles with an exported checkpoint: numpy and onnxruntime alone, neither PyTorch nor transformers."""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    from ..exporting.solve_onnx import main as run  # it imports numpy, and stands alone where it is copied to

    return run(argv, "trm solve-onnx")
