"""Linear layers of libraries that multiply matrices and no more: MKL, BLIS, and those of Rust."""

import ctypes
import glob
import os
import sys

import numpy as np
import torch

from harness import rust

CBLAS_ROW_MAJOR, CBLAS_NO_TRANS, CBLAS_TRANS = 101, 111, 112


def _sgemm(lib):
    """A layer by a CBLAS: the product is added to the bias."""

    def make(x, w, b):
        (rows, inputs), outputs = x.shape, len(w)
        out = torch.empty(rows, outputs)
        address = [ctypes.c_void_p(t.data_ptr()) for t in (x, w, out)]
        one, sizes = ctypes.c_float(1), [ctypes.c_int(n) for n in (rows, outputs, inputs)]
        wide, narrow = ctypes.c_int(inputs), ctypes.c_int(outputs)
        step, kept = ctypes.c_int(1), (x, w)

        def matrix():
            out.copy_(b.expand_as(out))
            lib.cblas_sgemm(CBLAS_ROW_MAJOR, CBLAS_NO_TRANS, CBLAS_TRANS, *sizes, one, address[0], wide, address[1], wide,
                            one, address[2], narrow)
            return out

        def vector():
            out.copy_(b.expand_as(out))
            lib.cblas_sgemv(CBLAS_ROW_MAJOR, CBLAS_NO_TRANS, *sizes[1:], one, address[1], wide, address[0], step, one,
                            address[2], step)
            return out

        call = vector if rows == 1 else matrix
        call.kept = kept
        return call

    return make


def _mkl():
    """The library of the wheel, with the OpenMP runtime of PyTorch."""
    found = glob.glob(os.path.join(sys.prefix, "lib", "libmkl_rt.so*"))
    return _sgemm(ctypes.CDLL(found[0])) if found else None


def _blis(x, w, b):
    """The wheel of BLIS, which has no threads."""
    from blis.py import gemm

    x, w, b = x.numpy(), w.numpy(), b.numpy()
    out = np.empty((len(x), len(w)), np.float32)
    result = torch.from_numpy(out)

    def call():
        out[:] = b
        gemm(x, w, out=out, trans2=True)  # adds to what is there
        return result

    return call


class _Shape(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in ("rows", "inputs", "outputs", "threads")]


def _rust(lib, name, threads):

    def make(x, w, b):
        shape = _Shape(len(x), *reversed(w.shape), threads)
        pointers = (ctypes.c_void_p(t.data_ptr()) for t in (x, w, b))
        peer = rust.Peer(lib, name, lib.rust_linear_new(name.encode(), ctypes.byref(shape), *pointers),
                         (len(x), len(w)))

        def call():
            peer.run()
            return peer

        call.output = peer.output
        return call

    return make


def peers(threads, library):
    """Those that are there, by name."""
    made = {}
    mkl = _mkl()
    if mkl:
        made["mkl"] = mkl
    if threads == 1:
        try:
            import blis.py  # noqa: F401
            made["blis"] = _blis
        except ImportError:
            pass
    if library:
        lib = rust.load(library)
        made.update({name: _rust(lib, name, threads) for name in ("faer", "gemm", "matrixmultiply", "candle")})
    return made
