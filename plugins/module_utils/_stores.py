# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that are copied in a moment, whatever their size: ZFS, Btrfs and XFS behind one interface.

Private to this collection: may change without notice.

A volume is a folder with data and a mark, which says that it is ours and what for. It has a name such as
``branches/app_fix``; a snapshot of it is called ``branches/app_fix@label``. The file system is the only one who knows
what there is: nothing is kept beside it that could differ.

On ZFS a volume is a dataset and the mark a property of it. On Btrfs it is a subvolume, on XFS a folder whose copies
share their blocks, and the mark is a file in it. There, a volume is made and removed under a name that is none, so
what a killed run leaves never looks like one.

Callers hold ``Host.locked()``, and hand over the lock's descriptor: a program that outlives us has to keep it.
"""

from __future__ import annotations

import abc
import array
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import re
import stat
import struct
import time
import typing as t

from . import _commands, _files, _mounts
from ._db_host import NAME, SET_UP
from ._errors import EnvironmentFailure, UserError

if t.TYPE_CHECKING:
    from ._db_host import Host

Mark = dict[str, t.Any]

ABOUT = "parallel-worktrees.json"
"""In each volume of Btrfs and XFS: its mark, when it was made, and what of."""

PROPERTY = "parallel.worktrees:mark"
PATIENCE = 30
"""Seconds that a dataset may stay busy after its server has stopped, which on ZFS it does nearly always."""

RENAMES = 3
"""How often a dataset that was unmounted is asked to take another name, before it is mounted again."""

REACHABLE = 0o755
"""The mode of volumes and of the folders that they lie in: the system user has to get to the data in them."""

CLOSED, CLOSED_SHELVES = 0o750, ("sources", "goldens")
"""Folders that the system user of sources gets into and that of branches does not: what is in them is not masked, or
not by the mask as it is now. The snapshots of ZFS, in ``.zfs``, are reached through them as well."""

GIGABYTE, SEEN = 1 << 30, 1 << 20
FS_IOC_FIEMAP, EXTENT_SHARED, EXTENTS_AT_ONCE = 0xC020660B, 0x2000, 512


@dataclasses.dataclass(frozen=True)
class Volume:
    """
    :ivar origin: the snapshot that it is a copy of, such as ``goldens/app/20261121T180000Z@ready``; None for none.
    :ivar created: when, in seconds since 1970.
    """

    name: str
    path: str
    mark: Mark
    created: float
    origin: str | None


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """
    :ivar dependants: the names of the volumes that are copies of it.
    """

    name: str
    dependants: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Space:
    """Of a pool, in bytes."""

    total: int
    free: int

    @property
    def percent_free(self) -> float:
        return 100 * self.free / self.total if self.total else 0.0


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a volume, in bytes: what it has for itself alone, and with what it shares."""

    own: int
    full: int


class Store(abc.ABC):
    """The volumes of a host.

    :cvar atomic: whether a snapshot shows one moment, so that a server may be at work in the volume; else it has to
        be stopped.
    :cvar is_mount: whether each volume is a mount point of its own.
    """

    atomic: t.ClassVar[bool]
    is_mount: t.ClassVar[bool] = False

    def __init__(self, host: Host, keep: t.Sequence[int]) -> None:
        self.host = host
        self.keep = keep

    # Looking

    @abc.abstractmethod
    def volumes(self, under: str = "") -> list[Volume]:
        """All of ours whose name begins with ``under/``, sorted."""

    @abc.abstractmethod
    def volume(self, name: str) -> Volume | None:
        """The volume of this name; None where there is none.

        :raises UserError: something is there that is none of ours.
        """

    @abc.abstractmethod
    def snapshots(self, name: str) -> list[Snapshot]:
        """Those of a volume."""

    @abc.abstractmethod
    def space(self) -> Space:
        """How full the pool is."""

    @abc.abstractmethod
    def size(self, name: str) -> Size:
        """How much of the pool a volume takes; Btrfs and XFS have to look at each of its files."""

    def path(self, name: str) -> str:
        return os.path.join(self.host.root, name)

    def must_have(self, name: str) -> Volume:
        """
        :raises UserError: there is no volume of this name that is ours.
        """
        found = self.volume(name)
        if found is None:
            raise UserError(f"there is no volume {name} in {self.host.root}", hint=f"see: ls {self.host.root}")
        return found

    def check_room(self, doing: str) -> None:
        """
        :arg doing: what it is for, in words that begin the error message.
        :raises EnvironmentFailure: the pool is nearly full; with what could go.
        """
        space = self.space()
        if space.percent_free >= self.host.reserve:
            return
        sizes = [(self.size(one.name).own, one.name) for one in self.volumes() if _could_go(one)]
        sizes += [(size, f"{what}, which is not ours") for size, what in self.strangers() if size >= SEEN]
        largest = sorted(sizes, reverse=True)[:5]
        could_go = "; ".join(f"{size / GIGABYTE:.2f} GB: {what}" for size, what in largest)
        raise EnvironmentFailure(
            f"{doing}: {space.free / GIGABYTE:.2f} of {space.total / GIGABYTE:.2f} GB are free in {self.host.root}, "
            f"which is less than the {self.host.reserve:g} % that have to stay so",
            hint=f"remove branches, goldens or what is not ours; the largest are {could_go}"
            if could_go
            else "make the pool larger",
        )

    def strangers(self) -> list[tuple[int, str]]:
        """What lies in the pool and is not ours, with the bytes that it takes."""
        ours, found, shelves = [one.path for one in self.volumes()], [], [self.host.root]
        while shelves:
            for entry in os.scandir(shelves.pop()):
                if any(path.startswith(f"{entry.path}/") for path in ours):
                    shelves.append(entry.path)
                elif entry.path not in ours and not _is_ours(entry.path):
                    found.append((_disk_usage(entry.path), entry.path))
        return found

    # Doing

    @abc.abstractmethod
    def create(self, name: str, mark: Mark) -> Volume:
        """Make an empty volume."""

    @abc.abstractmethod
    def clone(self, snapshot: str, name: str, mark: Mark, *, quota: str | None = None) -> Volume:
        """Make a volume that begins as a copy of a snapshot.

        :arg quota: the most that it may take, such as ``20G``; for ZFS only.
        """

    def open_shelves(self) -> list[str]:
        """The folders with data of sources into which others get."""
        shelves = map(self.path, CLOSED_SHELVES)
        return [path for path in shelves if os.path.isdir(path) and not _is_closed(path, self.host)]

    def close_shelves(self) -> None:
        """Keep others out of them."""
        for path in self.open_shelves():
            close(path, self.host)

    @abc.abstractmethod
    def set_mark(self, name: str, mark: Mark) -> None: ...

    @abc.abstractmethod
    def rename(self, old: str, new: str) -> None:
        """Give a volume another name, with its snapshots; nobody may be at work in it."""

    @abc.abstractmethod
    def mount(self, name: str) -> None:
        """See that a volume can be reached, which after a killed run it may not be."""

    @abc.abstractmethod
    def tidy(self) -> None:
        """Remove what killed runs have left half made or half removed."""

    def check_unmounted(self, name: str) -> None:
        """
        :raises UserError: something else is mounted in a volume, and would go, or be emptied, with it.
        """
        _mounts.refuse(self.path(name), own=self.is_mount)

    def snapshot(self, name: str, label: str) -> str:
        """Keep a volume as it is; a snapshot of this label is replaced."""
        self.must_have(name)
        snapshot = f"{name}@{_checked(label)}"
        if any(one.name == snapshot for one in self.snapshots(name)):
            self.destroy_snapshot(snapshot)
        self._snapshot(snapshot)
        return snapshot

    def destroy_snapshot(self, snapshot: str) -> None:
        """
        :raises UserError: it is none of ours, or volumes are copies of it.
        """
        name = snapshot.partition("@")[0]
        self.must_have(name)
        found = next((one for one in self.snapshots(name) if one.name == snapshot), None)
        if found is None:
            raise UserError(f"there is no snapshot {snapshot} in {self.host.root}")
        check_alone(found)
        self._destroy_snapshot(snapshot)

    def destroy(self, name: str) -> None:
        """Remove a volume with its snapshots; nobody may be at work in it.

        :raises UserError: it is none of ours, or volumes are copies of its snapshots.
        :raises EnvironmentFailure: somebody holds it; with who does.
        """
        self.must_have(name)
        self.check_unmounted(name)
        snapshots = self.snapshots(name)
        for one in snapshots:
            check_alone(one)
        for one in snapshots:
            self._destroy_snapshot(one.name)
        self._destroy(name)

    @abc.abstractmethod
    def _snapshot(self, snapshot: str) -> None: ...

    @abc.abstractmethod
    def _destroy_snapshot(self, snapshot: str) -> None: ...

    @abc.abstractmethod
    def _destroy(self, name: str) -> None: ...

    def _check_is_free(self, name: str) -> None:
        """
        :raises UserError: the name is none, or is taken.
        """
        for part in name.split("/"):
            _checked(part)
        if self.volume(name) is not None:
            raise UserError(f"there is a volume {name} in {self.host.root} already", hint="choose another name")

    def _must(self, *command: str, doing: str) -> str:
        return _commands.must(command, doing=doing, keep=self.keep, env=SYSTEM_PATH)


SYSTEM_PATH = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"}
"""Cron has none of the folders where the programs of file systems are."""


def of(host: Host, keep: t.Sequence[int] = ()) -> Store:
    """The store of a host.

    :arg keep: the descriptor that ``Host.locked()`` gave; none for who only looks.
    :raises EnvironmentFailure: its pool is not mounted.
    """
    if not os.path.ismount(host.root):
        raise EnvironmentFailure(
            f"the pool is not mounted at {host.root}",
            hint=f"zpool import, or zfs mount {host.pool}" if host.store == "zfs" else f"mount {host.root}",
        )
    kinds: dict[str, type[Zfs | Btrfs | Xfs]] = {"zfs": Zfs, "btrfs": Btrfs, "xfs": Xfs}
    return kinds[host.store](host, keep)


@contextlib.contextmanager
def locked(host: Host) -> t.Iterator[Store]:
    """The store of a host, for who changes it."""
    with host.locked() as lock:
        yield of(host, (lock,))


# ZFS


class Zfs(Store):
    """Verbs and options that both OpenZFS and zfs-fuse know, and no others."""

    atomic = True
    is_mount = True

    def volumes(self, under: str = "") -> list[Volume]:
        return [
            volume
            for name, about in sorted(self._read(recursive=True).items())
            if (not under or name.startswith(f"{under}/")) and (volume := self._volume(name, about)) is not None
        ]

    def volume(self, name: str) -> Volume | None:
        about = self._read(name).get(name)
        if about is None:
            return None
        volume = self._volume(name, about)
        if volume is None:
            raise _not_ours(f"the dataset {self._dataset(name)}")
        return volume

    def snapshots(self, name: str) -> list[Snapshot]:
        known = self._read(recursive=True)
        origins = {one: self._name(about["origin"][0]) for one, about in known.items() if about["origin"][0] != "-"}
        return [
            Snapshot(one, tuple(sorted(clone for clone, origin in origins.items() if origin == one)))
            for one in sorted(known)
            if one.startswith(f"{name}@")
        ]

    def space(self) -> Space:
        about = self._read()[""]
        used, free = (int(about[key][0]) for key in ("used", "available"))
        return Space(used + free, free)

    def size(self, name: str) -> Size:
        about = self._read(name)[name]
        return Size(int(about["used"][0]), int(about["referenced"][0]))

    def strangers(self) -> list[tuple[int, str]]:
        """Also other datasets of the pool, which share its space."""
        ours = str(self.host.pool)
        command = ("zfs", "get", "-H", "-p", "-r", "-o", "name,value", "referenced", ours.partition("/")[0])
        rows = [line.split("\t") for line in _commands.run(command, env=SYSTEM_PATH).stdout.splitlines()]
        others = [
            (int(size), f"dataset {name}")
            for name, size in rows
            if "@" not in name and not f"{name}/".startswith(f"{ours}/") and not f"{ours}/".startswith(f"{name}/")
        ]
        return super().strangers() + others

    def create(self, name: str, mark: Mark) -> Volume:
        self._check_is_free(name)
        self._zfs("create", "-p", "-o", assigned(mark), self._dataset(name), doing=f"cannot create volume {name}")
        self.close_shelves()
        return self.must_have(name)

    def clone(self, snapshot: str, name: str, mark: Mark, *, quota: str | None = None) -> Volume:
        self._check_is_free(name)
        options = ("-o", assigned(mark), *(() if quota is None else ("-o", f"quota={quota}")))
        datasets = self._dataset(snapshot), self._dataset(name)
        self._zfs("clone", "-p", *options, *datasets, doing=f"cannot clone {snapshot} as volume {name}")
        self.close_shelves()
        return self.must_have(name)

    def set_mark(self, name: str, mark: Mark) -> None:
        self.must_have(name)
        self._zfs("set", assigned(mark), self._dataset(name), doing=f"cannot mark volume {name}")

    def rename(self, old: str, new: str) -> None:
        self.must_have(old)
        self.check_unmounted(old)
        self._check_is_free(new)

        def attempt() -> _commands.Completed:
            # zfs-fuse renames nothing that is mounted, and often is busy for a moment after it has unmounted it. Where
            # it stays so, mounting and unmounting it anew helps.
            done = self._run("unmount", self._dataset(old)) if self._is_mounted(old) else None
            for _again in range(RENAMES) if done is None or done.ok else ():
                done = self._run("rename", "-p", self._dataset(old), self._dataset(new))
                if done.ok:
                    return done
            self.mount(old)
            return t.cast("_commands.Completed", done)

        self._patiently(old, attempt, doing=f"cannot rename volume {old} to {new}")
        self.mount(new)

    def mount(self, name: str) -> None:
        if not self._is_mounted(name):
            self._zfs("mount", self._dataset(name), doing=f"cannot mount volume {name}")

    def tidy(self) -> None:
        """A dataset is there with its mark, or it is not."""

    def _snapshot(self, snapshot: str) -> None:
        self._zfs("snapshot", self._dataset(snapshot), doing=f"cannot make the snapshot {snapshot}")

    def _destroy_snapshot(self, snapshot: str) -> None:
        attempt = functools.partial(self._run, "destroy", self._dataset(snapshot))
        self._patiently(snapshot, attempt, doing=f"cannot destroy the snapshot {snapshot}")

    def _destroy(self, name: str) -> None:
        attempt = functools.partial(self._run, "destroy", self._dataset(name))
        self._patiently(name, attempt, doing=f"cannot destroy volume {name}")

    def _dataset(self, name: str) -> str:
        return f"{self.host.pool}/{name}" if name else str(self.host.pool)

    def _name(self, dataset: str) -> str:
        return dataset.removeprefix(str(self.host.pool)).removeprefix("/")

    def _is_mounted(self, name: str) -> bool:
        return self._read(name)[name]["mounted"][0] == "yes"

    def _read(self, name: str = "", *, recursive: bool = False) -> dict[str, dict[str, tuple[str, str]]]:
        """The properties of datasets by name: each with its value and where it comes from."""
        wanted = f"creation,origin,used,referenced,available,mounted,{PROPERTY}"
        options = ("-H", "-p", *(("-r",) if recursive else ()), "-o", "name,property,value,source", wanted)
        command = ("zfs", "get", *options, self._dataset(name))
        done = _commands.run(command, env=SYSTEM_PATH)
        if not done.ok and not (name and "does not exist" in done.stderr):
            raise done.failure("cannot look into the pool", hint="see: zpool status")
        return {self._name(dataset): about for dataset, about in parse_properties(done.stdout).items()}

    def _volume(self, name: str, about: dict[str, tuple[str, str]]) -> Volume | None:
        """None where it is none of ours: a mark that it inherits says nothing of it."""
        text, source = about[PROPERTY]
        if source != "local" or "@" in name:
            return None
        origin = about["origin"][0]
        created = float(about["creation"][0])
        return Volume(name, self.path(name), json.loads(text), created, None if origin == "-" else self._name(origin))

    def _zfs(self, *arguments: str, doing: str) -> None:
        self._must("zfs", *arguments, doing=doing)

    def _run(self, *arguments: str) -> _commands.Completed:
        return _commands.run(("zfs", *arguments), keep=self.keep, env=SYSTEM_PATH)

    def _patiently(self, name: str, attempt: t.Callable[[], _commands.Completed], *, doing: str) -> None:
        """Do with a dataset what is refused while it is busy.

        :raises EnvironmentFailure: it stays so; with those who hold it.
        """
        pause, until = 0.02, time.monotonic() + PATIENCE
        while not (done := attempt()).ok:
            if "busy" not in done.stderr:
                raise done.failure(doing)
            if time.monotonic() > until:
                held = "; ".join(holders(self.path(name), self._dataset(name))) or "nobody who can be seen"
                raise EnvironmentFailure(
                    f"{doing}: it has been busy for {PATIENCE} s, held by {held}",
                    hint="end these processes, and run it again",
                )
            time.sleep(pause)
            pause = min(2, pause * 2)


def parse_properties(text: str) -> dict[str, dict[str, tuple[str, str]]]:
    """What ``zfs get -H -o name,property,value,source`` says: value and source by dataset and property."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for line in text.splitlines():
        name, key, value, source = line.split("\t")
        found.setdefault(name, {})[key] = (value, source)
    return found


def assigned(mark: Mark) -> str:
    return f"{PROPERTY}={json.dumps(mark)}"


def holders(path: str, device: str) -> list[str]:
    """The processes that keep something mounted: with a file or folder in it, or in a mount namespace of their own."""
    ours = os.readlink("/proc/self/ns/mnt")
    found = []
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        with contextlib.suppress(OSError):
            how = None
            if os.readlink(f"/proc/{pid}/ns/mnt") != ours and f" {device} " in _text(f"/proc/{pid}/mountinfo"):
                how = "where it is mounted as well"
            elif any(f"{link}/".startswith(f"{path}/") for link in _links(pid)):
                how = "at work in it"
            if how:
                found.append(f"process {pid} ({_text(f'/proc/{pid}/comm').strip()}), {how}")
    return found


def _links(pid: int) -> t.Iterator[str]:
    yield os.readlink(f"/proc/{pid}/cwd")
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"/proc/{pid}/fd/{entry}")


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


# Btrfs and XFS


class Tree(Store):
    """Volumes that are folders of one file system, each with a file about it."""

    def volumes(self, under: str = "") -> list[Volume]:
        return [volume for name in self._names(under) if (volume := self._look(name)) is not None]

    def volume(self, name: str) -> Volume | None:
        found = self._look(name)
        if found is None and os.path.lexists(self.path(name)):
            raise _not_ours(self.path(name))
        return found

    def snapshots(self, name: str) -> list[Snapshot]:
        volumes = self.volumes()
        folder, leaf = os.path.split(self.path(name))
        found = sorted(entry for entry in _entries(folder) if entry.startswith(f"{leaf}@"))
        names = [os.path.join(os.path.dirname(name), entry) for entry in found]
        return [Snapshot(one, tuple(clone.name for clone in volumes if clone.origin == one)) for one in names]

    def space(self) -> Space:
        about = os.statvfs(self.host.root)
        return Space(about.f_blocks * about.f_frsize, about.f_bavail * about.f_frsize)

    def size(self, name: str) -> Size:
        own = full = 0
        for folder, _folders, files in os.walk(self.path(name)):
            for file in files:
                with contextlib.suppress(OSError):  # the server removes its files as it likes
                    for length, shared in _extents(os.path.join(folder, file)):
                        full += length
                        own += 0 if shared else length
        return Size(own, full)

    def create(self, name: str, mark: Mark) -> Volume:
        self._check_is_free(name)
        with self._draft(name) as draft:
            self._make(draft)
            os.chmod(draft, REACHABLE)
            _describe(draft, mark, None)
        return self.must_have(name)

    def clone(self, snapshot: str, name: str, mark: Mark, *, quota: str | None = None) -> Volume:
        del quota  # neither has one for a folder that costs nothing
        self._check_is_free(name)
        with self._draft(name) as draft:
            self._copy(self.path(snapshot), draft, writable=True)
            _describe(draft, mark, snapshot)
        return self.must_have(name)

    def set_mark(self, name: str, mark: Mark) -> None:
        found = self.must_have(name)
        _describe(found.path, mark, found.origin, found.created)

    def rename(self, old: str, new: str) -> None:
        self.must_have(old)
        self.check_unmounted(old)
        self._check_is_free(new)
        _make_shelf(os.path.dirname(self.path(new)))
        for one in self.snapshots(old):
            snapshot = one.name.replace(old, new, 1)
            for clone in map(self.must_have, one.dependants):
                _describe(clone.path, clone.mark, snapshot, clone.created)
            os.rename(self.path(one.name), self.path(snapshot))
        os.rename(self.path(old), self.path(new))

    def mount(self, name: str) -> None:
        """All of them are in the file system that is mounted."""

    def tidy(self) -> None:
        for folder, folders, _files_there in os.walk(self.host.root):
            for name in [name for name in folders if _files.is_temporary(name)]:
                self._remove(os.path.join(folder, name))
            folders[:] = [name for name in folders if _is_shelf(os.path.join(folder, name))]

    def _snapshot(self, snapshot: str) -> None:
        with self._draft(snapshot) as draft:
            self._copy(self.path(snapshot.partition("@")[0]), draft, writable=False)

    def _destroy_snapshot(self, snapshot: str) -> None:
        self._destroy(snapshot)

    def _destroy(self, name: str) -> None:
        aside = _files.temporary_name(*os.path.split(self.path(name)))
        self._remove(aside)
        os.rename(self.path(name), aside)
        self._remove(aside)

    @abc.abstractmethod
    def _make(self, path: str) -> None: ...

    @abc.abstractmethod
    def _copy(self, source: str, target: str, *, writable: bool) -> None: ...

    @abc.abstractmethod
    def _remove(self, path: str) -> None:
        """Remove a folder that is no volume any more, where there is one."""

    @contextlib.contextmanager
    def _draft(self, name: str) -> t.Iterator[str]:
        """Where something is made, which gets its name when it is whole."""
        path = self.path(name)
        draft = _files.temporary_name(*os.path.split(path))
        _make_shelf(os.path.dirname(path))
        self.close_shelves()
        self._remove(draft)
        try:
            yield draft
            os.rename(draft, path)
        except BaseException:
            self._remove(draft)
            raise

    def _names(self, under: str) -> t.Iterator[str]:
        for entry in sorted(_entries(self.path(under))):
            name = os.path.join(under, entry)
            if os.path.exists(os.path.join(self.path(name), ABOUT)):
                if "@" not in entry and not _files.is_temporary(entry):
                    yield name
            elif _is_shelf(self.path(name)):
                yield from self._names(name)

    def _look(self, name: str) -> Volume | None:
        path = self.path(name)
        try:
            about = json.loads(_text(os.path.join(path, ABOUT)))
            return Volume(name, path, about["mark"], about["created"], about["origin"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise EnvironmentFailure(f"cannot read {path}/{ABOUT}: {error}") from error


class Btrfs(Tree):
    atomic = True

    def _make(self, path: str) -> None:
        self._must("btrfs", "subvolume", "create", path, doing=f"cannot create {path}")

    def _copy(self, source: str, target: str, *, writable: bool) -> None:
        kind = () if writable else ("-r",)
        self._must("btrfs", "subvolume", "snapshot", *kind, source, target, doing=f"cannot make a snapshot of {source}")

    def _remove(self, path: str) -> None:
        if os.path.lexists(path):
            _mounts.refuse(path)
            self._must("btrfs", "subvolume", "delete", path, doing=f"cannot remove {path}")


class Xfs(Tree):
    atomic = False

    def _make(self, path: str) -> None:
        os.mkdir(path)

    def _copy(self, source: str, target: str, *, writable: bool) -> None:
        del writable
        self._must("cp", "-a", "--reflink=always", "--", source, target, doing=f"cannot copy {source}")

    def _remove(self, path: str) -> None:
        _mounts.remove(path)


def _describe(path: str, mark: Mark, origin: str | None, created: float | None = None) -> None:
    about = {"mark": mark, "origin": origin, "created": time.time() if created is None else created}
    _files.write(os.path.join(path, ABOUT), json.dumps(about).encode(), mode=0o600)


def _make_shelf(folder: str) -> None:
    if not os.path.isdir(folder):
        _make_shelf(os.path.dirname(folder))
        os.mkdir(folder)
        os.chmod(folder, REACHABLE)


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_shelf(path: str) -> bool:
    """Whether volumes lie in a folder, rather than data."""
    name = os.path.basename(path)
    return (
        re.fullmatch(NAME, name) is not None
        and os.path.isdir(path)
        and not os.path.islink(path)
        and not os.path.exists(os.path.join(path, ABOUT))
    )


def _extents(path: str) -> t.Iterator[tuple[int, bool]]:
    """The pieces of a file on the disk: how long, and whether another file has them, too.

    Facts: https://docs.kernel.org/filesystems/fiemap.html
    """
    start = 0
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        while True:
            buffer = array.array("B", bytes(32 + 56 * EXTENTS_AT_ONCE))
            struct.pack_into("=QQLLLL", buffer, 0, start, (1 << 64) - 1 - start, 0, 0, EXTENTS_AT_ONCE, 0)
            fcntl.ioctl(handle, FS_IOC_FIEMAP, buffer)
            (count,) = struct.unpack_from("=L", buffer, 20)
            for place in range(count):
                logical, _physical, length, flags = struct.unpack_from("=QQQ16xL", buffer, 32 + 56 * place)
                start = logical + length
                yield length, bool(flags & EXTENT_SHARED)
            if count < EXTENTS_AT_ONCE:
                return
    finally:
        os.close(handle)


def close(path: str, host: Host) -> None:
    """Let root and the system user of sources alone into a folder."""
    os.chown(path, os.geteuid(), host.source_account.gid, follow_symlinks=False)
    os.chmod(path, CLOSED)


def _is_closed(path: str, host: Host) -> bool:
    about = os.lstat(path)
    return (about.st_gid, stat.S_IMODE(about.st_mode)) == (host.source_account.gid, CLOSED)


# What all of them refuse


def _checked(part: str) -> str:
    if not re.fullmatch(NAME, part):
        raise UserError(
            f"{part!r} is no name of a volume: letters, digits, '_' and '-' are, not beginning with the last"
        )
    return part


def check_alone(snapshot: Snapshot) -> None:
    if snapshot.dependants:
        raise UserError(
            f"the snapshot {snapshot.name} stays: {', '.join(snapshot.dependants)} stand on it",
            hint="remove those first",
        )


def _is_ours(path: str) -> bool:
    """Whether a folder of Btrfs or XFS is a snapshot of ours, or one in the making."""
    return os.path.exists(os.path.join(path, ABOUT)) or _files.is_temporary(path)


def _disk_usage(path: str) -> int:
    sizes = [os.lstat(path).st_blocks]
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                sizes.append(os.lstat(os.path.join(folder, name)).st_blocks)
    return 512 * sum(sizes)


def _could_go(volume: Volume) -> bool:
    return volume.mark.get("kind") in ("branch", "golden") and not volume.mark.get("protected")


def _not_ours(what: str) -> UserError:
    return UserError(
        f"{what} is there, and has no mark of ours", hint=f"choose another name, or move it away; or {SET_UP}"
    )
