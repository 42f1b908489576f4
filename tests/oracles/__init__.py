"""Naive transcriptions of the published formulas, in float64 and with loops: what the fast code is compared with.

Each takes plain tensors and a dictionary of weights by name, imports nothing of the code under test, and is written
from the papers and from descriptions of the reference implementation, not from our code.
"""
