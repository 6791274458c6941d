"""Reading another namespace's sockets from /proc."""

from __future__ import annotations

import os
import socket

from lab.sockets import connected, connections, endpoint, listening


def test_endpoint_is_in_the_machines_order() -> None:
    """The kernel prints the address as the machine's integer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ("127.0.0.1", port) in [local for local, _, _ in connections(os.getpid())]
    assert endpoint("00000000:1199")[1] == 4505


def test_listening_and_connected() -> None:
    """An open port is seen, and who is connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in listening(os.getpid())
        assert connected(os.getpid(), port) == set()
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert connected(os.getpid(), port) == {"127.0.0.1"}
    assert port not in listening(os.getpid())
