"""Libraries behind the C interface of benches/peers/rust."""

import ctypes

import torch

from .measure import LeftOut


def load(path):
    lib = ctypes.CDLL(path)
    lib.rust_peer_new.restype = lib.rust_linear_new.restype = lib.rust_dit_new.restype = ctypes.c_void_p
    return lib


class Peer:
    """One with its own copy of the inputs; released with the object."""

    def __init__(self, lib, name, pointer, shape):
        self.lib, self.shape, self.pointer = lib, shape, pointer
        if not pointer:
            raise LeftOut(f"{name} refuses it")

    def run(self):
        if self.lib.rust_peer_run(ctypes.c_void_p(self.pointer)) != 0:
            raise LeftOut("it fails")

    def output(self):
        out = torch.empty(self.shape)
        status = self.lib.rust_peer_output(ctypes.c_void_p(self.pointer), ctypes.c_void_p(out.data_ptr()),
                                           ctypes.c_size_t(out.numel()))
        if status != 0:
            raise LeftOut("it gives no output")
        return out

    def __del__(self):
        if getattr(self, "pointer", None):
            self.lib.rust_peer_free(ctypes.c_void_p(self.pointer))
