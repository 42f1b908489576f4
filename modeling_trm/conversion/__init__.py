"""Checkpoints of other code in and out: the public TinyRecursiveModels code, mamba_ssm and transformers' Mamba-2."""
