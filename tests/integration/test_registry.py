# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry that is damaged, empty, gone, locked or read-only: nothing is lost over it, and there is a way back.

PARALLEL_WORKTREES_DAMAGES says how many damages are tried; PARALLEL_WORKTREES_SEED repeats them.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import typing as t

import pytest
from integration import workspaces
from integration.repos import Sample, call, make_template, refused, succeeded, worktrees
from integration.servers import fork, outcome
from integration.workspaces import snapshot

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _leases,
    _progress,
    _prune,
    _records,
    _registry_file,
    _reservations,
    _status,
)

DAMAGES = int(os.environ.get("PARALLEL_WORKTREES_DAMAGES", "60"))
SEED = int(os.environ.get("PARALLEL_WORKTREES_SEED", random.randrange(10**6)))
TASKS = ("fix", "other")
NOBODY = 65534
LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.read()
"""


class Space:
    """Two tasks with worktrees of one repository, and their registry.

    :ivar good: the content of the registry.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        make_template(folder / "template")
        self.sample = Sample(folder / "sample", folder / "template")
        self.registry = folder / "state" / "registry.sqlite3"
        self.copy = self.registry.with_name(self.registry.name + _registry_file.COPY)
        for task in TASKS:
            owner = succeeded(self.record("provisioning", task))["tasks"][0]["owner"]
            plan = self.sample.make("docs", task=task, owner=owner)["plan"]
            succeeded(self.record("provisioning", task, plan={"worktrees": plan, "database": {}}))
            succeeded(self.record("ready", task))
            succeeded(self.lease(task))
        self.good = self.registry.read_bytes()
        self.trees = worktrees(self.sample.docs)
        assert len(self.trees) == len(TASKS)

    def restore(self) -> None:
        for path in (self.registry, self.copy):
            path.write_bytes(self.good)
            path.chmod(0o600)
        self.registry.with_name(self.registry.name + "-journal").unlink(missing_ok=True)

    def ask(self, what: t.Any, *, check: bool = False, **given: t.Any) -> dict[str, t.Any]:
        return call(what, check=check, registry=str(self.registry), workspace="shop", **given)

    def record(self, state: str, task: str, **more: t.Any) -> dict[str, t.Any]:
        return self.ask(_records, state=state, task=task, root=str(self.sample.work), **more)

    def lease(self, *owners: str, check: bool = False) -> dict[str, t.Any]:
        return self.ask(_leases, owners=list(owners), ports={"web": {"base": 30000}}, check=check)

    def status(self) -> dict[str, t.Any]:
        repos = [{"name": "docs", "repo": str(self.sample.docs)}]
        return self.ask(_status, repos=repos, backend="none")

    def prune(self, **more: t.Any) -> dict[str, t.Any]:
        repos = [{"name": "docs", "repo": str(self.sample.docs)}]
        return self.ask(_prune, repos=repos, backend="none", apply=True, **more)

    def everything(self) -> list[dict[str, t.Any]]:
        """What each kind of use answers; the removal of what belongs to no task comes first."""
        return [
            self.prune(),
            self.status(),
            self.record("provisioning", "fix"),
            self.record("removing", "other"),
            self.lease("third"),
            self.ask(_reservations, task="fix", repos=["docs"], paths=["src/**"]),
        ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Space(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def space(made):
    made.restore()
    return made


def names(space):
    return [task["name"] for task in succeeded(space.status())["tasks"]]


# Damage


def damaged(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Some bytes of a file otherwise, or no more of it from somewhere on."""
    place = chance.randrange(len(content))
    kind = chance.choice(("bit", "bytes", "zeros", "block", "cut", "letter"))
    if kind == "cut":
        return f"cut at {place}", content[:place]
    if kind == "letter":
        letters = [at for at, byte in enumerate(content) if 97 <= byte <= 122]
        place = chance.choice(letters)
        return f"letter at {place}", content[:place] + bytes([chance.randrange(97, 123)]) + content[place + 1 :]
    length = {"bit": 1, "bytes": chance.randrange(1, 65), "zeros": chance.randrange(1, 513), "block": 4096}[kind]
    if kind == "bit":
        new = bytes([content[place] ^ 1 << chance.randrange(8)])
    else:
        new = bytes(length) if kind == "zeros" else chance.randbytes(length)
    return f"{kind} at {place}", (content[:place] + new + content[place + length :])[: len(content)]


@pytest.mark.parametrize("number", range(DAMAGES))
def test_damage_at_random(space, number):
    """Each use works or is refused with the way back; nothing that has a task is taken for what has none."""
    where, content = damaged(space.good, random.Random(f"{SEED} {number}"))
    print(f"PARALLEL_WORKTREES_SEED={SEED}: {where}")
    space.registry.write_bytes(content)
    for result in space.everything():
        if result.get("failed") and result["failure"] == "environment":
            refused(result, "environment", f"registry {space.registry}")
    assert worktrees(space.sample.docs) == space.trees
    for tree in space.trees:
        assert (pathlib.Path(tree) / "README").exists()


def test_a_damaged_definition_that_is_no_text(space):
    """SQLite quotes it in its message, which Python then cannot decode."""
    content = space.good.replace(b"tabletasktask", b"table\xf4asktask")
    space.registry.write_bytes(content.replace(b"root text not null", b"root text not(null"))
    assert space.registry.read_bytes().count(b"\xf4ask") == 1
    for result in space.everything():
        refused(result, "environment", "malformed", f"cp {space.copy} {space.registry}")


@pytest.mark.parametrize(
    ("name", "damaged_name"),
    [("holder text", "folder text"), ("passed_over", "missed_over"), ("glob", "blob"), ("moment", "foment")],
)
def test_a_letter_of_a_name_in_a_definition(space, name, damaged_name):
    """SQLite takes it for another name."""
    assert name.encode() in space.good
    space.registry.write_bytes(space.good.replace(name.encode(), damaged_name.encode()))
    for result in space.everything():
        refused(result, "environment", "malformed", f"cp {space.copy} {space.registry}")
    assert worktrees(space.sample.docs) == space.trees


@pytest.mark.parametrize("column", ["name", "workspace", "branch", "plan"])
def test_a_letter_of_a_record_that_is_another(space, column):
    """SQLite itself sees nothing wrong with it."""
    with contextlib.closing(connection := sqlite3.connect(space.registry)), connection:
        connection.execute(f"update task set {column} = replace({column}, 'o', 'x') where name = 'other'")
    for result in space.everything():
        refused(result, "environment", "malformed", f"cp {space.copy} {space.registry}")
    assert worktrees(space.sample.docs) == space.trees


def test_another_id(space):
    with contextlib.closing(connection := sqlite3.connect(space.registry)), connection:
        connection.execute("update registry set id = '00000000'")
    refused(space.prune(force=True), "environment", "malformed")
    assert worktrees(space.sample.docs) == space.trees


@pytest.mark.parametrize("loss", ["zero length", "gone", "garbage", "header alone"])
def test_the_way_back(space, loss):
    """The command that the message names restores every task."""
    before = space.status()["tasks"]
    if loss == "gone":
        space.registry.unlink()
    else:
        content = {"zero length": b"", "garbage": b"no database" * 100, "header alone": space.good[:100]}[loss]
        space.registry.write_bytes(content)
    for result in space.everything():
        text = refused(result, "environment", str(space.registry), str(space.copy))
    command = next(line for line in text.splitlines() if " cp " in line)
    command = command[command.index("mv " if "mv " in command else "cp ") :]
    subprocess.run(["sh", "-c", command], check=True)
    space.registry.with_name(space.registry.name + ".damaged").unlink(missing_ok=True)
    assert [one["owner"] for one in space.status()["tasks"]] == [one["owner"] for one in before]
    assert space.prune()["leftovers"] == []
    assert worktrees(space.sample.docs) == space.trees


def test_a_registry_that_is_forgotten_for_good(space):
    """Without its copy it begins anew; what the former one made is another's, and is left alone."""
    space.registry.unlink()
    space.copy.unlink()
    assert names(space) == []
    assert succeeded(space.prune())["leftovers"] == []
    assert worktrees(space.sample.docs) == space.trees


def test_the_copy_is_never_older(space):
    for task in ("more", "most"):
        succeeded(space.record("provisioning", task))
        shutil.copy(space.copy, space.registry)
        assert task in names(space)
    assert space.copy.stat().st_mode & 0o777 == space.registry.stat().st_mode & 0o777
    assert sorted(path.name for path in space.registry.parent.iterdir()) == [space.registry.name, space.copy.name]


def test_a_registry_of_a_later_version(space):
    with contextlib.closing(connection := sqlite3.connect(space.registry)), connection:
        connection.execute("pragma user_version = 99")
    for result in space.everything():
        refused(result, "environment", "version 99", "ansible-galaxy collection install")
    assert worktrees(space.sample.docs) == space.trees


# Locked


@contextlib.contextmanager
def locked(registry):
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, registry], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield process
        process.kill()


def test_a_registry_that_is_locked_for_too_long(space, monkeypatch):
    monkeypatch.setattr(_registry_file, "BUSY_SECONDS", 1)
    with locked(space.registry) as process:
        for result in (space.status(), space.lease("third"), space.lease("third", check=True), space.prune()):
            refused(result, "environment", f"process {process.pid} (python", "1 s", "fuser")
    assert names(space) == list(TASKS)


def test_a_registry_that_is_free_again_in_time(space, tmp_path, monkeypatch):
    """Looking and writing wait for it, and tell for whom."""
    monkeypatch.setattr(_progress, "SECONDS", 0.05)

    def waiting(name, what):
        def act():
            _progress.tell_to((tmp_path / name).write_text)
            return what()

        return fork(act)

    with locked(space.registry) as process:
        begun = [waiting("status", space.status), waiting("lease", lambda: space.lease("third"))]
        assert workspaces.wait_for(lambda: len(list(tmp_path.iterdir())) < len(begun)) is False
        told = [path.read_text() for path in tmp_path.iterdir()]
        assert all(f"waiting for the registry {space.registry}" in text for text in told)
        assert all(f"process {process.pid} (python" in text for text in told)
        process.kill()
    for one in begun:
        succeeded(outcome(one))


# Read-only


@pytest.mark.root
@pytest.mark.parametrize(("file", "folder"), [(0o444, 0o755), (0o666, 0o555), (0o444, 0o555)])
def test_a_registry_that_this_user_may_only_read(space, tmp_path, file, folder):
    """Looking needs no writing, whatever cannot be written: the file or its folder."""
    place = tmp_path / "shared"
    place.mkdir()
    tmp_path.chmod(0o755)
    registry = place / "registry.sqlite3"
    registry.write_bytes(space.good)
    registry.chmod(file)
    place.chmod(folder)
    for above in tmp_path.parents[:-2]:
        above.chmod(0o755)
    before = snapshot(place)

    def act(what, **given):
        return outcome(fork(lambda: call(what, registry=str(registry), workspace="shop", **given), NOBODY))

    found = succeeded(act(_status, backend="none"))
    assert [task["name"] for task in found["tasks"]] == list(TASKS)
    succeeded(act(_leases, owners=["fix"], state="absent", check=True))
    for state in ("present", "absent"):
        refused(act(_leases, owners=["fix", "new"], state=state), "environment", str(registry), "ls -ld")
    assert workspaces.differences(before, snapshot(place)) == []


@pytest.mark.root
def test_a_registry_whose_folder_this_user_may_not_enter(space, tmp_path):
    """It is not taken for one that is not there."""
    place = tmp_path / "closed"
    place.mkdir(mode=0o700)
    registry = place / "registry.sqlite3"
    registry.write_bytes(space.good)
    for above in tmp_path.parents[:-2]:
        above.chmod(0o755)

    def look():
        return call(_status, registry=str(registry), workspace="shop", backend="none")

    refused(outcome(fork(look, NOBODY)), "environment", str(registry), "Permission denied", "namei")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "registry.sqlite3")
    given: dict[str, t.Any] = {"registry": path, "workspace": "shop"}
    refused(call(_leases, owners=["a"], **given), "environment", path, "namei")
    refused(call(_status, backend="none", **given), "environment", path, "namei")


def test_a_folder_that_is_missing_is_made_by_who_writes(tmp_path):
    path = tmp_path / "one" / "two" / "registry.sqlite3"
    given: dict[str, t.Any] = {"registry": str(path), "workspace": "shop"}
    succeeded(call(_status, backend="none", **given))
    assert not path.parent.parent.exists()
    succeeded(call(_leases, owners=["a"], **given))
    assert path.parent.stat().st_mode & 0o777 == 0o700


# The verbs


def test_every_verb_with_a_damaged_registry(tmp_path):
    """Each is refused with the way back, and touches nothing; after it all is as before."""
    with workspaces.bautista(tmp_path) as every:
        shop = every.varied(worktrees_repos=[{"name": "docs"}], env_files=[], agents_files=[])
        shop.provision("fix").must()
        shop.registry.write_bytes(b"no database" * 1000)
        tops = (shop.root, shop.registry.parent)
        before = snapshot(*tops)
        given = {"task": "fix", "command": "true", "paths": "src", "checks": "lint"}
        verbs = "status prune exec gate integrate analyze reserve release db_status db_psql ci provision teardown"
        runs = [shop.start(verb, force="true", apply="true", **given) for verb in verbs.split()]
        for run in runs:
            run.end().refused("environment", str(shop.registry), f"cp {shop.registry}.copy {shop.registry}")
        assert workspaces.differences(before, snapshot(*tops)) == []
        shutil.copy(f"{shop.registry}.copy", shop.registry)
        assert [task["drift"] for task in shop.status()["tasks"]] == [[]]
        shop.teardown("fix").must()
