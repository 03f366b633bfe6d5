"""What processes under MPI tell each other: sums of meshes and numbers, and forces on ghosts back to their owners."""

from __future__ import annotations

import sys
import time
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
"""Seconds in which a busy launcher passes the last words on; when told to abort it may drop what it has not read."""


class MPIExchange:
    """The exchange of a model (`lrc_ase.layer.exchange.Exchange`) over an MPI communicator."""

    def __init__(self, comm: Comm) -> None:
        self.comm = comm
        self.n_processes = comm.Get_size()

    def sum(self, values: Tensor) -> Tensor:
        return self._reduced(values, _mpi().SUM)

    def largest(self, values: Tensor) -> Tensor:
        return self._reduced(values.detach().clone(), _mpi().MAX)

    def _reduced(self, values: Tensor, operation: Any) -> Tensor:
        values = values.contiguous()
        self.comm.Allreduce(_mpi().IN_PLACE, values.numpy(), op=operation)
        return values


class GhostOwners:
    """Owners of the ghosts of a process, and the communication that adds forces on ghosts to their owners.

    All processes construct it at the same time, from the tags of their local atoms and then ghosts, (n_atoms,). A tag
    is a positive integer that identifies an atom. Process ``tag % n_processes`` records which process holds the atom
    and answers the others, so that no process holds a list of all atoms.
    """

    def __init__(self, comm: Comm, tags: np.ndarray, n_local: int) -> None:
        self.comm = comm
        n_processes = comm.Get_size()
        own, ghosts = tags[:n_local].astype(np.int64), tags[n_local:].astype(np.int64)
        # every process writes down where it holds its atoms: rows of tag, process, place
        rows = np.stack([own, np.full(n_local, comm.Get_rank()), np.arange(n_local)], axis=1)
        entries, _ = _sent(comm, rows, own % n_processes)
        entries = entries[np.argsort(entries[:, 0])]
        # and asks for its ghosts
        asking = np.argsort(ghosts % n_processes, kind="stable")
        questions, askers = _sent(comm, ghosts[asking, None], (ghosts % n_processes)[asking])
        found = np.searchsorted(entries[:, 0], questions[:, 0])
        if (found >= len(entries)).any() or (entries[found, 0] != questions[:, 0]).any():
            raise RuntimeError("a ghost stands for an atom that no process owns")
        answers, _ = _sent(comm, entries[found, 1:], askers)
        # those who answer do so in the order of their ranks, as the questions went
        owner, place = answers[:, 0], answers[:, 1]
        order = np.argsort(owner, kind="stable")
        self._leaving = n_local + asking[order]
        self._sent_counts = np.bincount(owner, minlength=n_processes)
        arriving, sources = _sent(comm, place[order, None], owner[order])
        self._arriving = torch.from_numpy(arriving[:, 0].copy())
        self._received_counts = np.bincount(sources, minlength=n_processes)

    def add_to_owners(self, forces: np.ndarray) -> np.ndarray:
        """Forces on local atoms (n_local, 3) with what all processes found for their ghosts; `forces` (n_atoms, 3)."""
        own = forces[: len(forces) - len(self._leaving)].copy()
        leaving = np.ascontiguousarray(forces[self._leaving])
        received = np.empty((len(self._arriving), 3))
        self.comm.Alltoallv([leaving, 3 * self._sent_counts], [received, 3 * self._received_counts])
        torch.from_numpy(own).index_add_(0, self._arriving, torch.from_numpy(received))
        return own


def _sent(comm: Comm, rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Send each row (n, k) of whole numbers to a process; what came, sorted by source, and the source of each row."""
    order = np.argsort(targets, kind="stable")
    counts = np.bincount(targets, minlength=comm.Get_size())
    received_counts = np.empty_like(counts)
    comm.Alltoall(counts, received_counts)
    width = rows.shape[1]
    received = np.empty((int(received_counts.sum()), width), np.int64)
    comm.Alltoallv([np.ascontiguousarray(rows[order], np.int64), width * counts], [received, width * received_counts])
    return received, np.repeat(np.arange(comm.Get_size()), received_counts)


def _mpi() -> Any:
    """Imported here: whoever imports mpi4py starts MPI."""
    from mpi4py import MPI

    return MPI
