"""libdgm by ctypes. Tensors are torch tensors: any strides, nothing is copied."""

import ctypes
import os
import sys

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CPU = 1
CODES = {torch.float32: (2, 32), torch.float16: (2, 16), torch.float64: (2, 64), torch.bfloat16: (4, 16),
         torch.int8: (0, 8), torch.int32: (0, 32), torch.int64: (0, 64), torch.uint8: (1, 8), torch.bool: (6, 8)}


class Tensor(ctypes.Structure):
    """dgm_tensor, which is DLPack's DLTensor."""

    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
                ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]

    @classmethod
    def of(cls, t):
        """A descriptor that borrows the memory of t (and keeps t alive)."""
        code, bits = CODES[t.dtype]
        dims = ctypes.c_int64 * t.ndim
        out = cls(t.data_ptr(), CPU, 0, t.ndim, code, bits, 1, dims(*t.shape), dims(*t.stride()), 0)
        out.owner = t
        return out


class AttentionOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("scale", ctypes.c_float), ("causal", ctypes.c_int32),
                ("kv_lengths", ctypes.c_void_p), ("window_left", ctypes.c_int64), ("window_right", ctypes.c_int64),
                ("alibi_slopes", ctypes.c_void_p), ("sinks", ctypes.c_void_p), ("bias", ctypes.c_void_p),
                ("mask", ctypes.c_void_p), ("soft_cap", ctypes.c_float), ("reserved", ctypes.c_int32)]


class Engine:
    """`engine.attention(...)` calls dgm_attention() and raises when it fails. torch tensors and
    structures are passed by reference, None as NULL, everything else as it is."""

    def __init__(self, threads):
        name = {"darwin": "libdgm.dylib"}.get(sys.platform, "libdgm.so")
        target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
        self.lib = ctypes.CDLL(os.path.join(target, "release", name))
        for text in ("dgm_last_error", "dgm_isa", "dgm_version"):
            getattr(self.lib, text).restype = ctypes.c_char_p
        self.threads(threads)

    def threads(self, n):
        self.bind("set_num_threads", ctypes.c_int32(n))()

    def has(self, name):
        """Whether this build has the symbol dgm_NAME."""
        return hasattr(self.lib, "dgm_" + name)

    def bind(self, name, *arguments):
        """A function of no arguments: the call with its descriptors made once, outside timed regions."""
        function = getattr(self.lib, "dgm_" + name)
        function.restype = ctypes.c_int32
        owned = [Tensor.of(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        passed = [ctypes.byref(a) if isinstance(a, ctypes.Structure) else a for a in owned]

        def call():
            if function(*passed) != 0:
                raise RuntimeError(f"dgm_{name}: {self.lib.dgm_last_error().decode()}")

        call.owned = owned
        return call

    def __getattr__(self, name):
        return lambda *arguments: self.bind(name, *arguments)()

    def attention_options(self, **fields):
        """dgm_attention_options; tensors become descriptors or addresses as their field wants."""
        options = AttentionOptions()
        self.attention_options_init(options, ctypes.c_size_t(ctypes.sizeof(options)))
        options.owned = []
        for name, value in fields.items():
            if isinstance(value, torch.Tensor):
                options.owned.append(value)
                if name in ("bias", "mask"):
                    options.owned.append(Tensor.of(value))
                    value = ctypes.addressof(options.owned[-1])
                else:
                    value = value.data_ptr()
            setattr(options, name, value)
        return options
