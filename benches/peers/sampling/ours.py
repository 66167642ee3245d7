"""Runs of this engine, one evaluation told a call."""

import ctypes

import torch

PROCESS = {"flow": 0, "vp": 1, "ode": 12, "target": 15}
PREDICTION = {"epsilon": 0, "x0": 1, "velocity": 3, "score": 4}
SOLVER = {"euler": 0, "dpmpp_2m": 6, "bosh3": 8, "dopri5": 44, "tsit5": 45, "ula": 52}
NON_FINITE = {"refuse": 0, "propagate": 1}


class _First(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("process", ctypes.c_int32), ("prediction", ctypes.c_int32),
                ("solver", ctypes.c_int32), ("spacing", ctypes.c_int32), ("steps", ctypes.c_int64),
                ("shift", ctypes.c_double), ("eta", ctypes.c_double), ("guidance", ctypes.c_double),
                ("clip", ctypes.c_double), ("beta_start", ctypes.c_double), ("beta_end", ctypes.c_double),
                ("train_steps", ctypes.c_int64), ("rtol", ctypes.c_double), ("atol", ctypes.c_double),
                ("h_init", ctypes.c_double), ("times", ctypes.c_void_p), ("times_len", ctypes.c_size_t),
                ("max_evals", ctypes.c_int64)]


class PlanOptions(_First):
    """dgm_plan_options up to the last field used here; those between keep what dgm_plan_options_init() gave them."""

    _fields_ = [("between", ctypes.c_ubyte * (508 - ctypes.sizeof(_First))), ("non_finite", ctypes.c_int32)]


class Request(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("done", ctypes.c_int32), ("role", ctypes.c_int32),
                ("eval_id", ctypes.c_uint64), ("step", ctypes.c_int64), ("stage", ctypes.c_int64),
                ("slot", ctypes.c_int64), ("t", ctypes.c_double), ("sigma", ctypes.c_double),
                ("alpha", ctypes.c_double), ("rows", ctypes.c_int64), ("elements", ctypes.c_int64),
                ("active_rows", ctypes.c_int64), ("uniform_t", ctypes.c_int32), ("roles", ctypes.c_uint32)]


class Run:
    """A run over one row of `elements` numbers that starts again where it ends."""

    def __init__(self, engine, x, steps, process, prediction, solver, non_finite="refuse", in_place=False, **fields):
        self.engine, elements = engine, x.numel()
        options = PlanOptions()
        engine.plan_options_init(options, ctypes.c_size_t(ctypes.sizeof(options)))
        options.process, options.prediction = PROCESS[process], PREDICTION[prediction]
        options.solver, options.steps = SOLVER[solver], steps
        options.non_finite = NON_FINITE[non_finite]
        for name, value in fields.items():
            setattr(options, name, value)
        self.plan = ctypes.c_void_p()
        engine.plan_compile(ctypes.byref(options), ctypes.byref(self.plan))
        floats, size = ctypes.c_size_t(), ctypes.c_size_t()
        one, n = ctypes.c_size_t(1), ctypes.c_size_t(elements)
        engine.plan_state_len(self.plan, one, n, ctypes.byref(floats))
        engine.plan_run_size(self.plan, one, ctypes.byref(size))
        self.state = torch.zeros(floats.value)
        self.run = ctypes.create_string_buffer(size.value)
        seed = (ctypes.c_uint64 * 1)(7)
        self.first = x.clone()  # what a run starts from stays where it is
        self.start = engine.bind("run_start", self.plan, seed, one, n, ctypes.c_void_p(self.first.data_ptr()), self.run,
                                 size, ctypes.c_void_p(self.state.data_ptr()), floats)
        self.start()
        self.begin = bytes(self.run)
        # The next state is written to the other one; then they change their parts.
        self.other = None if in_place else torch.zeros(floats.value)
        self.request = Request(ctypes.sizeof(Request))
        self.elements = elements
        self.asked = engine.bind("run_ask", self.plan, self.run, size, self.request)
        self.sizes = size, floats, n

    def ask(self):
        self.asked()
        if self.request.done:
            ctypes.memmove(self.run, self.begin, len(self.begin))
            self.asked()
        return self.request

    @property
    def x(self):
        return self.state[:self.elements]

    def tell(self, y):
        """One output, or several one after the other."""
        size, floats, _ = self.sizes
        pointer = lambda tensor: ctypes.c_void_p(tensor.data_ptr())
        told = floats, ctypes.c_uint64(self.request.eval_id), pointer(y), ctypes.c_size_t(y.numel())
        if self.other is None:
            status = self.engine.lib.dgm_run_tell(self.plan, self.run, size, pointer(self.state), *told)
        else:
            status = self.engine.lib.dgm_run_tell_from(
                self.plan, self.run, size, pointer(self.state), pointer(self.other), *told)
            self.state, self.other = self.other, self.state
        if status != 0:
            raise RuntimeError(self.engine.lib.dgm_last_error().decode())

    def __del__(self):
        self.engine.lib.dgm_plan_free(self.plan)
