# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes on real ZFS, Btrfs and XFS: the same whatever the file system, and read with its own tools."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from integration.pools import KINDS, MEGABYTE, command, insist, pool
from integration.servers import fork

from ansible_collections.parallel.worktrees.plugins.module_utils import _stores
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import EnvironmentFailure, UserError

pytestmark = pytest.mark.root

MARK = {
    "kind": "branch",
    "owner": "shop/fix=1@0123abcd",
    "odd": "tab\tline\nü'\"\\ 'x'",
    "none": None,
    "list": [1, 2.5],
}
READY = "goldens/app/20261121T180000Z@ready"
GOLDEN = READY.partition("@")[0]


@pytest.fixture(params=KINDS, scope="module")
def host(request):
    with pool(request.param) as host:
        yield host


@pytest.fixture
def store(host):
    store = _stores.of(host)
    yield store
    for volume in sorted(store.volumes(), key=lambda one: (one.origin is None, one.name)):
        store.destroy(volume.name)


@pytest.fixture
def golden(store):
    """Some data, kept as they are."""
    volume = store.create(GOLDEN, {"kind": "golden"})
    os.mkdir(f"{volume.path}/data")
    pathlib.Path(f"{volume.path}/data/table").write_bytes(os.urandom(8 * MEGABYTE))
    assert store.snapshot(GOLDEN, "ready") == READY
    return volume


def there(host) -> str:
    """All that the file system has, with its own tool."""
    if host.store == "zfs":
        return command("zfs", "list", "-H", "-t", "all", "-o", "name", "-r", host.pool)
    return command("find", host.root, "-mindepth", "1", "-maxdepth", "3")


def test_a_volume_from_nothing_to_nothing(store):
    empty = there(store.host)
    assert store.volumes() == []
    assert store.volume("branches/one") is None
    made = store.create("branches/one", MARK)
    assert made == store.volume("branches/one")
    assert (made.name, made.mark, made.origin) == ("branches/one", MARK, None)
    assert abs(made.created - time.time()) < 60
    assert made.path == os.path.join(store.host.root, "branches/one")
    assert os.path.isdir(made.path)
    store.create("branches/two", {})
    store.create("branches_not/three", {})
    assert [one.name for one in store.volumes()] == ["branches/one", "branches/two", "branches_not/three"]
    assert [one.name for one in store.volumes("branches")] == ["branches/one", "branches/two"]
    store.set_mark("branches/two", MARK)
    assert store.must_have("branches/two").mark == MARK
    assert store.must_have("branches/two").created == pytest.approx(made.created, abs=60)
    for name in ("branches/one", "branches/two", "branches_not/three"):
        store.destroy(name)
    assert store.volumes() == []
    left = set(there(store.host).splitlines()) - set(empty.splitlines())
    assert {os.path.basename(one) for one in left} <= {"branches", "branches_not"}
    assert not os.path.exists(made.path)


def test_copies_are_apart_from_each_other_and_from_what_they_are_copies_of(store, golden):
    pathlib.Path(f"{golden.path}/data/table").write_text("changed since")
    one, two = (store.clone(READY, f"branches/{name}", {**MARK, "is": name}) for name in ("one", "two"))
    assert (one.origin, one.mark) == (READY, {**MARK, "is": "one"})
    content = pathlib.Path(f"{two.path}/data/table").read_bytes()
    assert len(content) == 8 * MEGABYTE
    pathlib.Path(f"{one.path}/data/table").write_text("mine")
    assert pathlib.Path(f"{two.path}/data/table").read_bytes() == content
    assert store.must_have(GOLDEN).mark == {"kind": "golden"}
    assert store.snapshots(GOLDEN) == [_stores.Snapshot(READY, ("branches/one", "branches/two"))]


@pytest.mark.usefixtures("golden")
def test_a_copy_costs_what_it_writes(store):
    copy = store.clone(READY, "branches/one", MARK)
    os.sync()
    before = store.size("branches/one")
    assert before.own < MEGABYTE
    assert before.full >= 8 * MEGABYTE
    pathlib.Path(f"{copy.path}/data/more").write_bytes(os.urandom(4 * MEGABYTE))
    os.sync()
    if store.host.store == "zfs":
        store.snapshot("branches/one", "now")  # zfs-fuse counts what it has written when it has to
    assert 4 * MEGABYTE <= store.size("branches/one").own < 5 * MEGABYTE


def test_a_snapshot_stays_while_volumes_stand_on_it(store, golden):
    store.clone(READY, "branches/one", MARK)
    for destroy, name in ((store.destroy_snapshot, READY), (store.destroy, GOLDEN)):
        with pytest.raises(UserError, match=f"{READY} stays: branches/one stand"):
            destroy(name)
    assert store.volume(GOLDEN) == golden
    store.rename("branches/one", "branches/other")
    with pytest.raises(UserError, match="branches/other"):
        store.destroy(GOLDEN)
    store.destroy("branches/other")
    store.destroy(GOLDEN)
    assert store.volumes() == []
    assert "ready" not in there(store.host)


@pytest.mark.usefixtures("golden")
def test_a_copy_of_a_copy(store):
    parent = store.clone(READY, "branches/parent", MARK)
    pathlib.Path(f"{parent.path}/data/own").write_text("of the parent")
    child = store.clone(store.snapshot("branches/parent", "f_child"), "branches/child", {"kind": "branch"})
    assert pathlib.Path(f"{child.path}/data/own").read_text() == "of the parent"
    assert child.origin == "branches/parent@f_child"
    store.rename("branches/parent", "branches/renamed")
    assert store.must_have("branches/child").origin == "branches/renamed@f_child"
    assert store.must_have("branches/child").mark == {"kind": "branch"}
    with pytest.raises(UserError, match="branches/child stand"):
        store.destroy("branches/renamed")
    store.destroy("branches/child")
    store.destroy_snapshot("branches/renamed@f_child")
    assert store.snapshots("branches/renamed") == []


def test_a_snapshot_is_replaced_by_one_of_the_same_label(store, golden):
    pathlib.Path(f"{golden.path}/data/table").write_text("later")
    store.snapshot(GOLDEN, "ready")
    copy = store.clone(READY, "branches/one", MARK)
    assert pathlib.Path(f"{copy.path}/data/table").read_text() == "later"


def test_what_has_no_mark_is_let_alone(store):
    if store.host.store == "zfs":
        command("zfs", "create", "-p", f"{store.host.pool}/branches/foreign")
        command("zfs", "set", f"{_stores.PROPERTY}={{}}", f"{store.host.pool}/branches")  # a mark that it inherits
    else:
        os.makedirs(store.path("branches/foreign/data"))
    for call in (
        lambda: store.create("branches/foreign", {}),
        lambda: store.destroy("branches/foreign"),
        lambda: store.volume("branches/foreign"),
        lambda: store.snapshot("branches/foreign", "x"),
        lambda: store.set_mark("branches/foreign", {}),
        lambda: store.rename("branches/foreign", "branches/mine"),
    ):
        with pytest.raises(UserError, match=r"foreign is there, and has no mark of ours"):
            call()
    assert "foreign" in there(store.host)
    if store.host.store == "zfs":
        command("zfs", "inherit", _stores.PROPERTY, f"{store.host.pool}/branches")
        insist("zfs", "destroy", f"{store.host.pool}/branches/foreign")
    else:
        os.removedirs(store.path("branches/foreign/data"))


@pytest.mark.parametrize("name", ["", "..", "branches/../x", "/etc", "branches/a.b", "-r", "a@b", "a b", "branches//a"])
def test_what_is_no_name_is_refused(store, name):
    with pytest.raises(UserError, match="is no name of a volume"):
        store.create(name, {})


def test_a_name_is_given_once(store):
    store.create("branches/one", MARK)
    store.create("branches/two", MARK)
    with pytest.raises(UserError, match="there is a volume branches/one"):
        store.create("branches/one", {})
    with pytest.raises(UserError, match="there is a volume branches/one"):
        store.rename("branches/two", "branches/one")
    with pytest.raises(UserError, match="there is no volume branches/none"):
        store.destroy("branches/none")
    with pytest.raises(UserError, match="there is no snapshot branches/one@none"):
        store.destroy_snapshot("branches/one@none")


@pytest.mark.usefixtures("golden")
def test_a_pool_that_is_nearly_full_says_what_could_go(store):
    store.clone(READY, "branches/one", {"kind": "branch"})
    store.clone(READY, "branches/safe", {"kind": "branch", "protected": True})
    full = type(store)(dataclasses.replace(store.host, reserve=99.9), ())
    with pytest.raises(EnvironmentFailure, match=r"cannot do it: .* GB are free .* less than the 99\.9 %") as raised:
        full.check_room("cannot do it")
    assert "branches/one" in str(raised.value.hint)
    assert "branches/safe" not in str(raised.value.hint)
    store.check_room("cannot do it")


def test_a_pool_that_is_not_mounted_is_told(store, tmp_path):
    with pytest.raises(EnvironmentFailure, match="the pool is not mounted at"):
        _stores.of(dataclasses.replace(store.host, root=str(tmp_path)))


@pytest.mark.usefixtures("golden")
def test_killed_while_it_works(store):
    """However far a run came: the same calls again make the volume, or take it away, and nothing else is left."""
    steps = (
        lambda store: store.clone(READY, "branches/one", MARK) and None,
        lambda store: store.rename("branches/one", "branches/two"),
        lambda store: store.destroy("branches/two"),
    )
    for delay in (0, 0.003, 0.01, 0.02, 0.04, 0.08):
        for step in steps:
            pid, answers = fork(functools.partial(alone, store.host, step))
            with answers:
                time.sleep(delay)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        alone(store.host, start_anew)
    alone(store.host, lambda store: store.tidy())
    assert [one.name for one in store.volumes()] == [GOLDEN]
    assert not [path for path in pathlib.Path(store.host.root).rglob(".*") if path.name != ".zfs"]


def alone(host, work):
    """Do something as all do: under the lock, which what is killed leaves to the programs that it has started."""
    with host.locked() as lock:
        return work(_stores.of(host, [lock]))


def start_anew(store):
    for name in ("branches/one", "branches/two"):
        if store.volume(name) is not None:
            store.mount(name)
            store.destroy(name)
    copy = store.clone(READY, "branches/one", MARK)
    assert os.path.getsize(f"{copy.path}/data/table") == 8 * MEGABYTE
    store.destroy("branches/one")


def test_what_keeps_a_dataset_busy_is_waited_for_and_then_named(monkeypatch):
    with pool("zfs", megabytes=128) as host:
        store = _stores.of(host)
        volume = store.create("branches/one", MARK)
        holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], cwd=volume.path)
        try:
            monkeypatch.setattr(_stores, "PATIENCE", 0.5)
            with pytest.raises(EnvironmentFailure, match=rf"process {holder.pid} \(python.*\), at work in it"):
                store.destroy("branches/one")
            assert store.volume("branches/one") == volume
        finally:
            holder.kill()
            holder.wait()
        store.destroy("branches/one")
        assert store.volume("branches/one") is None


def test_a_quota_holds():
    with pool("zfs", megabytes=256) as host:
        store = _stores.of(host)
        store.create("goldens/app", {})
        store.clone(store.snapshot("goldens/app", "ready"), "branches/one", {}, quota="20M")
        assert command("zfs", "get", "-H", "-p", "-o", "value", "quota", f"{host.pool}/branches/one") == str(
            20 * MEGABYTE
        )
