# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool of a DB host: a file system that copies in a moment, on devices or on a file, mounted where it belongs.

Private to this collection: may change without notice.

What is ours says so itself: the dataset of a ZFS pool by a property, a file system of Btrfs or XFS by its label. What
does not say so is left alone, and a device is only written to when its beginning and its end are empty. While one is
being written to, a note tells so: where a run was killed meanwhile, the next one begins anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
import stat
import typing as t

from . import _commands, _files
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError

ARGUMENT_SPEC: dict[str, t.Any] = {
    "store": {"type": "str", "required": True, "choices": ["zfs", "btrfs", "xfs"]},
    "dataset": {"type": "str"},
    "root": {"type": "path", "default": "/srv/parallel-worktrees"},
    "devices": {"type": "list", "elements": "str", "default": []},
    "file": {"type": "path"},
    "size": {"type": "str"},
    "properties": {"type": "dict", "default": {}},
}

NOTE = "/etc/parallel-worktrees/pool-in-the-making.json"
FSTAB = "/etc/fstab"
LABEL = "parallel-wt"
"""XFS has room for twelve characters."""

PROPERTY = "parallel.worktrees:pool"
EDGE = 1 << 20
"""How much of the beginning and of the end of a device has to be empty: whatever uses one has left something there."""

PROGRAMS = {"zfs": ("zpool", "zfsutils-linux"), "btrfs": ("mkfs.btrfs", "btrfs-progs"), "xfs": ("mkfs.xfs", "xfsprogs")}
VDEV_WORDS = r"mirror|raidz[123]?|special|log|cache|spare"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SMALLEST = 320 << 20

MODE = 0o711
"""Of the mount point: servers of other users reach what is theirs, and nobody lists it."""

PATH = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"}

MOUNT_OPTIONS = ("noatime", "nodev", "nosuid", "noexec")
PROPERTIES = {
    "atime": "off",  # reading writes nothing
    "compression": "lz4",  # costs less than the reading that it saves
    "recordsize": "16K",  # two pages: 8K compresses worse, 128K rewrites sixteen pages for one
    "xattr": "sa",  # attributes lie with the file, not in a folder of their own
    "acltype": "off",
    "exec": "off",
    "setuid": "off",
    "devices": "off",
}
"""Of a dataset with databases in it; https://openzfs.github.io/openzfs-docs/man/master/7/zfsprops.7.html"""

ZFS_FUSE = {"compression": "on", "xattr": "off"}
"""What zfs-fuse has in their place; ``acltype`` it does not know."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """A pool as it was asked for.

    :ivar vdevs: what a ZFS pool is made of: devices or the file, and words such as ``mirror`` between them.
    :ivar size: of the file, in bytes; None for devices.
    """

    store: str
    dataset: str | None
    root: str
    vdevs: tuple[str, ...]
    size: int | None
    properties: dict[str, str]

    @classmethod
    def of(cls, params: Params) -> Wish:
        """
        :raises UserError: what was asked for is no pool.
        """
        store, file, devices = params["store"], params["file"], params["devices"]
        if devices and file:
            raise UserError("devices and file are both given: a pool lies on devices or on a file")
        if not devices and not file and store != "zfs":
            raise UserError(f"a {store} pool lies on devices or on a file, and neither is given")
        places = [file] if file else [one for one in devices if store != "zfs" or not re.fullmatch(VDEV_WORDS, one)]
        if len(places) > 1 and store == "xfs":
            raise UserError(f"an XFS pool lies on one device, and these were given: {', '.join(devices)}")
        if file and not params["size"]:
            raise UserError(f"how large the file {file} is to be is not given", hint="give its size, such as size=20G")
        for path in (params["root"], *places):
            if not os.path.isabs(path) or os.path.normpath(path) == "/" or re.search(r"\s", path):
                raise UserError(f"{path!r} is no place of a pool: absolute paths without spaces are")
        dataset = params["dataset"]
        if store == "zfs" and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)+", dataset or ""):
            raise UserError(
                f"{dataset!r} is no dataset below a pool", hint="give both their names, such as tank/parallel-worktrees"
            )
        return cls(
            store,
            dataset if store == "zfs" else None,
            os.path.normpath(params["root"]),
            (file,) if file else tuple(devices),
            _bytes(params["size"]) if file else None,
            {name: str(value) for name, value in params["properties"].items()},
        )

    @property
    def places(self) -> tuple[str, ...]:
        """The devices, or the file."""
        return tuple(one for one in self.vdevs if os.path.isabs(one))

    @property
    def pool(self) -> str:
        return str(self.dataset).partition("/")[0]


def operation(params: Params, *, check: bool) -> Result:
    """See that a pool is there and mounted."""
    wish = Wish.of(params)
    kind = Zfs if wish.store == "zfs" else Mounted
    program, package = PROGRAMS[wish.store]
    is_installed = shutil.which(program, path=PATH["PATH"]) is not None
    if not is_installed and not check:
        raise EnvironmentFailure(f"{program} is not on this machine", hint=f"apt install {package}")
    with contextlib.nullcontext() if check else _alone():
        pool = kind(wish, is_installed)
        before = pool.found()
        after = pool.wanted(before)
        actions = []
        for action, work in pool.steps(before, after):
            actions.append(action)
            if not check:
                work()
    header = wish.dataset or wish.root
    return {
        "changed": before != after,
        "actions": actions,
        "diff": [
            {
                "before": _text(before),
                "after": _text(after),
                "before_header": header,
                "after_header": header,
            }
        ]
        if before != after
        else [],
        "pool": {
            "store": wish.store,
            "dataset": wish.dataset,
            "root": wish.root,
            "places": list(wish.places),
        },
    }


State = dict[str, t.Any]
"""What there is, as a diff shows it; nothing where there is no pool."""

Step = tuple[str, t.Callable[[], t.Any]]


class Pool:
    def __init__(self, wish: Wish, is_installed: bool) -> None:
        self.wish = wish
        self.is_installed = is_installed

    def _check_root(self) -> None:
        """
        :raises UserError: something is at the mount point, which would be hidden.
        """
        root = self.wish.root
        if os.path.lexists(root) and (not os.path.isdir(root) or os.path.ismount(root) or os.listdir(root)):
            raise UserError(
                f"{root} is no empty folder, so nothing is mounted there", hint="move it away, or choose another root"
            )

    def _make_places(self) -> None:
        """Make the file, and note down that the places are being written to."""
        _files.write(NOTE, json.dumps(self.wish.places).encode(), mode=0o600)
        if self.wish.size is not None:
            (file,) = self.wish.places
            try:
                os.makedirs(os.path.dirname(file), mode=0o755, exist_ok=True)
                with open(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as handle:
                    handle.truncate(self.wish.size)
            except OSError as error:
                raise EnvironmentFailure(f"cannot make the file {file}: {error.strerror}") from error

    def _check_places(self) -> None:
        """
        :raises UserError: there is something on a device or in the file, which would be lost.
        """
        if self.wish.places and not _is_in_the_making(self.wish.places):
            for place in self.wish.places:
                _check_is_empty(place, is_file=self.wish.size is not None)

    def _settle(self) -> None:
        os.chmod(self.wish.root, MODE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(NOTE)


class Zfs(Pool):
    """A dataset in a pool: the pool is made on devices or a file, or it is there and neither is given."""

    def found(self) -> State:
        wish = self.wish
        pools = self._ask("zpool", "list", "-H", "-o", "name").split() if self.is_installed else []
        if wish.pool not in pools:
            return {}
        about = self._properties(wish.pool)
        found: State = {"pool": wish.pool}
        if wish.places and about.get(PROPERTY, ("", ""))[1] != "local":
            raise UserError(
                f"the pool {wish.pool} is there and was not made by us",
                hint="to have a dataset in it give neither devices nor a file; or choose another name for the pool",
            )
        datasets = self._ask("zfs", "list", "-H", "-o", "name", "-t", "filesystem,volume").split()
        if wish.dataset not in datasets:
            return found
        about = self._properties(str(wish.dataset))
        if about.get(PROPERTY, ("", ""))[1] != "local":
            raise UserError(
                f"the dataset {wish.dataset} is there and is not ours",
                hint=f"choose another name, or if it holds nothing of value: zfs destroy {wish.dataset}",
            )
        return {
            **found,
            "dataset": wish.dataset,
            "properties": {name: about[name][0] for name in self._own() if name in about},
            "mounted": about["mounted"][0] == "yes",
            "mode": _mode(wish.root) if about["mounted"][0] == "yes" else None,
        }

    def wanted(self, found: State) -> State:  # noqa: ARG002 - it may depend on that elsewhere
        properties = {name: _plain(value) for name, value in self._own().items()}
        return {
            "pool": self.wish.pool,
            "dataset": self.wish.dataset,
            "properties": properties,
            "mounted": True,
            "mode": f"{MODE:04o}",
        }

    def steps(self, found: State, wanted: State) -> t.Iterator[Step]:
        wish = self.wish
        if not found.get("mounted"):
            self._check_root()
        if "pool" not in found:
            if not wish.places:
                raise UserError(
                    f"there is no pool {wish.pool}, and neither devices nor a file to make it on are given",
                    hint="see what there is: zpool list, and zpool import",
                )
            self._check_places()
            yield f"create pool {wish.pool} on {' '.join(wish.places)}", self._create_pool
        if "dataset" not in found:
            yield f"create dataset {wish.dataset}, mounted at {wish.root}", self._create_dataset
            return
        for name, value in wanted["properties"].items():
            if found["properties"].get(name) != value:
                yield f"set {name}={value} of {wish.dataset}", self._setting(name, value)
        if not found["mounted"]:
            yield f"mount {wish.dataset} at {wish.root}", self._mount
        elif found["mode"] != wanted["mode"]:
            yield f"let servers reach {wish.root}", self._settle

    def _create_pool(self) -> None:
        self._make_places()
        _must(
            *("zpool", "create", "-f", "-o", "ashift=12", "-m", "none", "-O", "atime=off", "-O", f"{PROPERTY}=ours"),
            *(self.wish.pool, *self.wish.vdevs),
            doing=f"cannot create pool {self.wish.pool}",
        )

    def _create_dataset(self) -> None:
        options = [word for name, value in self._own().items() for word in ("-o", f"{name}={value}")]
        _must(
            *("zfs", "create", "-p", *options, "-o", f"{PROPERTY}=ours", str(self.wish.dataset)),
            doing=f"cannot create dataset {self.wish.dataset}",
        )
        self._settle()

    def _setting(self, name: str, value: str) -> t.Callable[[], None]:
        def work() -> None:
            _must("zfs", "set", f"{name}={value}", str(self.wish.dataset), doing=f"cannot set {name}")

        return work

    def _mount(self) -> None:
        _must("zfs", "mount", str(self.wish.dataset), doing=f"cannot mount {self.wish.dataset}")
        self._settle()

    def _own(self) -> dict[str, str]:
        """The properties that the dataset is to have."""
        ours = dict(PROPERTIES)
        if self.is_installed and not _run("zfs", "version").ok:
            ours.update(ZFS_FUSE)
            del ours["acltype"]
        return {"mountpoint": self.wish.root, **ours, **self.wish.properties}

    def _properties(self, dataset: str) -> dict[str, tuple[str, str]]:
        """Each with its value and where that comes from."""
        lines = self._ask("zfs", "get", "-H", "-p", "-o", "property,value,source", "all", dataset).splitlines()
        rows = (line.split("\t") for line in lines)
        return {name: (value, source) for name, value, source in rows}

    def _ask(self, *command: str) -> str:
        hint = "see whether ZFS is at work: systemctl status zfs-fuse, or modprobe zfs"
        return _must(*command, doing="cannot ask ZFS", hint=hint)


class Mounted(Pool):
    """A file system of Btrfs or XFS, which a line of fstab mounts."""

    def found(self) -> State:
        wish = self.wish
        first = wish.places[0]
        found: State = {}
        about = _signature(first)
        if about.get("TYPE") == wish.store and about.get("LABEL") == LABEL and not _is_in_the_making(wish.places):
            found = {"file_system": f"{wish.store} on {first}", "uuid": about["UUID"]}
        places = {os.path.realpath(one) for one in wish.places}
        for other, where in _mounts():
            if found and where != wish.root and _behind(other) & places:
                raise UserError(
                    f"{first} is mounted at {where} already",
                    hint=f"give that as root; or unmount it, and remove its line from {FSTAB}",
                )
        source = next((other for other, where in _mounts() if where == wish.root), None)
        if source is not None and (not found or not _behind(source) & places):
            raise UserError(
                f"{source} is mounted at {wish.root}, and is not ours on {first}",
                hint="choose another root, or unmount it",
            )
        line = self._line_of_fstab()
        return {
            **found,
            **({"fstab": line} if line else {}),
            **({"mounted": True, "mode": _mode(wish.root)} if source else {}),
        }

    def wanted(self, found: State) -> State:
        uuid = found.get("uuid", "made with the file system")
        return {
            "file_system": f"{self.wish.store} on {self.wish.places[0]}",
            "uuid": uuid,
            "fstab": self._line(uuid),
            "mounted": True,
            "mode": f"{MODE:04o}",
        }

    def steps(self, found: State, wanted: State) -> t.Iterator[Step]:
        wish = self.wish
        line = found.get("fstab")
        if line and line != wanted["fstab"] and line.split()[2] != wish.store:
            raise UserError(f"{FSTAB} mounts something else at {wish.root}: {line}", hint="choose another root")
        if not found.get("mounted"):
            self._check_root()
        if "file_system" not in found:
            self._check_places()
            yield f"make {wish.store} on {' '.join(wish.places)}", self._make
        if line != wanted["fstab"]:
            yield f"mount it at {wish.root} at each start: {FSTAB}", self._write_fstab
        if not found.get("mounted"):
            yield f"mount {wish.root}", self._mount
        elif found["mode"] != wanted["mode"]:
            yield f"let servers reach {wish.root}", self._settle

    def _make(self) -> None:
        self._make_places()
        options = {"btrfs": ("--force", "--quiet"), "xfs": ("-f", "-q", "-m", "reflink=1")}[self.wish.store]
        _must(
            *(f"mkfs.{self.wish.store}", *options, "-L", LABEL, *self.wish.places),
            doing=f"cannot make {self.wish.store} on {' '.join(self.wish.places)}",
        )
        os.unlink(NOTE)

    def _mount(self) -> None:
        os.makedirs(self.wish.root, exist_ok=True)
        _must("mount", self.wish.root, doing=f"cannot mount {self.wish.root}")
        self._settle()

    def _line(self, uuid: str) -> str:
        is_file = self.wish.size is not None
        source = self.wish.places[0] if is_file else f"UUID={uuid}"
        options = ",".join((*(("loop",) if is_file else ()), *MOUNT_OPTIONS))
        return f"{source} {self.wish.root} {self.wish.store} {options} 0 0"

    def _line_of_fstab(self) -> str | None:
        return next((line for line in _fstab() if line.split()[1:2] == [self.wish.root]), None)

    def _write_fstab(self) -> None:
        line = self._line(_signature(self.wish.places[0])["UUID"])
        others = [one for one in _fstab() if one != self._line_of_fstab()]
        mode = stat.S_IMODE(os.stat(FSTAB).st_mode) if os.path.exists(FSTAB) else 0o644
        _files.write(FSTAB, "\n".join((*others, line, "")).encode(), mode=mode)


# Looking


def _check_is_empty(place: str, *, is_file: bool) -> None:
    """
    :raises UserError: it is not, or is no such thing at all.
    """
    try:
        about = os.stat(place)
    except FileNotFoundError as error:
        if is_file:
            return
        raise UserError(f"there is no device {place}", hint="see what there is: lsblk") from error
    if is_file and not stat.S_ISREG(about.st_mode):
        raise UserError(f"{place} is no file", hint="give it as one of the devices")
    if not is_file and not stat.S_ISBLK(about.st_mode):
        raise UserError(f"{place} is no block device", hint="give it as the file, or see what there is: lsblk")
    try:
        handle = os.open(place, os.O_RDONLY | (0 if is_file else os.O_EXCL))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise EnvironmentFailure(f"cannot look at {place}: {error.strerror}") from error
        raise UserError(
            f"{place} is in use", hint=f"see what for: lsblk {place}; and give another device, or end that"
        ) from error
    with open(handle, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        for begin in dict.fromkeys((0, max(0, end - EDGE))):
            file.seek(begin)
            if file.read(EDGE).strip(b"\0"):
                raise UserError(
                    f"{place} is not empty: {_described(place)}",
                    hint="give another place; or if it holds nothing of value: "
                    + (f"rm {place}" if is_file else f"wipefs --all {place} && blkdiscard --zeroout {place}"),
                )


def _described(place: str) -> str:
    about = _signature(place)
    if "TYPE" in about:
        label = f", labelled {about['LABEL']}" if about.get("LABEL") else ""
        return f"it has {about['TYPE']}{label}"
    return f"it has partitions ({about['PTTYPE']})" if "PTTYPE" in about else "there are data on it"


def _signature(place: str) -> dict[str, str]:
    """What blkid sees on a device, by its own look and not by its notes."""
    if not os.path.exists(place):
        return {}
    lines = _run("blkid", "--probe", "--output", "export", place).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _is_in_the_making(places: t.Sequence[str]) -> bool:
    """Whether a run was killed while it wrote to these."""
    with contextlib.suppress(OSError, ValueError), open(NOTE, encoding="utf-8") as file:
        return bool(json.load(file) == list(places))
    return False


def _mounts() -> list[tuple[str, str]]:
    """Of all that is mounted, the source and the place, the newest first."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    return [(row[0], row[1]) for row in reversed(rows)]


def _behind(source: str) -> set[str]:
    """The device that a mount's source is, and the file that it may stand for."""
    behind = {os.path.realpath(source)}
    name = os.path.basename(source)
    with contextlib.suppress(OSError), open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8") as file:
        behind.add(file.read().strip())
    return behind


def _fstab() -> list[str]:
    with contextlib.suppress(FileNotFoundError), open(FSTAB, encoding="utf-8") as file:
        return file.read().splitlines()
    return []


def _mode(path: str) -> str:
    return f"{stat.S_IMODE(os.stat(path).st_mode):04o}"


# Words


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d*) ?([KMGT]?)i?B?", text)
    if match is None:
        raise UserError(f"{text!r} is no size: a number and one of K, M, G, T are, as in 20G")
    size = int(match[1]) * UNITS[match[2]]
    if size < SMALLEST:
        raise UserError(f"a pool of {text} is too small", hint=f"{SMALLEST >> 20}M is the least that XFS takes")
    return size


def _plain(value: str) -> str:
    """A property's value as ``zfs get -p`` tells it."""
    match = re.fullmatch(r"(\d+)([KMGT])", value)
    return str(int(match[1]) * UNITS[match[2]]) if match else value


def _text(state: State) -> str:
    return "".join(f"{name}: {value}\n" for name, value in state.items())


# Doing


@contextlib.contextmanager
def _alone() -> t.Iterator[None]:
    folder = os.path.dirname(NOTE)
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(f"cannot make {folder}: {error.strerror}", hint="run as root: become") from error
    with _files.locked(folder):
        yield


def _run(*command: str) -> _commands.Completed:
    try:
        return _commands.run(command, env=PATH)
    except EnvironmentFailure:
        return _commands.Completed(command, 127, "", "")


def _must(*command: str, doing: str, hint: str | None = None) -> str:
    return _commands.must(command, doing=doing, hint=hint, env=PATH)
