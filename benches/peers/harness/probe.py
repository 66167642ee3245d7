"""The limits of the machine, and the gate that keeps samples of a quiet machine only."""

import ctypes
import hashlib
import os
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def compile_c(name, cache, *flags):
    """Compiles harness/NAME.c into a shared library in the cache folder, unless it is there."""
    source = os.path.join(HERE, name + ".c")
    command = [os.environ.get("CC", "cc"), "-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared", *flags]
    with open(source, "rb") as f:
        key = hashlib.sha256(f.read() + " ".join(command).encode()).hexdigest()[:12]
    library = os.path.join(cache, f"{name}-{key}.so")
    if not os.path.exists(library):
        os.makedirs(cache, exist_ok=True)
        subprocess.run([*command, "-o", library + ".new", source, "-lpthread"], check=True)
        os.replace(library + ".new", library)
    return library


def others_run():
    """Whether another thread of this process runs or wants to. Processor times would not tell: the kernel
    counts those of running threads at its ticks."""
    tasks = "/proc/self/task"
    if not os.path.isdir(tasks):
        begin = time.process_time()
        time.sleep(0.02)
        return time.process_time() - begin > 1e-3
    for task in os.listdir(tasks):
        if int(task) == threading.get_native_id():
            continue
        try:
            with open(f"{tasks}/{task}/stat") as f:
                # The name, in brackets, may hold anything.
                if f.read().rpartition(")")[2].split()[0] == "R":
                    return True
        except FileNotFoundError:
            continue
    return False


class Probe:
    """FMA peak of `threads` threads, kept up to date; `gate` is the share of it that counts as quiet."""

    def __init__(self, cache, threads, gate=0.9):
        self.lib = ctypes.CDLL(compile_c("probe", cache))
        for f in (self.lib.probe_fma_f32, self.lib.probe_fma_bf16, self.lib.probe_read, self.lib.probe_mix):
            f.restype = ctypes.c_double
        self.threads, self.gate = threads, gate
        self.clean = self.clean_dots = 0.0
        self.rounds = 1000
        # Half a millisecond each: long beside the start of a thread, short beside a sample.
        while self._fma() and self.rounds * 2 * 16 * 16 * threads / self.clean < 0.5e-3:
            self.rounds *= 2
        self.calibrate()

    def _fma(self):
        speed = self.lib.probe_fma_f32(self.threads, ctypes.c_int64(self.rounds))
        self.clean = max(self.clean, speed)
        return speed

    def calibrate(self, seconds=1.0):
        """The clean peaks: the best of many short probes."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._fma()
            bf16 = self.lib.probe_fma_bf16(self.threads, ctypes.c_int64(self.rounds))
            self.clean_dots = max(self.clean_dots, bf16)

    @property
    def clean_bf16(self):
        """Where products of pairs are slower than those of their numbers, as on Intel, these are the limit."""
        return max(self.clean, self.clean_dots)

    def quiet(self, speed):
        return speed >= self.gate * self.clean

    def idle(self, tries=500):
        """Waits until no other thread of this process runs: the last peer's may spin for a while, which a
        probe, whose threads are new and go first, does not feel."""
        for _ in range(tries):
            time.sleep(0.001)
            if not others_run():
                break

    def before(self, tries=20):
        """Waits a little for a quiet machine."""
        self.idle()
        for _ in range(tries):
            speed = self._fma()
            if self.quiet(speed):
                break
            time.sleep(0.001)
        return speed

    def after(self):
        return self._fma()

    def read(self, address, size):
        """Seconds to read a buffer once with all threads."""
        return self.lib.probe_read(ctypes.c_void_p(address), ctypes.c_size_t(size), self.threads)

    def mix(self, ins, outs, streaming):
        """A function that reads and writes torch tensors of one size, the same element of all at once."""
        pointers = lambda ts: (ctypes.c_void_p * max(1, len(ts)))(*(t.data_ptr() for t in ts))
        size = ctypes.c_size_t(outs[0].numel() * outs[0].element_size())
        arguments = (pointers(ins), len(ins), pointers(outs), len(outs), size, self.threads, int(streaming))

        def run(owners=(ins, outs)):
            return self.lib.probe_mix(*arguments)

        return run

    def limits(self):
        """What goes into the .about.json of a run."""
        return {"threads": self.threads, "fma_f32_gflops": self.clean * 1e-9, "fma_bf16_gflops": self.clean_bf16 * 1e-9}


def last_level_cache():
    """Bytes of the largest cache, 32 MiB where the system does not say."""
    base, best = "/sys/devices/system/cpu/cpu0/cache", 0
    for index in os.listdir(base) if os.path.isdir(base) else []:
        try:
            with open(os.path.join(base, index, "size")) as f:
                text = f.read().strip()
            best = max(best, int(text[:-1]) << {"K": 10, "M": 20}[text[-1]])
        except (OSError, KeyError, ValueError):
            continue
    return best or 32 << 20
