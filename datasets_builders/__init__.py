"""Puzzle data: sources, validation, augmentation on the fly, and the folders that go to the Hub (see README.md).

Nothing is imported here, so that `datasets_builders.sampling` needs neither `datasets` nor pyarrow. The augmentations
and the random numbers they are drawn from are modeling_trm's augmentation_trm and randomness_trm: they vote at
inference as well, so they travel with a checkpoint.
"""
