"""Servers that send what cannot be answered: one line says what was wrong."""

from __future__ import annotations

import re
import socket
import threading

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import InputError
from ase.calculators.emt import EMT
from ase.calculators.socketio import IPIProtocol
from ase.io import write
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.engines.sockets import serve_over_socket


@pytest.fixture
def listener():
    """A server on a free port that sends what it is told to the first client."""
    with socket.create_server(("localhost", 0)) as server:
        threads = []

        def serve(send):
            def answer():
                connection, _ = server.accept()
                with connection:
                    send(IPIProtocol(connection))
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)  # until the client closes

            threads.append(threading.Thread(target=answer))
            threads[-1].start()
            return server.getsockname()[1]

        yield serve
        for thread in threads:
            thread.join(timeout=30)


def positions_of(n_atoms, value=1.0):
    """A server's message with `n_atoms` positions."""
    return lambda protocol: protocol.sendposdata(10 * np.eye(3), np.eye(3) / 10, np.full((n_atoms, 3), value))


def crystal():
    """Four atoms of copper."""
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize(
    ("send", "error", "message"),
    [
        (positions_of(3), InputError, "the server has 3 atoms, the structure served here 4"),
        (positions_of(4, np.nan), InputError, "positions or a cell that are not finite"),
        (positions_of(4, np.inf), InputError, "positions or a cell that are not finite"),
        (
            lambda protocol: protocol.sendmsg("GET / HTTP"),
            ValueError,
            "does not speak the protocol of i-PI: .*GET / HTTP",
        ),
        (lambda protocol: protocol.socket.sendall(b"\xff" * 12), ValueError, "does not speak the protocol of i-PI"),
    ],
    ids=["atoms", "nan", "infinite", "another protocol", "noise"],
)
def test_what_cannot_be_answered_is_told(listener, send, error, message):
    with pytest.raises(error, match=message):
        serve_over_socket(crystal(), port=listener(send), timeout=20)


def test_a_server_that_ends_at_once_ends_the_client(listener):
    serve_over_socket(crystal(), port=listener(lambda protocol: None), timeout=20)


def test_silence_ends_after_the_timeout(listener):
    waiting = threading.Event()
    with pytest.raises(ConnectionError, match=r"localhost:\d+ sent no message for 0\.2 s \(--timeout\)"):
        serve_over_socket(crystal(), port=listener(lambda protocol: waiting.wait(5)), timeout=0.2)
    waiting.set()


def test_the_command_says_it_in_one_line(listener, tmp_path):
    write(tmp_path / "start.extxyz", bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    port = listener(positions_of(3))
    result = CliRunner().invoke(app, ["serve", "nacl", str(tmp_path / "start.extxyz"), "--port", str(port)])
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: the server has 3 atoms, the structure served here 8: .*\n", result.output)
