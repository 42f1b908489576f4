"""The trainer's library: recipe arguments, ACT slots, optimisers, schedule, weight average, checkpoints, the loop."""
