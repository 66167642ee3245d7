"""numpy and PyTorch buffers, passed to libdgm as they are by DLPack.

    make check-dlpack PYTHON=python3          any Python with numpy and torch; not part of `make test`

A DLPack capsule points to a DLManagedTensor, whose first member is a DLTensor; dgm_tensor has the
same layout, so the pointer in the capsule *is* the argument. Nothing is copied: the results appear
in the arrays that were passed. Every class below doubles as an example of how to do it with ctypes.
"""

import ctypes
import pathlib
import sys
import unittest

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class Error(Exception):
    """A negative status, with the text of dgm_last_error()."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Dgm:
    """libdgm; tensors are whatever has __dlpack__()."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(str(path))
        self.lib.dgm_last_error.restype = ctypes.c_char_p

    def __getattr__(self, name):
        function = getattr(self.lib, "dgm_" + name)
        function.restype = ctypes.c_int32

        def call(*arguments):
            # The capsules own the descriptors: they must live until the call has returned.
            capsules = [a.__dlpack__() if hasattr(a, "__dlpack__") else None for a in arguments]
            converted = [
                a if c is None else ctypes.c_void_p(_get_pointer(c, b"dltensor"))
                for a, c in zip(arguments, capsules)
            ]
            status = function(*converted)
            if status != 0:
                raise Error(status, self.lib.dgm_last_error().decode())

        return call


class AttentionOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("scale", ctypes.c_float),
        ("causal", ctypes.c_int32),
        ("kv_lengths", ctypes.c_void_p),
    ]


def library():
    names = ["libdgm.so", "libdgm.dylib"]
    built = [ROOT / "target" / "release" / name for name in names]
    found = [path for path in built if path.exists()]
    if not found:
        sys.exit(f"dlpack.py: {built[0]} is missing: cargo build --release -p dgm-capi")
    return found[0]


dgm = Dgm(library())


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def causal():
    options = AttentionOptions()
    dgm.attention_options_init(ctypes.byref(options), ctypes.c_size_t(ctypes.sizeof(options)))
    options.causal = 1
    return ctypes.byref(options)


class Capsule(unittest.TestCase):
    """The descriptor in a capsule, field by field, is what libdgm reads."""

    def test_layout(self):
        class Tensor(ctypes.Structure):
            _fields_ = [
                ("data", ctypes.c_void_p),
                ("device_type", ctypes.c_int32),
                ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8),
                ("bits", ctypes.c_uint8),
                ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64),
            ]

        self.assertEqual(ctypes.sizeof(Tensor), 48)
        x = noise(3, 4, 5)
        for a, address in [(x, x.ctypes.data), (torch.from_numpy(x), x.ctypes.data)]:
            capsule = a.__dlpack__()
            t = Tensor.from_address(_get_pointer(capsule, b"dltensor"))
            self.assertEqual(t.data + t.byte_offset, address)
            self.assertEqual((t.device_type, t.ndim, t.code, t.bits, t.lanes), (1, 3, 2, 32, 1))
            self.assertEqual(t.shape[:3], [3, 4, 5])
            if t.strides:
                self.assertEqual(t.strides[:3], [20, 5, 1])


class Kernels(unittest.TestCase):
    """The same bits from numpy and torch, contiguous or not, near torch's own results."""

    B, H, G, L, S, D = 2, 4, 2, 33, 47, 40

    def setUp(self):
        self.q = noise(self.B, self.H, self.L, self.D, seed=1)
        self.k = noise(self.B, self.G, self.S, self.D, seed=2)
        self.v = noise(self.B, self.G, self.S, self.D, seed=3)
        self.out = np.full_like(self.q, np.nan)
        self.lse = np.full((self.B, self.H, self.L), np.nan, np.float32)
        dgm.attention(self.q, self.k, self.v, causal(), self.out, self.lse)

    def reference(self):
        q, k, v = (torch.from_numpy(x).double() for x in (self.q, self.k, self.v))
        k, v = (x.repeat_interleave(self.H // self.G, 1) for x in (k, v))
        scores = q @ k.transpose(2, 3) / self.D**0.5
        # Bottom-right aligned: query i sees the keys up to i + S - L.
        seen = torch.ones(self.L, self.S, dtype=torch.bool).tril(self.S - self.L)
        scores = scores.masked_fill(~seen, -torch.inf)
        return scores.softmax(-1) @ v, scores.logsumexp(-1)

    def test_numpy_is_near_torch(self):
        out, lse = self.reference()
        torch.testing.assert_close(torch.from_numpy(self.out).double(), out, rtol=0, atol=2e-6)
        torch.testing.assert_close(torch.from_numpy(self.lse).double(), lse, rtol=0, atol=4e-6)

    def test_torch_gives_the_same_bits(self):
        q, k, v = (torch.from_numpy(x).clone() for x in (self.q, self.k, self.v))
        out, lse = torch.full_like(q, torch.nan), torch.full(q.shape[:3], torch.nan)
        dgm.attention(q, k, v, causal(), out, lse)
        self.assertEqual(out.numpy().tobytes(), self.out.tobytes())
        self.assertEqual(lse.numpy().tobytes(), self.lse.tobytes())

    def test_heads_inside_tokens(self):
        """[B, L, H, D] memory, as most networks have it, is only another stride."""
        q, k, v = (torch.from_numpy(x).transpose(1, 2).contiguous().transpose(1, 2) for x in (self.q, self.k, self.v))
        memory = torch.full((self.B, self.L, self.H, self.D), torch.nan)
        self.assertFalse(q.is_contiguous())
        dgm.attention(q, k, v, causal(), memory.transpose(1, 2), None)
        self.assertEqual(memory.transpose(1, 2).contiguous().numpy().tobytes(), self.out.tobytes())

    def test_slices_of_one_projection(self):
        """q, k and v cut from one matrix: offsets and row strides larger than the rows."""
        both = noise(1, 2, self.L, 3 * self.D, seed=4)
        parts = [both[..., i * self.D : (i + 1) * self.D] for i in range(3)]
        whole, cut = np.empty((1, 2, self.L, self.D), np.float32), np.empty((1, 2, self.L, self.D), np.float32)
        dgm.attention(*map(np.ascontiguousarray, parts), None, whole, None)
        dgm.attention(*parts, None, cut, None)
        self.assertEqual(whole.tobytes(), cut.tobytes())
        torch_parts = torch.from_numpy(both).split(self.D, -1)
        dgm.attention(*torch_parts, None, cut, None)
        self.assertEqual(whole.tobytes(), cut.tobytes())

    def test_broadcast_and_reversed_views(self):
        k, v = (torch.from_numpy(x[:, :1]) for x in (self.k, self.v))
        one, all_heads = torch.empty(*self.q.shape), torch.empty(*self.q.shape)
        q = torch.from_numpy(self.q)
        dgm.attention(q, k, v, None, one, None)
        dgm.attention(q, k.expand(-1, self.H, -1, -1), v.expand(-1, self.H, -1, -1), None, all_heads, None)
        self.assertTrue(torch.equal(one, all_heads))
        x, straight, reverse = noise(7, 65), np.empty((7, 65), np.float32), np.empty((7, 65), np.float32)
        dgm.rms_norm(x, None, ctypes.c_float(1e-5), straight)
        dgm.rms_norm(x[::-1], None, ctypes.c_float(1e-5), reverse)
        self.assertEqual(reverse[::-1].tobytes(), straight.tobytes())

    def test_mixed_owners(self):
        """numpy in, torch out."""
        out = torch.full(self.q.shape, torch.nan)
        address = out.data_ptr()
        dgm.attention(self.q, torch.from_numpy(self.k), self.v, causal(), out, None)
        self.assertEqual(out.data_ptr(), address)
        self.assertEqual(out.numpy().tobytes(), self.out.tobytes())

    def test_norms_and_activations(self):
        x = torch.from_numpy(noise(7, 65, seed=5))
        weight, bias = (torch.from_numpy(noise(65, seed=s)) for s in (6, 7))
        out = torch.empty_like(x)
        dgm.layer_norm(x, weight, bias, ctypes.c_float(1e-5), out)
        torch.testing.assert_close(out, torch.nn.functional.layer_norm(x, (65,), weight, bias, 1e-5), rtol=1e-5, atol=1e-5)
        expected = torch.nn.functional.gelu(x)
        dgm.gelu(x, ctypes.c_int32(1), x)  # in place: the same view twice
        torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-6)

    def test_linear(self):
        x, w, b = noise(5, 37, seed=8), noise(19, 37, seed=9), noise(19, seed=10)
        layer, out = ctypes.c_void_p(), np.empty((5, 19), np.float32)
        dgm.linear_pack(w, b, ctypes.byref(layer))
        dgm.linear_forward(layer, x, ctypes.c_int32(0), out)
        dgm.lib.dgm_linear_free(layer)
        np.testing.assert_allclose(out, x @ w.T + b, rtol=1e-5, atol=1e-5)


class Refused(unittest.TestCase):
    """What cannot be used as it is is named, and the output stays as it was."""

    def refuse(self, status, words, q, k, v, out=None):
        out = np.full((1, 1, 4, 8), np.nan, np.float32) if out is None else out
        before = out.tobytes() if isinstance(out, np.ndarray) else None
        with self.assertRaises(Error) as caught:
            dgm.attention(q, k, v, None, out, None)
        self.assertEqual(caught.exception.status, status)
        self.assertIn(words, str(caught.exception))
        if before:
            self.assertEqual(out.tobytes(), before)

    def test_element_types(self):
        x = noise(1, 1, 4, 8)
        self.refuse(-300, "k has dtype f64", x, x.astype(np.float64), x)
        self.refuse(-300, "v has dtype i32", x, x, torch.zeros(1, 1, 4, 8, dtype=torch.int32))
        self.refuse(-300, "q", np.zeros((1, 1, 4, 8), np.complex64), x, x)

    def test_shapes(self):
        x = noise(1, 1, 4, 8)
        self.refuse(-200, "k has shape [1, 1, 4, 7]", x, x[..., :7], x)
        self.refuse(-200, "q has shape [4, 8]", x[0, 0], x, x)

    def test_strides(self):
        x = noise(1, 1, 4, 8)
        self.refuse(-201, "q has strides", x[:, :, ::-1], x, x)

    def test_outputs(self):
        x = noise(1, 1, 4, 8)
        self.refuse(-400, "out overlaps q", x, x.copy(), x.copy(), out=x)
        self.refuse(-201, "out has strides", x, x, x, out=torch.zeros(1, 1, 1, 8).expand(1, 1, 4, 8))
        self.refuse(-201, "out has strides", x, x, x, out=np.zeros((1, 1, 4, 8), np.float32)[:, :, ::-1])


if __name__ == "__main__":
    print(f"numpy {np.__version__}, torch {torch.__version__}")
    unittest.main()
