# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real pools: ZFS in a file, Btrfs and XFS on loop devices."""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import pathlib
import secrets
import shutil
import subprocess
import tempfile
import time
import typing as t

import pytest
from conftest import BUILD
from integration.servers import MEMORY

from ansible_collections.parallel.worktrees.plugins.module_utils import _db_host
from ansible_collections.parallel.worktrees.plugins.module_utils._db_host import Host

KINDS = ("zfs", "btrfs", "xfs")
MEGABYTE = 1 << 20


def command(*argv: str | os.PathLike[str]) -> str:
    """What a program answers that has to succeed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def insist(*argv: str | os.PathLike[str]) -> None:
    """Run what zfs-fuse refuses for a moment after a volume was in use."""
    until = time.monotonic() + 10
    while (done := subprocess.run(argv, capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < until, f"{argv}: {done.stderr}"
        time.sleep(0.05)


@contextlib.contextmanager
def pool(kind: str, *, megabytes: int = 1024, **settings: t.Any) -> c.Iterator[Host]:
    """A DB host with a pool of its own, removed at the end."""
    is_large = os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 4 << 30
    with tempfile.TemporaryDirectory(prefix="pools-", dir=MEMORY if is_large else "/tmp") as top:
        os.chmod(top, 0o711)
        folder = pathlib.Path(top)
        device, root = folder / "device", folder / "root"
        root.mkdir()
        with device.open("wb") as file:
            file.truncate(megabytes * MEGABYTE)
        name = f"pwtest-{secrets.token_hex(4)}"
        with zpool(name, device, root) if kind == "zfs" else mounted(kind, device, root):
            yield _db_host.parse(
                {
                    "store": kind,
                    "pool": f"{name}/ours",
                    "root": str(root),
                    "run": str(folder / "run"),
                    "state": str(folder / "state"),
                    "user": "postgres",
                    "source_user": "backup",  # Debian has these everywhere
                    "pooler_user": "proxy",
                    "bin_directory": "/usr/lib/postgresql/15/bin",
                    "supervisor": "process",
                    **settings,
                },
                "the test's host file",
            )


@contextlib.contextmanager
def zpool(name: str, device: pathlib.Path, root: pathlib.Path) -> c.Iterator[None]:
    if subprocess.run(["zpool", "list"], capture_output=True, check=False).returncode != 0:
        pytest.fail(f"no ZFS answers here\n{BUILD}", pytrace=False)
    command("zpool", "create", "-m", "none", name, device)
    try:
        command("zfs", "create", "-o", f"mountpoint={root}", "-o", "atime=off", f"{name}/ours")
        yield
    finally:
        insist("zpool", "destroy", "-f", name)


@contextlib.contextmanager
def mounted(kind: str, device: pathlib.Path, root: pathlib.Path) -> c.Iterator[None]:
    command(f"mkfs.{kind}", "-q", device)
    command("mount", "-o", "loop", device, root)
    try:
        yield
    finally:
        insist("umount", root)
