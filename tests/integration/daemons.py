# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker daemon of a test's own, which can be stopped, beside the one that all tests share."""

from __future__ import annotations

import collections.abc as c
import contextlib
import pathlib
import secrets
import signal
import subprocess
import tempfile
import time


class Daemon:
    """Its socket, data and bridge are its own, and it leaves the rules of the firewall alone."""

    def __init__(self, folder: pathlib.Path, bridge: str) -> None:
        self.folder = folder
        self.bridge = bridge
        self.url = f"unix://{folder}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        own = ("-H", self.url, "--bridge", self.bridge, "--pidfile", str(self.folder / "pid"))
        places = ("--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec"))
        alone = ("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(["dockerd", *own, *places, *alone], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self.docker("version").returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = ["docker", "-H", self.url, *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def must(self, *arguments: str) -> str:
        done = self.docker(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stop(self) -> None:
        """As an administrator does it: its containers are stopped as well."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    @contextlib.contextmanager
    def hanging(self) -> c.Iterator[None]:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def daemon(image: str) -> c.Iterator[Daemon]:
    """One that has this image of the shared daemon; nothing of it is left at the end."""
    bridge = f"pwt{secrets.token_hex(4)}"
    number = int(secrets.token_hex(1), 16)
    for words in (("add", "name", bridge, "type", "bridge"), ("set", bridge, "up")):
        subprocess.run(["ip", "link", *words], check=True)
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["ip", "link", "del", bridge], check=True)
        subprocess.run(["ip", "address", "add", f"172.30.{number}.1/24", "dev", bridge], check=True)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True))
        made = Daemon(pathlib.Path(folder), bridge)
        stack.callback(made.stop)
        made.start()
        saved = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE)
        subprocess.run(["docker", "-H", made.url, "load", "--quiet"], stdin=saved.stdout, check=True)
        assert saved.wait() == 0
        yield made
