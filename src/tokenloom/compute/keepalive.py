"""Connections that end when the machine at their other end is switched off, or can no longer be reached.

Such a machine closes no connection, so a collective operation would wait for it until its timeout. The kernel of a
machine that runs answers to probes, also while a process computes, compiles or writes a large checkpoint. A heartbeat
of the process itself would take one that is busy for lost.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import psutil

# A connection without an answer for this long is closed. Shorter interruptions of the network have no effect.
LOST_SECONDS = 60
PROBE_SECONDS = 10  # between probes of a connection on which nothing arrives


def detect_lost_machines() -> None:
    """Close each TCP connection of this process when its other end has not answered for `LOST_SECONDS`.

    Applies to the connections that exist now. gloo and torch's store have no setting for it, so their sockets are set
    from outside. Does nothing on systems other than Linux.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status != psutil.CONN_ESTABLISHED:
            continue
        # A thread may have closed the connection meanwhile.
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fd)) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
            duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
            # Also for data that was sent and not received, for which there are no probes.
            duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * LOST_SECONDS)
