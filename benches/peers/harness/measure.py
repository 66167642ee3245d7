"""Gated, alternating samples."""

import statistics
import time


class LeftOut(Exception):
    """Why a peer does not do a case."""


class Timed:
    """Something to time: `run(n)` computes n times, `call()` once and returns the output, whose error
    may be `tolerance` (None: the usual for the type)."""

    def __init__(self, name, call, run=None, tolerance=None):
        self.name, self.call, self.tolerance = name, call, tolerance
        self.run = run or self._run

    def _run(self, n):
        for _ in range(n):
            self.call()


class Samples:
    def __init__(self, function):
        self.function, self.times, self.speeds = function, [], []
        self.repeats, self.spent = 1, 0.0

    def calibrate(self, sample_seconds):
        """Chooses how many calls make a sample; a first call, which may compile, does not count."""
        for _ in range(2):
            begin = time.perf_counter()
            self.function.run(1)
            once = max(time.perf_counter() - begin, 1e-6)
            if once > 1:
                break
        self.repeats = max(1, int(sample_seconds / once))
        if self.repeats > 1:
            self.function.run(min(self.repeats, 10))

    def take(self, probe):
        before = probe.before()
        begin = time.perf_counter()
        self.function.run(self.repeats)
        elapsed = time.perf_counter() - begin
        self.times.append(elapsed / self.repeats)
        self.speeds.append(min(before, probe.after()))
        self.spent += elapsed

    def kept(self, probe):
        return [t for t, s in zip(self.times, self.speeds) if probe.quiet(s)]


class Result:
    """Median milliseconds of each function over the samples that passed the gate, which `kept` counts.
    Where one function has none, all medians are over all samples, so that no one is compared by the
    luck of a quiet moment, and `gated` is false for those without."""

    def __init__(self, samples, probe):
        self.ms, self.kept, self.gated = {}, {}, {}
        whole = all(s.kept(probe) for s in samples)
        for s in samples:
            kept = s.kept(probe)
            self.ms[s.function.name] = 1e3 * statistics.median(kept if whole else s.times)
            self.kept[s.function.name] = len(kept)
            self.gated[s.function.name] = bool(kept)

    def only(self, name):
        """One function's part of the result, as "ours"."""
        part = object.__new__(Result)
        part.ms, part.kept, part.gated = {"ours": self.ms[name]}, {"ours": self.kept[name]}, {"ours": self.gated[name]}
        return part


def alternate(functions, probe, seconds, most=25, least=3, sample_seconds=0.010):
    """Samples the functions in turn, so that all see the same machine, for about `seconds`.

    Each has an equal share of the time; a slow one gets at least `least` samples all the same if
    they fit into its share twice over, else one. Ends early when all have `most` samples that passed the gate.
    """
    samples = [Samples(f) for f in functions]
    for s in samples:
        s.calibrate(sample_seconds)
    share = seconds / len(samples)
    deadline = time.perf_counter() + seconds

    def wants(s):
        if not s.times:
            return True
        if len(s.kept(probe)) >= most:
            return False
        typical = s.spent / len(s.times)
        return s.spent + typical <= share or (len(s.times) < least and s.spent + typical <= 2 * share)

    first = 0
    while True:
        turn = [s for s in samples[first:] + samples[:first] if wants(s)]
        if not turn or time.perf_counter() > deadline and all(s.times for s in samples):
            return Result(samples, probe)
        for s in turn:
            s.take(probe)
        first = (first + 1) % len(samples)
