"""Sampler steps and random numbers beside PyTorch: groups `step` and `noise`."""
