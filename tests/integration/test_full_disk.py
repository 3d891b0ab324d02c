# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are full or read-only, in each phase of provision and teardown: nothing is lost, the same call goes on.

PARALLEL_WORKTREES_FULL_DISKS says how many amounts of free space are tried with each disk and verb.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile

import pytest
from integration import workspaces
from integration.workspaces import REPOSITORIES, file_system, git

AMOUNTS = int(os.environ.get("PARALLEL_WORKTREES_FULL_DISKS", "2"))
SIZE = "200m"
WORK = "work\n" * 10000
DISKS = ("work", "clusters", "state")
FULL = ("No space left on device", "disk is full", "Out of diskspace")
"""Words of the system, of ours and of git."""
pytestmark = pytest.mark.root


class Disks:
    """A workspace whose repositories, clusters and state each have a small disk of their own.

    :ivar used: how many bytes of each disk a task takes.
    """

    def __init__(self, folder: pathlib.Path, space: workspaces.Workspace, remount) -> None:
        self.folder = folder
        self.space = space
        self.remount = remount
        before = self.free()
        space.provision("first").must()
        self.used = {name: before[name] - now for name, now in self.free().items()}
        space.teardown("first").must()
        assert workspaces.wait_for(lambda: space.traces("first")) == []

    def free(self):
        return {name: os.statvfs(self.folder / name).f_bavail * 4096 for name in DISKS}

    @contextlib.contextmanager
    def left(self, disk, amount):
        """A disk with no more free space than that."""
        filler = self.folder / disk / "filler"
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, self.free()[disk] - amount // 4096 * 4096))
        try:
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def read_only(self, disk):
        assert workspaces.wait_for(lambda: self.remount[disk]("ro")) == 0  # a server may be ending on it
        try:
            yield
        finally:
            assert self.remount[disk]("rw") == 0


@pytest.fixture(scope="module")
def disks():
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        remount = {}
        for name in DISKS:
            (folder / name).mkdir()
            remount[name] = stack.enter_context(file_system(folder / name, f"size={SIZE}", "mode=0755"))
        given = {"database_backend": "embedded", "database_directory": str(folder / "clusters")}
        space = stack.enter_context(workspaces.bautista(folder / "work", **given))
        space.state = folder / "state"
        yield Disks(folder, space, remount)


def told(run):
    """Ended well, or said what did not work, where, and what helps."""
    print(run)
    assert "Traceback" not in run.output
    if run.code == 0:
        return None
    last = run.failures[-1]
    message = run.refused(last["failure"])
    assert any(words in message for words in FULL), message
    return message


def complete(space, task):
    found = space.task(task)
    assert (found["state"], found["drift"]) == ("ready", [])
    for name in REPOSITORIES:
        assert git(space.worktree(name, task), "status", "--porcelain") == ""
        git(space.worktree(name, task), "fsck", "--no-dangling")


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("number", range(AMOUNTS))
def test_a_provision_on_a_full_disk(disks, disk, number):
    space, task = disks.space, f"full-{disk}-{number}"
    amount = disks.used[disk] * number // AMOUNTS
    with disks.left(disk, amount):
        is_refused = bool(told(space.provision(task)))
        assert is_refused or number
        if number % 2:
            told(space.teardown(task))
    space.provision(task).must()
    complete(space, task)
    space.teardown(task).must()
    assert workspaces.wait_for(lambda: space.traces(task)) == []


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("number", range(AMOUNTS))
def test_a_teardown_on_a_full_disk(disks, disk, number):
    """Work is saved first, or everything stays."""
    space, task = disks.space, f"down-{disk}-{number}"
    space.provision(task).must()
    work = space.worktree("docs", task) / "work.txt"
    work.write_text(WORK)
    with disks.left(disk, 8192 * number):
        run = space.teardown(task, force="true")
        if told(run):
            assert space.task(task)
    if space.task(task):
        space.teardown(task, force="true").must()
    assert workspaces.wait_for(lambda: space.traces(task)) == []
    saved = git(space.repository("docs"), "for-each-ref", "--format=%(refname)", f"refs/worktrees-saved/{task}")
    assert git(space.repository("docs"), "show", f"{saved.splitlines()[-1]}^3:work.txt") == WORK.strip()


@pytest.mark.parametrize("disk", DISKS)
def test_a_disk_that_is_read_only(disks, disk):
    space, task = disks.space, f"readonly-{disk}"
    with disks.read_only(disk):
        assert disk in space.provision(task).refused("environment")
    space.provision(task).must()
    complete(space, task)
    if disk != "clusters":  # it cannot become read-only while a server writes to it
        with disks.read_only(disk):
            space.teardown(task).refused("environment")
            assert space.task(task)["name"] == task
    space.teardown(task).must()
    assert workspaces.wait_for(lambda: space.traces(task)) == []
