# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removals beside real bind mounts: each place that removes folders refuses, and what is mounted keeps its files."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import typing as t

import pytest
from integration.repos import call, git, refused, worktrees
from integration.servers import fork, outcome
from integration.workspaces import differences, snapshot, wait_for

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _clusters,
    _cow,
    _integration,
    _mounts,
    _trash,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError, WorktreesError
from ansible_collections.parallel.worktrees.plugins.module_utils._git import MAKING, Repository

pytestmark = pytest.mark.root

SOMEBODY = 4321


@contextlib.contextmanager
def mounted(source: pathlib.Path, point: pathlib.Path):
    """A folder of precious files, mounted where a removal reaches; they must be there in the end."""
    source.mkdir(parents=True, exist_ok=True)
    (source / "precious").write_text("precious\n")
    point.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", source, point], check=True)
    try:
        yield
    finally:
        top = os.path.commonpath([source, point])  # the mount may have moved
        subprocess.run(["umount", *_mounts.below(top)], check=False, capture_output=True)
        assert (source / "precious").read_text() == "precious\n"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "folder with\ta tab" / "to remove"
    (made / "src" / "deep").mkdir(parents=True)
    (made / "src" / "deep" / "file").write_text("")
    return made


def removed_by_somebody(folder: pathlib.Path) -> dict[str, t.Any] | None:
    """What a removal by an unprivileged user fails with."""

    def act() -> dict[str, t.Any] | None:
        try:
            _mounts.remove(str(folder))
        except WorktreesError as error:
            return error.as_result()
        return None

    for above in folder.parents:
        if above.stat().st_uid == 0:
            above.chmod(above.stat().st_mode | 0o011)
    return t.cast("dict[str, t.Any] | None", outcome(fork(act, SOMEBODY)))


def test_a_removal_refuses_before_the_first_file_goes(tmp_path, folder):
    point = folder / "node_modules"
    with mounted(tmp_path / "main", point):
        with pytest.raises(UserError) as error:
            _mounts.remove(str(folder))
        assert str(point) in error.value.message
        assert error.value.hint == f"unmount it first: umount '{point}'"
        assert (folder / "src" / "deep" / "file").exists()
        # A mount point itself, and by a path that a link leads to.
        (tmp_path / "link").symlink_to(folder)
        for path in (point, tmp_path / "link" / "node_modules"):
            with pytest.raises(UserError, match="something is mounted there"):
                _mounts.remove(str(path))
    _mounts.remove(str(folder))
    assert not folder.exists()
    _mounts.remove(str(folder))


def test_mounts_within_mounts_are_named_in_the_order_to_unmount_them(tmp_path, folder):
    outer, inner = folder / "outer", folder / "outer" / "inner"
    with mounted(tmp_path / "one", outer), mounted(tmp_path / "two", inner):
        assert _mounts.below(str(folder)) == [str(inner), str(outer)]
        assert _mounts.below(str(folder / "out")) == []


def test_a_mount_that_comes_after_the_look_is_not_crossed(tmp_path, folder, monkeypatch):
    with mounted(tmp_path / "main", folder / "node_modules"):
        monkeypatch.setattr(_mounts, "refuse", lambda _path: None)
        with pytest.raises(UserError, match="node_modules") as error:
            _mounts.remove(str(folder))
        assert error.value.details["mounts"] == [str(folder / "node_modules")]
        assert [path.name for path in folder.iterdir()] == ["node_modules"], "the rest is removed"


def test_files_keep_their_modes_as_a_hard_link_may_lie_elsewhere(tmp_path, folder):
    store = tmp_path / "store"
    store.write_text("a package\n")
    store.chmod(0o444)
    os.link(store, folder / "src" / "package")
    (folder / "src").chmod(0o500)
    (folder / "src" / "deep").chmod(0)
    for path in (folder.parent, folder, *folder.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    assert removed_by_somebody(folder) is None
    assert not folder.exists()
    assert store.stat().st_mode & 0o777 == 0o444


def test_what_cannot_be_removed_is_named_and_does_not_keep_the_rest(folder):
    (folder / "other").mkdir()
    (folder / "other" / "file").write_text("")
    (folder / "mine").write_text("")
    for path in (folder.parent, folder):
        os.chown(path, SOMEBODY, SOMEBODY)
    failed = removed_by_somebody(folder)
    assert failed is not None
    assert f"cannot remove {folder}" in failed["msg"]
    assert "Permission denied, and 1 more below" in failed["msg"]
    assert failed["hint"] == f"remove it as a user who may, root for example: sudo rm -r '{folder}'"
    assert not (folder / "mine").exists()


def test_a_tree_deeper_than_python_recurses_is_removed(tmp_path):
    top = tmp_path / "deep"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _level in range(900):
        os.mkdir("a", dir_fd=here)
        inner = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    _mounts.remove(str(top))
    assert not top.exists()


# The places that remove folders


def worktree(sample):
    return sample.tree("app"), lambda **more: sample.run("app", state="absent", **more)


def submodule(sample):
    return sample.tree("backend") / "migrations", lambda **more: sample.run("backend", state="absent", **more)


def leftover(sample):
    git(sample.app, "worktree", "remove", "--force", str(sample.tree("app")))
    return sample.tree("app"), lambda **more: sample.run("app", state="absent", **more)


def half_made(sample):
    admin = sample.app / ".git" / "worktrees" / "fix"
    (admin / "locked").write_text(MAKING)
    return sample.tree("app"), lambda **more: sample.run("app", state="absent", **more)


def without_dot_git(sample):
    (sample.tree("app") / ".git").unlink()
    return sample.tree("app"), lambda **more: sample.run("app", state="absent", **more)


@pytest.mark.parametrize(
    "place", [worktree, submodule, leftover, half_made, without_dot_git], ids=lambda one: one.__name__
)
def test_a_worktree_with_a_mount_is_not_removed(sample, place):
    sample.make()
    folder, remove = place(sample)
    main = folder.parents[1] / "node_modules"
    with mounted(main, folder / "node_modules"):
        before = snapshot(sample.root)
        for more in ({"check": True, "force": True}, {"force": True}):
            refused(remove(**more), "user", str(folder / "node_modules"), f"umount {folder / 'node_modules'}")
        assert differences(before, snapshot(sample.root)) == []
    assert not remove(force=True).get("failed")
    assert not sample.tree("app").exists() or place is submodule


def test_a_mount_that_comes_after_the_rename_keeps_its_files(sample, monkeypatch):
    sample.make("app")
    point = sample.tree("app") / "node_modules"
    with mounted(sample.app / "node_modules", point):
        with monkeypatch.context() as patch:
            patch.setattr(_mounts, "refuse", lambda _path: None)
            sample.remove("app")
        common = str(sample.app / ".git")
        assert not wait_for(lambda: not _trash.left(common))
        (left,) = _trash.left(common)
        assert "node_modules" in os.listdir(left)
        subprocess.run(["umount", os.path.join(left, "node_modules")], check=True)
    sample.make("app")
    sample.remove("app")
    assert sample.traces() == []


def test_a_copied_folder_with_a_mount_is_not_replaced(tmp_path):
    copied = tmp_path / "node_modules"
    with mounted(tmp_path / "store", copied / "inner"), pytest.raises(UserError, match="inner"):
        _cow.make_way(str(copied))
    _cow.make_way(str(copied))
    assert not copied.exists()


def test_a_cluster_with_a_mount_is_not_removed(tmp_path):
    there: tuple[t.Any, ...] = ("/nowhere", "/nowhere/s", "127.0.0.1", 5433, "postgres", "postgres", {})
    record = _clusters.Record("a", "shop/fix", "15.4", *there)
    cluster = _clusters.Cluster(str(tmp_path), record.name)
    os.makedirs(cluster.data)
    cluster.write(record)
    spec: dict[str, t.Any] = {"name": record.name, "owner": record.owner, "directory": str(tmp_path)}
    spec["state"] = "absent"
    with mounted(tmp_path / "precious", pathlib.Path(cluster.data, "base")):
        for check in (True, False):
            refused(call(_clusters, check=check, **spec), "user", "data/base", "umount")
        assert cluster.record() == record
    assert call(_clusters, **spec)["changed"]
    assert not os.path.exists(cluster.folder)


@pytest.mark.parametrize("act", [_integration.remove_tree, _integration._forget_tree])
def test_a_worktree_for_integration_with_a_mount_is_not_removed(sample, act):
    repository = Repository.at(str(sample.app))
    path = _integration._tree_of(repository.common, _integration._usual_folder())
    git(sample.app, "worktree", "add", "--quiet", "--detach", path)
    given = (repository, path)[: act.__code__.co_argcount]
    with mounted(sample.app / "node_modules", pathlib.Path(path, "node_modules")):
        with pytest.raises(UserError, match="node_modules"):
            act(*given)
        assert path in worktrees(sample.app)
    act(*given)
    assert not os.path.exists(path)
