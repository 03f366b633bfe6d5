"""The filter of a mesh that several processes share: each transforms a part of it.

A process holds some planes of the mesh, which it transforms along all axes but the first. Then processes swap parts,
so that each holds some columns along the first axis, transforms and multiplies these, and everything goes back. The
sum over processes is divided in the same way: the messages hold little more than a sum of whole meshes would.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lrc_ase.compiled.threads import even_ranges
from lrc_ase.layer.exchange import Exchange
from lrc_ase.layer.mesh.filtering import filter_mesh

__all__ = ["filter_shared"]


def filter_shared(mesh: Tensor, table: Tensor, exchange: Exchange) -> Tensor:
    """Sum the densities of all processes and turn them into potentials, the same in all processes.

    Parameters
    ----------
    mesh
        Density of the atoms of this process, (1, n_channels, *mesh). Its memory may be used for the result.
    table
        Multiplier of each channel, (1, n_channels, *half mesh).
    """
    # transforms of nothing are errors: a mesh with fewer planes or lines than processes is filtered whole by each
    if mesh.ndim < 4 or min(len(mesh[0, 0]), table.shape[3]) < exchange.n_processes:
        return filter_mesh(exchange.sum(mesh), table)[0]
    for density, factor in zip(mesh[0], table[0], strict=True):
        _filter(density, factor, exchange)
    return mesh


def _filter(density: Tensor, factor: Tensor, exchange: Exchange) -> None:
    """Put the potential of all processes' densities in place of `density`."""
    across, rank, n_planes = tuple(range(1, density.ndim)), exchange.rank, len(density)
    planes = even_ranges(n_planes, exchange.n_processes)
    half = torch.fft.rfftn(exchange.sum_of_part(density, planes), dim=across)
    lines = even_ranges(half.shape[1], exchange.n_processes)
    n_lines, rest = lines[rank][1] - lines[rank][0], half.shape[2:]
    # lines of a process within the planes of another: as many numbers either way
    sent = [half[:, slice(*each)].numel() for each in lines]
    received = [(last - first) * n_lines * rest.numel() for first, last in planes]
    leaving = torch.cat([half[:, slice(*each)].flatten() for each in lines])
    columns = exchange.swap(leaving, sent, received).view(n_planes, n_lines, *rest)
    columns = torch.fft.fft(columns, dim=0).mul_(factor[:, slice(*lines[rank])])
    # norm="forward" leaves out the 1 / n of an inverse transform: the table holds all factors
    columns = torch.fft.ifft(columns, dim=0, norm="forward")
    arriving = exchange.swap(columns.flatten(), received, sent).split(sent)
    for part, each in zip(arriving, lines, strict=True):
        into = half[:, slice(*each)]
        into.copy_(part.view(into.shape))
    exchange.join(torch.fft.irfftn(half, s=density.shape[1:], dim=across, norm="forward"), planes, density)
