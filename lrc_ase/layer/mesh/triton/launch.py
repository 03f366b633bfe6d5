r"""Spreading and gathering on NVIDIA GPUs, in Triton, three dimensions only.

Four kernels (in `programs`) around one sort. `locate` gives every atom the key of its bin; after the sort
`evaluate` writes the windows and derivatives of all atoms, by Horner, in the order of the bins; `spread` and `gather`
only read those.

Spreading is driven by the output: a program owns a tile of the mesh, visits the bins of atoms that reach it, always in
the same order, and keeps the tile in registers. No two programs write to one mesh point, so there are no atomics and
the mesh is the same to the last bit in every run; with atomics its last digits, and every trajectory, would depend on
which thread came first. The price is that every tile in reach visits an atom. The sum over atoms has low rank, with
the window's derivatives g^(s), g^(q), g^(r) along x, y, z:

    mesh[yz, x] += sum_j (sum_q g_j^(q)[y] sum_r w_j,sqr g_j^(r)[z]) g_j^(s)[x],  summed over s too

which for 16 atoms at a time is one small matrix product for each s, and loads of many atoms are under way at once.
Products are those of the type asked for (no TF32); in float64 they are on tensor cores. In x and y bins are 8 and 4
mesh points wide, in z one, by the first point of the stencil: a row of bins in reach is then a single range of sorted
atoms (two where it wraps), and along z no atom is visited in vain.

Gathering: a program owns a few neighbors in sorted order, walks along x and keeps the (y, z) planes of their stencils,
one for each derivative in x, in registers; y and z are contracted once, at the end.

Measured on an H100 in float32 with 6 points, 1e6 atoms, 0.05 atoms per mesh point: `spread` at level 0 takes 2.9 ms, at
level 1 4.7 ms, `gather` 0.6 and 1.3 ms, each with its sort of 0.15 ms (docs/how-to/gpu.md). `spread` is far above the
estimates below, made for an H200 and 0.1 atoms per mesh point, and not yet understood: profile it first.
Instructions are counted in the machine code that Triton 3.9 makes. `spread` at level 0: 7.3 tiles of 16 x 4 x 8 points
visit an atom, 4.2 thousand multiply-adds (0.13 ns at 33e12 per second) in 310 warp instructions (0.3 ns at 1e12 per
second); level 1 takes 1.7 times that. `gather` at level 1: 0.8 thousand multiply-adds, 220 mesh points, nearly all from
the nearest cache, 290 warp instructions. Through device memory go, per atom, 50 bytes of coordinates, 150 (level 0) or
290 (level 1) of windows written and read, about 150 for the sort and 80 for the mesh: 0.1 ns at 4.8e12 bytes per
second. So either call should take 0.3 ms for 1e6 atoms at the very least.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from lrc_ase.layer.constants import constant
from lrc_ase.layer.mesh.triton.programs import evaluate, gather, locate, spread, tl
from lrc_ase.layer.windows import Window, derivative_table

__all__ = ["gather_triton", "spread_triton", "triton_available"]

_OLDEST = (3, 5)
"""Earlier versions of Triton have no matrix products in float64."""

_TILE = {"TX": 16, "TZ": 8}  # in y a tile is as wide as a bin; no side of the products below 16
_BIN = {"BX": 8, "BY": 4}
_SIZES = ("n_atoms", "n_x", "n_y", "n_z", "tiles_x", "bins_x", "bins_y", "tiles_z", "n_channels")
"""Arguments of which no value is special: one compilation serves all meshes."""


def triton_available() -> bool:
    """Return True if Triton is installed and there is a CUDA device, or Triton's interpreter is on."""
    if tl is None or _triton_version() < _OLDEST:
        return False
    return torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"


def spread_triton(
    weights: Tensor, coordinates: Tensor, structure: Tensor, window: Window, level: int, mesh: Tensor
) -> None:
    r"""Add to the mesh, :math:`\sum_j \sum_\alpha w_{j\alpha}\, \partial^\alpha g(m - x_j)`, the same bits every time.

    `weights` (n_atoms, n_orders, n_channels) for all derivatives by x_j of total degree up to `level`, by degree, then
    descending; `coordinates` (n_atoms, 3) in mesh units, float64, finite, in [0, n]; `structure` (n_atoms,) int64;
    `mesh` (n_structures, n_channels, n_x, n_y, n_z), contiguous, of the type of `weights`.
    """
    _check(mesh, coordinates, level, weights, "weights")
    if not weights.numel():
        return
    (n_structures, n_channels, *shape), n_points = mesh.shape, window.n_points
    with torch.cuda.device_of(mesh):
        # device of the mesh, which may not be the current one: Triton launches on the current one
        keys, order = _sorted_keys(coordinates, structure, n_points, mesh)
        first, windows = _windows(coordinates, order, window, level, mesh)
        tiles_x, bins_x, bins_y, tiles_z = sizes = _tiles(shape)
        starts = torch.arange(n_structures * bins_x * bins_y * shape[2] + 1, device=keys.device, dtype=keys.dtype)
        # first sorted atom of every bin, by binary search: no kernel of our own, no atomics
        starts = torch.searchsorted(keys, starts, out_int32=True)
        arguments = (mesh, weights.contiguous(), windows, first, order, starts, *shape, *sizes)
        # one program for each tile and channel
        grid = (n_structures * tiles_x * bins_y * tiles_z, n_channels)
        _jit(spread)[grid](*arguments, n_channels, **spread_constants(n_points, level))


def gather_triton(
    mesh: Tensor, coordinates: Tensor, structure: Tensor, window: Window, level: int, gathered: Tensor
) -> None:
    r"""Interpolate the mesh, :math:`v_{j\alpha} = \sum_m v(m)\, \partial^\alpha g(m - x_j)`, into `gathered`.

    `gathered` (n_atoms, n_orders, n_channels), contiguous, is overwritten; the rest as in `spread_triton`.
    """
    _check(mesh, coordinates, level, gathered, "gathered")
    if not gathered.numel():
        return
    (_, n_channels, *shape), n_points = mesh.shape, window.n_points
    with torch.cuda.device_of(mesh):
        _, order = _sorted_keys(coordinates, structure, n_points, mesh)
        first, windows = _windows(coordinates, order, window, level, mesh)
        constants = gather_constants(n_points, level)
        grid = (-(-len(order) // constants["ATOMS"]), n_channels)
        arguments = (gathered, mesh, windows, first, order, structure.contiguous(), len(order), *shape)
        _jit(gather)[grid](*arguments, n_channels, **constants)


def locate_constants(n_points: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the constants that `locate` is compiled for."""
    return {"POINTS": n_points, "IMAGES": _images(n_points, shape), "ATOMS": 128} | _BIN | _OPTIONS


def evaluate_constants(window: Window, level: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the constants that `evaluate` is compiled for."""
    sizes = {"POINTS": window.n_points, "PADDED": _power_of_two(window.n_points), "IMAGES": 1, "ATOMS": 16}
    sizes["IMAGES"] = _images(window.n_points, shape)
    return sizes | {"DEGREE": window.coefficients.shape[1] - 1, "LEVEL": level} | _OPTIONS


def spread_constants(n_points: int, level: int) -> dict[str, Any]:
    """Return the constants that `spread` is compiled for."""
    return {"POINTS": n_points, "LEVEL": level, "ATOMS": 16} | _TILE | _BIN | _OPTIONS


def gather_constants(n_points: int, level: int) -> dict[str, Any]:
    """Return the constants that `gather` is compiled for."""
    padded = _power_of_two(n_points)
    sizes = {"PADDED": padded, "ORDERS": _power_of_two(level + 1), "ATOMS": 256 // padded**2}
    return {"POINTS": n_points, "LEVEL": level} | sizes | _OPTIONS


# one warp: programs are small and many; products and sums may be fused
_OPTIONS = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True}


def _sorted_keys(coordinates: Tensor, structure: Tensor, n_points: int, mesh: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bins of the atoms in ascending order, and the atoms in that order; atoms of a bin keep theirs."""
    shape = tuple(mesh.shape[2:])
    _, bins_x, bins_y, _ = _tiles(shape)
    n_bins = mesh.shape[0] * bins_x * bins_y * shape[2]
    # short keys where they suffice: a radix sort makes half as many passes
    keys = structure.new_empty(len(structure), dtype=torch.int32 if n_bins < 2**31 else torch.int64)
    constants = locate_constants(n_points, shape)
    grid = (-(-len(keys) // constants["ATOMS"]),)
    arguments = (keys, coordinates.contiguous(), structure.contiguous(), len(keys), *shape, bins_x, bins_y)
    _jit(locate)[grid](*arguments, **constants)
    # stable, so that equal bins keep the order of the input, and every run adds in the same order
    return torch.sort(keys, stable=True)


def _windows(coordinates: Tensor, order: Tensor, window: Window, level: int, mesh: Tensor) -> tuple[Tensor, Tensor]:
    """Return first mesh points (n_atoms, 3) and windows (n_atoms, 3, level + 1, n_points), in sorted order."""
    n_atoms, shape = len(order), tuple(mesh.shape[2:])
    first = torch.empty(n_atoms, 3, dtype=torch.int32, device=order.device)
    windows = mesh.new_empty(n_atoms, 3, level + 1, window.n_points)
    table = constant(_table, window, level, like=mesh)
    constants = evaluate_constants(window, level, shape)
    # -(-a // b) rounds up: the last program has atoms that do not exist, and masks them
    grid = (-(-n_atoms // constants["ATOMS"]),)
    arguments = (windows, first, coordinates.contiguous(), order, table, n_atoms, *shape)
    _jit(evaluate)[grid](*arguments, **constants)
    return first, windows


def _table(window: Window, level: int) -> Tensor:
    """Return the window's coefficients (level + 1, degree + 1, n_points), highest power first."""
    table = derivative_table(window, level).reshape(-1, window.n_points, level + 1)
    return table.flip(0).permute(2, 0, 1).contiguous()


def _tiles(shape: Sequence[int]) -> list[int]:
    """Return the number of tiles in x, bins in x, bins (and tiles) in y, tiles in z."""
    widths = (_TILE["TX"], _BIN["BX"], _BIN["BY"], _TILE["TZ"])
    return [-(-shape[axis] // width) for axis, width in zip((0, 0, 1, 2), widths, strict=True)]


def _images(n_points: int, shape: tuple[int, ...]) -> int:
    """Return how often a window may meet one mesh point: more than once on meshes smaller than the window."""
    return -(-n_points // min(shape))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


@lru_cache(maxsize=8)
def _jit(kernel: Any) -> Any:
    """Make a Triton kernel of a function."""
    # at first use and not at import: Triton decides here whether it compiles or interprets
    # one compilation for all sizes: Triton would make special ones for 1 and for multiples of 16
    names = kernel.__code__.co_varnames[: kernel.__code__.co_argcount]
    return import_module("triton").jit(kernel, do_not_specialize=[name for name in _SIZES if name in names])


def _triton_version() -> tuple[int, ...]:
    return tuple(int(part) for part in import_module("triton").__version__.split(".")[:2])


def _check(mesh: Tensor, coordinates: Tensor, level: int, values: Tensor, name: str) -> None:
    n_orders = (level + 1) * (level + 2) * (level + 3) // 6
    expected = (len(coordinates), n_orders, mesh.shape[1])
    if values.shape != expected or values.dtype != mesh.dtype:
        raise ValueError(
            f"`{name}` at level {level} must have shape {expected} and the mesh's type {mesh.dtype}, "
            f"got {tuple(values.shape)} and {values.dtype}: pass one row for each derivative and one column per channel"
        )
    if not (mesh.is_contiguous() and (name == "weights" or values.is_contiguous())):
        raise ValueError(
            f"`mesh` and `{name}` must be contiguous, got strides {mesh.stride()} and {values.stride()}: "
            "pass them through `.contiguous()`"
        )
    # offsets within a structure's mesh are 32-bit numbers in the kernels
    if mesh[0, 0].numel() >= 2**31:
        raise ValueError(f"`mesh` must have fewer than 2^31 points per structure, got {tuple(mesh.shape)}: coarsen it")
