"""Client for programs that move the atoms and talk to a calculator over the i-PI protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError
from ase.calculators.socketio import IPIProtocol, SocketClient

__all__ = ["serve_over_socket"]


def serve_over_socket(
    atoms: Atoms, *, unix: str | None = None, host: str = "localhost", port: int = 31415, timeout: float | None = None
) -> None:
    """Answer requests for energies, forces and, where all directions are periodic, the virial, until the server stops.

    Parameters
    ----------
    atoms
        Structure with a calculator; the server moves its atoms and its cell.
    unix, host, port
        Name of a Unix socket, or else host and port of an internet socket.
    timeout
        Seconds without a message after which to raise an error.

    Raises
    ------
    ConnectionError
        No server listens at the address, or it sends no message within `timeout`.
    InputError
        The server has another number of atoms, or sends numbers that are not finite.
    ValueError
        The server uses another protocol.
    """
    where = f"the Unix socket {unix}" if unix is not None else f"{host}:{port}"
    try:
        client = SocketClient(host=host, port=port, unixsocket=unix, timeout=timeout)
    except OSError as error:
        raise ConnectionError(f"no server listens at {where}: start i-PI (or the server) first ({error})") from error
    client.protocol = _Protocol(client.protocol.socket, len(atoms))
    try:
        client.run(atoms, use_stress=bool(atoms.pbc.all()))
    except TimeoutError as error:
        raise ConnectionError(f"{where} sent no message for {timeout:g} s (--timeout)") from error
    except (KeyError, UnicodeDecodeError) as error:  # ASE raises these for unknown messages
        raise ValueError(f"{where} does not speak the protocol of i-PI: {error}") from error


class _Protocol(IPIProtocol):
    """ASE's implementation of the protocol, with errors that name the fault in a message."""

    def __init__(self, socket: Any, n_atoms: int) -> None:
        super().__init__(socket)
        self.n_atoms = n_atoms

    def recv(self, shape: Any, dtype: Any) -> np.ndarray:
        """Receive an array."""
        try:
            return super().recv(shape, dtype)
        except AssertionError as error:
            raise InputError("the server sent positions or a cell that are not finite") from error

    def recvposdata(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Receive the cell, its inverse and positions."""
        cell, inverse, positions = super().recvposdata()
        if len(positions) != self.n_atoms:
            raise InputError(
                f"the server has {len(positions)} atoms, the structure served here {self.n_atoms}: give both the "
                "same structure, atoms in the same order"
            )
        return cell, inverse, positions
