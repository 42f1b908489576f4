"""Puzzle data: sources, validation, augmentation on the fly, and the folders that go to the Hub (see README.md).

Nothing is imported here, so that `datasets_builders.sampling` and `datasets_builders.augmentation` need numpy only.
"""
