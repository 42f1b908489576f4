"""`python -m modeling_trm.doctor`: what this machine has, which paths a model takes and why, what is missing."""
