# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Worktrees on a disk that is not mounted for a while: they are not gone, so nothing of their task goes."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
from integration import workspaces

pytestmark = pytest.mark.root


@contextlib.contextmanager
def mounted(source, point):
    subprocess.run(["mount", "--bind", source, point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_disk_that_is_not_mounted(tmp_path):
    with workspaces.bautista(tmp_path) as space:
        disk, point = tmp_path / "disk", space.root / "mnt"
        disk.mkdir()
        point.mkdir()
        repos = [{"name": "docs", "folder": "../mnt/trees/{{ task_facts.name }}"}]
        apart = space.varied(worktrees_repos=repos, env_files=[])
        with mounted(disk, point):
            apart.provision("far").must()
            (point / "trees" / "far" / "work.txt").write_text("work\n")
        nowhere = f"lies on {point}, where nothing is mounted now"
        (task,) = apart.status()["tasks"]
        assert [one["state"] for one in task["worktrees"]] == ["unknown"]
        assert nowhere in task["drift"][0]
        assert "nothing is left over" in apart.run("prune", apply="true").must().stdout
        for verb in ("teardown", "provision"):
            apart.run(verb, task="far").refused("environment", nowhere, f"mount {point}")
        assert [one["name"] for one in apart.status()["tasks"]] == ["far"]
        with mounted(disk, point):
            assert (point / "trees" / "far" / "work.txt").read_text() == "work\n"
            apart.teardown("far").refused("user", "work.txt")
            apart.teardown("far", force="true").must()
