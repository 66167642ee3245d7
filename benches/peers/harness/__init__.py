"""What all peer benchmarks share: the engine by ctypes, gated sampling, limits, table, plot, JSON."""
