"""Communication between MPI processes: sums of meshes and numbers, and forces on ghosts sent to their owners."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

__all__ = ["GhostOwners", "MPIExchange", "end_all"]


def end_all(comm: Comm, message: str) -> NoReturn:
    """Print a message and end all processes of `comm`, with exit status 1."""
    print(message, file=sys.stderr, flush=True)
    time.sleep(_PASSING_ON)
    comm.Abort(1)
    raise SystemExit(1)  # never reached


_PASSING_ON = 1.0
"""Seconds to wait before an abort: a busy launcher may drop output that it has not read by then."""


class MPIExchange:
    """The exchange of a model (`lrc_ase.layer.exchange.Exchange`) over an MPI communicator."""

    def __init__(self, comm: Comm) -> None:
        self.comm = comm
        self.n_processes, self.rank = comm.Get_size(), comm.Get_rank()

    def sum(self, values: Tensor) -> Tensor:
        return self._reduced(values, _mpi().SUM)

    def largest(self, values: Tensor) -> Tensor:
        return self._reduced(values.detach().clone(), _mpi().MAX)  # the reduction is in place

    def sum_of_part(self, values: Tensor, ranges: Sequence[tuple[int, int]]) -> Tensor:
        first, last = ranges[self.rank]
        part = values.new_empty(last - first, *values.shape[1:])
        self.comm.Reduce_scatter(values.contiguous().numpy(), part.numpy(), recvcounts=_counts(values, ranges))
        return part

    def join(self, part: Tensor, ranges: Sequence[tuple[int, int]], whole: Tensor) -> None:
        self.comm.Allgatherv(part.contiguous().numpy(), [whole.numpy(), _counts(part, ranges)])

    def swap(self, leaving: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        arriving = leaving.new_empty(sum(received))
        self.comm.Alltoallv([leaving.numpy(), sent], [arriving.numpy(), received])
        return arriving

    def _reduced(self, values: Tensor, operation: Any) -> Tensor:
        values = values.contiguous()
        self.comm.Allreduce(_mpi().IN_PLACE, values.numpy(), op=operation)
        return values


def _counts(values: Tensor, ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Return how many numbers the rows of each range hold."""
    return [(last - first) * math.prod(values.shape[1:]) for first, last in ranges]


class GhostOwners:
    """Owners of the ghosts of a process, and the communication between ghosts and owners, both ways.

    All processes construct it at the same time, from the tags of their local atoms and then ghosts, (n_atoms,). A tag
    is a positive integer that identifies an atom. Process ``tag % n_processes`` records which process holds the atom
    and answers the others, so that no process holds a list of all atoms.
    """

    def __init__(self, comm: Comm, tags: np.ndarray, n_local: int) -> None:
        self.comm = comm
        n_processes = comm.Get_size()
        local, ghosts = tags[:n_local].astype(np.int64), tags[n_local:].astype(np.int64)
        # every process registers its local atoms: rows of tag, process, index of the atom in that process
        rows = np.stack([local, np.full(n_local, comm.Get_rank()), np.arange(n_local)], axis=1)
        entries, _ = _exchanged(comm, rows, local % n_processes)
        entries = entries[np.argsort(entries[:, 0])]
        # and asks for the owners of its ghosts
        asking = np.argsort(ghosts % n_processes, kind="stable")  # stable: ghosts keep their order per process
        questions, askers = _exchanged(comm, ghosts[asking, None], (ghosts % n_processes)[asking])
        matches = np.searchsorted(entries[:, 0], questions[:, 0])
        # searchsorted: a missing tag gives the next one, or the end
        if (matches >= len(entries)).any() or (entries[matches, 0] != questions[:, 0]).any():
            raise RuntimeError("a ghost stands for an atom that no process owns")
        answers, _ = _exchanged(comm, entries[matches, 1:], askers)
        # answers are sorted by the rank of the sender, and so were the questions: row i answers question i
        owner, atom = answers[:, 0], answers[:, 1]
        order = np.argsort(owner, kind="stable")
        self._leaving = n_local + asking[order]
        self._sent_counts = np.bincount(owner, minlength=n_processes)
        # every owner learns to which of its atoms the forces that arrive belong
        arriving, sources = _exchanged(comm, atom[order, None], owner[order])
        self._arriving = torch.from_numpy(arriving[:, 0].copy())
        self._received_counts = np.bincount(sources, minlength=n_processes)

    def add_to_owners(self, forces: np.ndarray) -> np.ndarray:
        """Add forces on ghosts to their owners; `forces` (n_atoms, 3) -> forces on local atoms (n_local, 3)."""
        local_forces = forces[: len(forces) - len(self._leaving)].copy()
        leaving = np.ascontiguousarray(forces[self._leaving])  # MPI reads flat memory; counts are of numbers
        received = np.empty((len(self._arriving), 3))
        self.comm.Alltoallv([leaving, 3 * self._sent_counts], [received, 3 * self._received_counts])
        # an atom may have ghosts in several processes: `index_add_` adds repeated indices, unlike `+=` of NumPy
        torch.from_numpy(local_forces).index_add_(0, self._arriving, torch.from_numpy(received))
        return local_forces

    def sum_to_owners(self, values: Tensor) -> Tensor:
        """Add values of ghosts to those of their owners, see `lrc_ase.structures.owners.Owners`."""
        n_local, width = len(values) - len(self._leaving), math.prod(values.shape[1:])
        received = torch.empty(len(self._arriving), *values.shape[1:], dtype=torch.float64)
        leaving = values.numpy()[self._leaving]
        self.comm.Alltoallv([leaving, width * self._sent_counts], [received.numpy(), width * self._received_counts])
        return values[:n_local].index_add(0, self._arriving, received)

    def copy_to_ghosts(self, values: Tensor) -> Tensor:
        """Append the values of the owners for all ghosts, see `lrc_ase.structures.owners.Owners`."""
        width = math.prod(values.shape[1:])
        all_values = torch.cat([values, values.new_empty(len(self._leaving), *values.shape[1:])])
        received = np.empty((len(self._leaving), *values.shape[1:]))
        leaving = values[self._arriving].numpy()
        self.comm.Alltoallv([leaving, width * self._received_counts], [received, width * self._sent_counts])
        all_values.numpy()[self._leaving] = received
        return all_values


def _exchanged(comm: Comm, rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Send each row (n, k) of integers to the process in `targets`.

    Return the received rows, sorted by source, and the source of each row.
    """
    order = np.argsort(targets, kind="stable")
    counts = np.bincount(targets, minlength=comm.Get_size())
    received_counts = np.empty_like(counts)
    comm.Alltoall(counts, received_counts)
    width = rows.shape[1]
    received = np.empty((int(received_counts.sum()), width), np.int64)
    comm.Alltoallv([np.ascontiguousarray(rows[order], np.int64), width * counts], [received, width * received_counts])
    return received, np.repeat(np.arange(comm.Get_size()), received_counts)


def _mpi() -> Any:
    """Import mpi4py at the first use: the import starts MPI."""
    from mpi4py import MPI

    return MPI
