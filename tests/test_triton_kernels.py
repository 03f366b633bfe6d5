"""The kernels for GPUs, run by Triton's interpreter and compiled for a GPU that need not be there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
import torch

from lrc_ase.layer.mesh.triton import launch, programs
from lrc_ase.layer.mesh.triton.launch import gather_triton, spread_triton, triton_available
from lrc_ase.layer.windows import bspline_window, semicircle_window

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
DTYPES = list(TOLERANCE)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
by_interpreter = pytest.mark.skipif(
    not (INTERPRETED and triton_available()), reason="run by test_interpreted_kernels, or with TRITON_INTERPRET=1"
)
compiled_only = pytest.mark.skipif(INTERPRETED, reason="needs Triton's compiler, not its interpreter")
on_gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")


def multi_indices(level):
    """Derivative orders by total degree, then descending."""
    actual = [order for order in product(range(level + 1), repeat=3) if sum(order) <= level]
    return sorted(actual, key=lambda order: (sum(order), [-value for value in order]))


def dense_window(window, coordinates, n, max_order):
    """Window and derivatives of each atom at every point of a periodic line, (n_atoms, n, max_order + 1).

    Straight from the definition: the interval that the offset m - x falls into, and its polynomial.
    """
    dense = np.zeros((len(coordinates), n, max_order + 1))
    for atom, x in enumerate(coordinates):
        for m in range(-4 * n, 5 * n):
            from_edge = m - x + window.n_points / 2
            interval = int(np.ceil(from_edge)) - 1
            if 0 <= interval < window.n_points:
                piece = np.polynomial.Polynomial(window.coefficients[interval])
                variable = 2 * (interval + 1 - from_edge) - 1
                for order in range(max_order + 1):
                    dense[atom, m % n, order] += 2**order * piece.deriv(order)(variable)
    return dense


def dense_stencils(case, level):
    """Derivatives of all atoms on the whole mesh, (n_atoms, n_orders, n_x, n_y, n_z)."""
    axes = [dense_window(case.window, case.coordinates[:, axis].numpy(), n, level) for axis, n in enumerate(case.shape)]
    orders = multi_indices(level)
    return np.stack(
        [np.einsum("jx,jy,jz->jxyz", *(line[..., o] for line, o in zip(axes, order, strict=True))) for order in orders],
        axis=1,
    )


class Case:
    """Random atoms of a few structures, some in the corners and at the very ends of the mesh."""

    def __init__(self, window, shape, level, n_channels, dtype, n_atoms=12, n_structures=2):
        generator = torch.Generator().manual_seed(len(shape) * window.n_points + level)
        self.window, self.shape, self.level = window, shape, level
        scale = torch.tensor(shape, dtype=torch.float64)
        self.coordinates = torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator) * scale
        self.coordinates[0] = scale  # by rounding
        self.coordinates[1] = 0
        self.coordinates[2] = scale - 1e-9
        self.structure = torch.randint(n_structures, (n_atoms,), generator=generator)
        n_orders = len(multi_indices(level))
        self.weights = torch.randn(n_atoms, n_orders, n_channels, dtype=torch.float64, generator=generator).to(dtype)
        self.mesh = torch.randn(n_structures, n_channels, *shape, dtype=torch.float64, generator=generator).to(dtype)

    def to(self, device):
        for name in ("coordinates", "structure", "weights", "mesh"):
            setattr(self, name, getattr(self, name).to(device))

    def spread(self):
        mesh = torch.zeros_like(self.mesh)
        spread_triton(self.weights, self.coordinates, self.structure, self.window, self.level, mesh)
        return mesh

    def gather(self):
        gathered = torch.full_like(self.weights, torch.nan)
        gather_triton(self.mesh, self.coordinates, self.structure, self.window, self.level, gathered)
        return gathered

    def expected_mesh(self):
        mesh = np.zeros(self.mesh.shape)
        stencils = dense_stencils(self, self.level)
        for atom, structure in enumerate(self.structure.tolist()):
            mesh[structure] += np.einsum("ac,axyz->cxyz", self.weights[atom].double().numpy(), stencils[atom])
        return torch.from_numpy(mesh).to(self.mesh)

    def expected_values(self):
        meshes = self.mesh.double().numpy()[self.structure.numpy()]
        return torch.from_numpy(np.einsum("jcxyz,jaxyz->jac", meshes, dense_stencils(self, self.level))).to(self.mesh)


def assert_same(actual, expected):
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[expected.dtype] * scale)


WINDOWS = {
    "bspline3": bspline_window(3),
    "semicircle6": semicircle_window(6),
    "semicircle9": semicircle_window(9),
    "semicircle16": semicircle_window(16),
}
# meshes of several tiles, of tiles cut off, barely larger than the window, and smaller than it
CASES = [
    ("bspline3", (17, 4, 9), 1, 1),
    ("bspline3", (3, 8, 16), 0, 3),
    ("semicircle6", (24, 10, 7), 0, 1),
    ("semicircle6", (9, 20, 18), 1, 3),
    ("semicircle6", (8, 7, 25), 2, 1),
    ("semicircle6", (4, 6, 2), 1, 1),
    ("semicircle9", (10, 33, 9), 1, 1),
    ("semicircle16", (17, 16, 26), 1, 1),
    ("semicircle16", (16, 5, 18), 2, 1),
]


@by_interpreter
@pytest.mark.parametrize(
    ("window", "shape", "level", "n_channels", "dtype"), [(*case, DTYPES[i % 2]) for i, case in enumerate(CASES)]
)
def test_kernels_match_the_sum_over_the_whole_mesh(window, shape, level, n_channels, dtype):
    case = Case(WINDOWS[window], shape, level, n_channels, dtype)
    assert_same(case.spread(), case.expected_mesh())
    assert_same(case.gather(), case.expected_values())


@by_interpreter
@pytest.mark.parametrize("level", [0, 1, 2])
def test_spread_and_gather_are_adjoint(level):
    case = Case(WINDOWS["semicircle6"], (19, 9, 12), level, 2, torch.float64, n_atoms=40, n_structures=3)
    left, right = (case.spread() * case.mesh).sum(), (case.weights * case.gather()).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-10)


@by_interpreter
def test_spread_adds_to_the_mesh_and_leaves_its_inputs_alone():
    case = Case(WINDOWS["bspline3"], (5, 6, 9), 1, 2, torch.float64)
    names = ("weights", "coordinates", "structure")
    before = {name: getattr(case, name).clone() for name in names}
    case.weights = case.weights.transpose(0, 2).contiguous().transpose(0, 2)  # not contiguous
    mesh = case.mesh.clone()
    spread_triton(case.weights, case.coordinates, case.structure, case.window, case.level, mesh)
    assert_same(mesh - case.mesh, case.expected_mesh())
    assert all(torch.equal(getattr(case, name), before[name]) for name in names)


@by_interpreter
def test_structures_without_atoms_and_no_atoms_at_all():
    case = Case(WINDOWS["bspline3"], (5, 6, 9), 0, 1, torch.float64, n_structures=3)
    case.structure = torch.full_like(case.structure, 1)
    mesh = case.spread()
    assert_same(mesh, case.expected_mesh())
    assert not mesh[[0, 2]].any()
    case.weights, case.coordinates, case.structure = case.weights[:0], case.coordinates[:0], case.structure[:0]
    assert not case.spread().any()
    assert case.gather().shape == (0, 1, 1)


@needs_triton
@compiled_only
@pytest.mark.skipif(
    find_spec("triton") is not None and launch._triton_version() < (3, 9),
    reason="the interpreter of Triton 3.6 and earlier cannot loop to a loaded bound with NumPy 2.4",
)
def test_interpreted_kernels():
    """Triton must find its switch at import, so that the tests above need a separate process."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout
    passed = len(CASES) + 5 + len(BAD) + 2
    assert f"{passed} passed" in finished.stdout, finished.stdout


def compiled_for_hopper(kernel, constants, dtype):
    """Compile for compute capability 9.0, as far as machine code; no GPU takes part."""
    compiler = pytest.importorskip("triton.compiler")
    targets = pytest.importorskip("triton.backends.compiler")
    jit_function = launch._jit(kernel)
    kind = {torch.float32: "*fp32", torch.float64: "*fp64"}[dtype]
    pointers = dict.fromkeys(("mesh", "weights", "windows", "table", "gathered"), kind)
    pointers |= {"keys": "*i32", "first": "*i32", "starts": "*i32", "coordinates": "*fp64"}
    pointers |= {"structure": "*i64", "order": "*i64"}
    chosen_constants = {name: value for name, value in constants.items() if name in jit_function.arg_names}
    options = {name: value for name, value in constants.items() if name not in chosen_constants}
    signature = {
        name: "constexpr" if name in chosen_constants else pointers.get(name, "i32") for name in jit_function.arg_names
    }
    source = compiler.ASTSource(jit_function, signature, chosen_constants)
    compiled = compiler.compile(source, target=targets.GPUTarget("cuda", 90, 32), options=options)
    assert len(compiled.asm["cubin"]) > 1000
    return compiled.asm["ptx"]


@needs_triton
@compiled_only
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_compile_for_a_gpu_without_atomics_or_tf32(dtype, level, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    window, shape = WINDOWS["semicircle6"], (32, 5, 20)
    constants_of = {
        programs.locate: launch.locate_constants(window.n_points, shape),
        programs.evaluate: launch.evaluate_constants(window, level, shape),
        programs.spread: launch.spread_constants(window.n_points, level),
        programs.gather: launch.gather_constants(window.n_points, level),
    }
    for kernel, constants in constants_of.items():
        assembly = compiled_for_hopper(kernel, constants, dtype)
        assert not [line for line in assembly.splitlines() if re.search(r"\s(atom|red)\.|tf32", line)]


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "shape", "level", "n_channels"), CASES)
def test_kernels_on_a_gpu_match_the_sum_over_the_whole_mesh(window, shape, level, n_channels, dtype):
    assert triton_available()
    case = Case(WINDOWS[window], shape, level, n_channels, dtype, n_atoms=60)
    expected_mesh, expected_values = case.expected_mesh(), case.expected_values()
    case.to("cuda")
    assert_same(case.spread().cpu(), expected_mesh)
    assert_same(case.gather().cpu(), expected_values)


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_spreading_on_a_gpu_gives_the_same_bits_every_time(dtype):
    case = Case(WINDOWS["semicircle6"], (96, 96, 96), 1, 2, dtype, n_atoms=100_000)
    case.to("cuda")
    mesh = case.spread()
    assert all(torch.equal(mesh, case.spread()) for _ in range(5))
    left, right = (mesh * case.mesh).sum(), (case.weights * case.gather()).sum()
    torch.testing.assert_close(left, right, rtol=0, atol=TOLERANCE[dtype] * 1e5)


BAD = {
    "orders": (lambda case: setattr(case, "weights", case.weights[:, :1]), r"`weights` at level 1 must have shape"),
    "type": (lambda case: setattr(case, "weights", case.weights.float()), r"got .* and torch\.float32"),
    "strides": (lambda case: setattr(case, "mesh", case.mesh.transpose(2, 3)), r"`mesh` and .* must be contiguous"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    case = Case(WINDOWS["bspline3"], (5, 6, 9), 1, 2, torch.float64)
    spoil, message = BAD[name]
    spoil(case)
    with pytest.raises(ValueError, match=message):
        spread_triton(case.weights, case.coordinates, case.structure, case.window, case.level, case.mesh)


def test_meshes_that_32_bits_cannot_address_are_refused():
    case = Case(WINDOWS["bspline3"], (5, 6, 9), 0, 1, torch.float64)
    mesh = torch.empty(1, 1, 2048, 1024, 1024, device="meta", dtype=torch.float64)
    with pytest.raises(ValueError, match=r"fewer than 2\^31 points .* coarsen it"):
        gather_triton(mesh, case.coordinates, case.structure, case.window, 0, case.weights)


def test_kernels_are_not_available_without_a_recent_triton(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(launch, "tl", object())
    monkeypatch.setattr(launch, "_triton_version", lambda: (3, 9))
    assert triton_available()
    monkeypatch.setattr(launch, "_triton_version", lambda: (3, 4))
    assert not triton_available()
    monkeypatch.setattr(launch, "tl", None)
    assert not triton_available()
