"""Tables of the kernel on the mesh: kept by whoever passes them, and never wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from lrc_ase import LongRangeConvolution, LRCCalculator
from lrc_ase.engines.ghosts import GhostNeighbors
from lrc_ase.layer.boundaries import Layout
from lrc_ase.layer.kernels import Coulomb, Exponential, Matrix, Stack, Yukawa
from lrc_ase.layer.tables import MultiplierTables
from lrc_ase.layer.windows import semicircle_window

PERIODIC = [Layout(None), Layout(None)]


def multiplier():
    return Stack([Coulomb(smearing=1.0), Yukawa([0.4, 1.1], [1.0, -0.7], smearing=1.0)]).double()


def cells():
    return torch.tensor([[[6.0, 0, 0], [1, 7, 0], [-2, 1, 8]], [[9.0, 0, 1], [0, 6, 0], [0, 0, 7]]]).double()


@pytest.mark.parametrize("kernel", [multiplier(), Exponential([0.8]), Matrix(Yukawa([0.3, 0.5, 0.8, 1.0]), 2, 2)])
def test_kept_table_has_the_strain_derivative_of_a_fresh_one(kernel):
    window, shape = semicircle_window(6), (8, 10, 8)
    channels = (2, 2) if kernel.is_matrix else (kernel.n_channels,)
    cotangent = torch.randn(2, *channels, 8, 10, 5, generator=torch.Generator().manual_seed(0)).double()
    actual = []
    for trainable in (True, False):
        kernel.requires_grad_(trainable)
        cell = cells().requires_grad_()
        table = MultiplierTables().table(kernel, window, cell, shape, PERIODIC)
        gradient = torch.autograd.grad(table, cell, cotangent, create_graph=True)[0]
        second = torch.autograd.grad(gradient.pow(2).sum(), cell, retain_graph=True)[0]
        with torch.no_grad():
            first = gradient.clone()
        once = torch.autograd.grad(table, cell, cotangent)[0]
        torch.testing.assert_close(once, first, rtol=1e-11, atol=1e-11)
        actual.append((table.detach(), once, second))
    for fresh, kept in zip(*actual, strict=True):
        torch.testing.assert_close(kept, fresh, rtol=1e-11, atol=1e-11)


def test_tables_follow_parameters_cells_meshes_and_windows():
    kernel, window, tables = multiplier().requires_grad_(False), semicircle_window(6), MultiplierTables()
    first = tables.table(kernel, window, cells(), (8, 10, 8), PERIODIC)
    assert tables.table(kernel, window, cells(), (8, 10, 8), PERIODIC) is first
    assert tables.table(kernel, window, cells(), (8, 10, 10), PERIODIC).shape[-1] == 6
    assert (tables.table(kernel, None, cells(), (8, 10, 8), PERIODIC) - first).abs().max() > 1e-4
    larger = tables.table(kernel, window, 1.1 * cells(), (8, 10, 8), PERIODIC)
    assert (larger - first).abs().max() > 1e-4
    with torch.no_grad():
        next(kernel.parameters()).add_(0.5)
    changed = tables.table(kernel, window, 1.1 * cells(), (8, 10, 8), PERIODIC)
    assert (changed - larger).abs().max() > 1e-4
    tables.clear()
    assert tables.table(kernel, window, 1.1 * cells(), (8, 10, 8), PERIODIC) is not changed


def times_evaluated(monkeypatch, tables, sizes, *, mesh_shape=(8, 8, 8)):
    """Return how often a kernel is evaluated in cells of these sizes, one after the other."""
    kernel, window, evaluations = multiplier().requires_grad_(False), semicircle_window(6), []
    evaluated = Yukawa.fourier
    monkeypatch.setattr(Yukawa, "fourier", lambda self, *a: evaluations.append(a) or evaluated(self, *a))
    for size in sizes:
        tables.table(kernel, window, size * torch.eye(3, dtype=torch.float64)[None], mesh_shape, PERIODIC[:1])
    return len(evaluations)


def test_cells_that_take_turns_keep_their_tables(monkeypatch):
    sizes = [6.0, 7.0, 8.0, 9.0, 10.0]
    assert times_evaluated(monkeypatch, MultiplierTables(), 3 * sizes) == len(sizes)


def test_the_cell_used_least_recently_goes_first(monkeypatch):
    tables, others = MultiplierTables(), [float(size) for size in range(20, 60)]
    assert times_evaluated(monkeypatch, tables, [6.0, *(each for other in others for each in (other, 6.0))]) == 41
    assert len(tables._cells) == 16


def test_large_tables_are_kept_for_two_cells(monkeypatch):
    """Three channels on 96 x 96 x 49 waves take 11 MB, and as much again wave numbers and factors."""
    tables, shape = MultiplierTables(), (96, 96, 96)
    monkeypatch.setattr("lrc_ase.layer.tables._BYTES_KEPT", 2**24)
    sizes = [6.0, 7.0, 6.0, 7.0, 8.0, 9.0, 6.0]
    assert times_evaluated(monkeypatch, tables, sizes, mesh_shape=shape) == 5
    assert len(tables._cells) == 2


def test_tables_tell_kernels_without_parameters_apart():
    """Two Coulomb kernels have equal parameters, none, and differ in their smearing."""
    tables, window = MultiplierTables(), semicircle_window(6)
    narrow, wide = Coulomb(smearing=1.0), Coulomb(smearing=2.0)
    first = tables.table(narrow, window, cells(), (8, 10, 8), PERIODIC)
    assert (tables.table(wide, window, cells(), (8, 10, 8), PERIODIC) - first).abs().max() > 1e-4
    assert tables.table(narrow, window, cells(), (8, 10, 8), PERIODIC) is first
    at_origin = [tables.at_origin(kernel, 3, torch.float64, "cpu").item() for kernel in (narrow, wide, narrow)]
    assert at_origin == pytest.approx([math.sqrt(2 / math.pi), math.sqrt(2 / math.pi) / 2, math.sqrt(2 / math.pi)])


def test_trained_kernels_are_evaluated_in_every_call():
    kernel, window, tables = multiplier(), semicircle_window(6), MultiplierTables()
    first = tables.table(kernel, window, cells(), (8, 10, 8), PERIODIC)
    assert first.requires_grad
    assert tables.table(kernel, window, cells(), (8, 10, 8), PERIODIC) is not first
    assert tables.at_origin(kernel, 3, torch.float64, "cpu").requires_grad


class Counted(Yukawa):
    """A kernel that counts its evaluations."""

    evaluations = 0

    def fourier(self, squared, dimension):
        self.evaluations += 1
        return super().fourier(squared, dimension)

    def at_origin(self, dimension):
        self.evaluations += 100
        return super().at_origin(dimension)


def test_a_layer_keeps_nothing_and_passed_tables_serve_again():
    kernel = Counted([0.3], smearing=1.0).requires_grad_(False)
    layer = LongRangeConvolution(kernel, smearing=1.0, accuracy=1e-2)
    generator = torch.Generator().manual_seed(0)
    arguments = torch.randn(5, 1, generator=generator), torch.rand(5, 3, generator=generator), cells()[:1].float()
    first = layer(*arguments)
    layer(*arguments)
    assert kernel.evaluations == 202
    tables = MultiplierTables()
    for _ in range(3):
        torch.testing.assert_close(layer(*arguments, tables=tables), first, rtol=0, atol=0)
    layer.field_and_energy(*arguments, n_energies=1, tables=tables)
    assert kernel.evaluations == 303


def test_dynamics_evaluates_the_kernel_once_per_cell(monkeypatch):
    calls = []
    evaluated = Yukawa.fourier
    monkeypatch.setattr(Yukawa, "fourier", lambda self, *a: calls.append(a) or evaluated(self, *a))
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.calc = LRCCalculator("nacl")
    atoms.get_potential_energy()
    first = len(calls)
    assert first
    for _ in range(2):
        atoms.rattle(0.02, seed=1)
        atoms.get_potential_energy()
    assert len(calls) == first
    atoms.set_cell(1.01 * atoms.cell, scale_atoms=True)
    strained = atoms.get_potential_energy()
    assert len(calls) == 2 * first
    atoms.calc.reset()
    assert atoms.get_potential_energy() == strained
    assert len(calls) == 3 * first  # a resumed run must not depend on what was kept


def test_engines_hand_their_tables_to_every_graph():
    neighbors, positions = GhostNeighbors(3.0, 0.5), np.array([[0.0, 0, 0], [1, 1, 1]])
    neighbors.search(np.arange(2), positions, 2)
    graphs = [neighbors.graph(positions, np.zeros(2, int), 5 * np.eye(3), (True,) * 3) for _ in range(2)]
    assert graphs[0].tables is graphs[1].tables is not None
    moved = replace(graphs[0], positions=graphs[0].positions + 1)
    assert moved.tables is graphs[0].tables
