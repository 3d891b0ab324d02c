# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a PostgreSQL server of a DB host lets in: the text of ``pg_hba.conf`` and ``pg_ident.conf``.

Private to this collection: may change without notice.

Facts: https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
"""

from __future__ import annotations

import re

from ._postgres import NAME_BYTES

MAP = "parallel_worktrees"


def fault(name: str) -> str | None:
    """Why a database or a role of this name cannot stand in ``pg_hba.conf``; None where it can."""
    if not 1 <= len(name.encode("utf-8", "surrogateescape")) <= NAME_BYTES:
        return f"names have 1 to {NAME_BYTES} bytes"
    if re.search(r"[\x00-\x1f\x7f]", name):
        return "names with control characters, such as a newline, are not supported"
    if name.startswith("/"):
        return "PostgreSQL takes a name that begins with a slash for a regular expression"
    return None


def quoted(name: str) -> str:
    """A name as one word of these files: in quotes, ``all`` and ``+name`` are names, and ``""`` is one quote."""
    if reason := fault(name):
        raise ValueError(f"{name!r}: {reason}")
    return '"' + name.replace('"', '""') + '"'


def files(admin: str, *more: str) -> dict[str, str]:
    """The files by name: root is let in as the administrator over the socket, and others by the lines in ``more``."""
    lines = (f"local all {quoted(admin)} peer map={MAP}", *more)
    return {
        "pg_hba.conf": "".join(f"{line}\n" for line in lines),
        "pg_ident.conf": f'{MAP} "root" {quoted(admin)}\n',
    }
