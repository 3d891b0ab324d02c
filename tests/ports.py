# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports for tests, several runs of which may go on at once."""

from __future__ import annotations

import collections
import collections.abc as c
import contextlib
import random
import socket

RANGE = 1000

_claims: dict[int, socket.socket] = {}
"""By their base. Other processes' claims on the same name fail."""

_ports: collections.deque[int] = collections.deque()


def free_base() -> int:
    """A port from which on a thousand are free, of which no other run of the tests is told until this process ends."""
    bases = list(range(10000, 32000, RANGE))  # below those that the kernel gives out
    random.shuffle(bases)
    for base in bases:
        claim = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            claim.bind(f"\0parallel-worktrees-test-ports-{base}")
            if all(_is_free(port) for port in range(base, base + RANGE)):
                _claims[base] = claim
                return base
        claim.close()
    raise AssertionError("no thousand ports in a row are free")


@contextlib.contextmanager
def claimed_base() -> c.Iterator[int]:
    """The same for a while: there are only two dozen of them on a machine."""
    base = free_base()
    try:
        yield base
    finally:
        _claims.pop(base).close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return True
    return False


def free_port() -> int:
    """A port that is free now, and that no client is given for its end of a connection."""
    if not _ports:
        base = free_base()
        _ports.extend(range(base, base + RANGE))
    while not _is_free(port := _ports.popleft()):
        pass
    _ports.append(port)
    return port
