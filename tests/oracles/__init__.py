"""Naive transcriptions of the published formulas, in float64 and with loops: what the fast code is compared with.

Each takes plain tensors and a dictionary of weights by name, imports nothing of the code under test, and is written from
the papers and from the reference implementation's description, not from our code.
"""
