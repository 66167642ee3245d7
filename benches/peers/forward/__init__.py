"""Linear layers and memory-bound kernels beside their peers: groups `linear` and `elementwise`."""
