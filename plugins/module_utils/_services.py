# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who starts and stops the servers of a DB host: systemd, or we ourselves on a machine without it.

Private to this collection: may change without notice.

The servers of branches, PgBouncer and sources run as three system users, and none of them can become more than it is.

A server is told nothing but where its data are: its port, its socket folder and the rest lie in them, in
``postgresql.auto.conf``. So it comes back after a reboot as it was.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import typing as t

from . import _commands
from ._clusters import Cluster

if t.TYPE_CHECKING:
    from ._clusters import Account
    from ._db_host import Host

BRANCH_UNIT = "parallel-worktrees-branch@{}.service"
POOLER_UNIT = "parallel-worktrees-pgbouncer.service"
SOCKET_MODE = 0o750


class Supervisor(t.Protocol):
    """Names of servers are those of their branches; folders are those of their volumes."""

    def start(self, name: str, folder: str) -> None:
        """Start the server of a branch; whether it may not answer yet is left open."""

    def stop(self, name: str, folder: str) -> None:
        """End the server of a branch, with the sessions in it, and what a crashed one left."""

    def is_running(self, name: str, folder: str) -> bool:
        """Whether the server of a branch takes connections."""

    def start_pooler(self, config: str) -> None:
        """Start PgBouncer, unless it runs."""

    def last_words(self, name: str, folder: str) -> str:
        """The end of a server's log."""


def of(host: Host) -> Supervisor:
    return Systemd(host) if host.supervisor == "systemd" else Process(host)


def server_in(folder: str) -> Cluster:
    """The server that works on the data in a folder; its process is known by where it works."""
    return Cluster(*os.path.split(folder))


def socket_folder(host: Host, name: str) -> str:
    """Where the socket of a branch's server, or of PgBouncer, is: a folder that only the two system users enter."""
    return os.path.join(host.run, name)


def make_socket_folder(host: Host, name: str, account: Account) -> None:
    """Make a folder for the socket of an account, which PgBouncer's group reaches, too."""
    os.makedirs(host.run, mode=0o755, exist_ok=True)
    folder = socket_folder(host, name)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    os.chown(folder, account.uid, host.pooler_account.gid, follow_symlinks=False)
    os.chmod(folder, SOCKET_MODE)


def unprivileged(account: Account) -> tuple[str, ...]:
    """The words before a command of root's that is run as an account, and can never get more rights than it has."""
    if os.geteuid() != 0:
        return ("setpriv", "--no-new-privs")
    switch = (f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")
    return ("setpriv", *switch, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")


def forget_socket_folder(host: Host, name: str) -> None:
    """Remove the socket folder of a server that has ended, with what a crash left in it."""
    folder = socket_folder(host, name)
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(folder):
            os.unlink(os.path.join(folder, entry))
        os.rmdir(folder)


class Systemd:
    """Servers are units, which the role ``db_host`` has defined."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def start(self, name: str, folder: str) -> None:  # noqa: ARG002 - the unit knows it
        make_socket_folder(self.host, name, self.host.account)
        unit = BRANCH_UNIT.format(name)
        _commands.must(
            ("systemctl", "start", unit),
            doing=f"cannot start the server of branch {name}",
            hint=f"see its log: journalctl -u {unit}",
        )

    def stop(self, name: str, folder: str) -> None:
        unit = BRANCH_UNIT.format(name)
        _commands.must(("systemctl", "stop", unit), doing=f"cannot stop the server of branch {name}")
        server_in(folder).stop()  # one that somebody started by hand
        if _commands.run(("systemctl", "is-failed", "--quiet", unit)).ok:
            _commands.run(("systemctl", "reset-failed", unit))
        forget_socket_folder(self.host, name)

    def is_running(self, name: str, folder: str) -> bool:
        """By the unit that the server's process is in, which shows in containers, too, where its folder does not."""
        try:
            with open(os.path.join(server_in(folder).data, "postmaster.pid"), encoding="utf-8") as file:
                lines = file.read().splitlines()
            with open(f"/proc/{int(lines[0])}/cgroup", encoding="utf-8") as file:
                return BRANCH_UNIT.format(name) in file.read() and lines[7].strip() == "ready"
        except (OSError, ValueError, IndexError):
            return False

    def start_pooler(self, config: str) -> None:
        hint = f"see its log: journalctl -u {POOLER_UNIT}, and its settings: {config}"
        _commands.must(("systemctl", "start", POOLER_UNIT), doing="cannot start PgBouncer", hint=hint)

    def last_words(self, name: str, folder: str) -> str:  # noqa: ARG002 - systemd keeps it
        unit = BRANCH_UNIT.format(name)
        return _commands.run(("journalctl", "--unit", unit, "--output=cat", "--lines=10", "--quiet")).stdout.strip()


class Process:
    """Servers are our own children, which outlive us."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def start(self, name: str, folder: str) -> None:
        server = server_in(folder)
        if server.status() is not None:
            return
        server.stop()  # what a crash left at work
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(server.data, "postmaster.pid"))
        forget_socket_folder(self.host, name)
        make_socket_folder(self.host, name, self.host.account)
        postgres = os.path.join(self.host.bin_directory, "postgres")
        self._launch(self.host.account, (postgres, "-D", server.data), server.log)

    def stop(self, name: str, folder: str) -> None:
        server_in(folder).stop()
        forget_socket_folder(self.host, name)

    def is_running(self, name: str, folder: str) -> bool:  # noqa: ARG002 - known by where it works
        return server_in(folder).status() == "ready"

    def start_pooler(self, config: str) -> None:
        make_socket_folder(self.host, "pgbouncer", self.host.pooler_account)
        log = os.path.join(os.path.dirname(config), "pgbouncer.log")
        self._launch(self.host.pooler_account, ("pgbouncer", config), log)

    def last_words(self, name: str, folder: str) -> str:  # noqa: ARG002 - the log lies beside the data
        with contextlib.suppress(FileNotFoundError), open(server_in(folder).log, encoding="utf-8") as file:
            return _commands.last_words(file.read())
        return "it left no log"

    def _launch(self, account: Account, argv: tuple[str, ...], log: str) -> None:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            subprocess.Popen(  # pylint: disable=ansible-bad-function # it outlives the call
                (*unprivileged(account), "--", *argv),
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
