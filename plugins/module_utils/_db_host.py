# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host file: what a DB host is made of. The role ``db_host`` writes it, everything on the host reads it.

Private to this collection: may change without notice.

It holds no secrets, so everybody may read it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import typing as t

from . import _clock, _clusters, _files, _hba, _options
from ._errors import EnvironmentFailure, UserError
from ._masking import Masking
from ._pull_source import COMMENT, LARGE_OBJECT

HOST_FILE = "/etc/parallel-worktrees/db_host.json"
SET_UP = "set the host up: ansible-playbook parallel.worktrees.db_host"

NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]*"
"""Names of sources and branches: no dots, no slashes, so that they can be folders beside files of ours."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
VERIFYING = SSL_MODES[-2:]
"""https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS"""

BRANCH_OPTIONS: dict[str, t.Any] = {
    "shared_buffers": {"type": "str", "default": "32MB"},
    "max_connections": {"type": "int", "default": 30},
    "memory": {"type": "str", "default": "512M"},
    "settings": {"type": "dict", "default": {}},
}
PORTS_OPTIONS: dict[str, t.Any] = {
    "first": {"type": "int", "default": 6500},
    "last": {"type": "int", "default": 6999},
}
KINDS = [COMMENT, LARGE_OBJECT]
"""Kinds of objects that hold what people wrote, and that a mask of tables does not reach."""

SOURCE_OPTIONS: dict[str, t.Any] = {
    "kind": {"type": "str", "required": True, "choices": ["standby", "dump"]},
    "database": {"type": "str", "required": True},
    "admin": {"type": "str", "default": "postgres"},
    "host": {"type": "str"},
    "port": {"type": "int", "default": 5432},
    "user": {"type": "str"},
    "password_file": {"type": "path", "no_log": False},
    "sslmode": {"type": "str", "choices": list(SSL_MODES)},
    "sslrootcert": {"type": "path"},
    "slot": {"type": "str"},
    "dump": {"type": "path"},
    "extensions": {"type": "list", "elements": "str", "default": []},
    "mask": {"type": "path"},
    "mask_verify": {"type": "str"},
    "exclude_kinds": {"type": "list", "elements": "str", "choices": KINDS},
    "settings": {"type": "dict", "default": {}},
    "every": {"type": "str", "default": "1h"},
    "keep": {"type": "int", "default": 3},
    "keep_age": {"type": "str"},
    "expire": {"type": "str"},
}
OPTIONS: dict[str, t.Any] = {
    "store": {"type": "str", "required": True, "choices": ["zfs", "btrfs", "xfs"]},
    "pool": {"type": "str"},
    "root": {"type": "path", "default": "/srv/parallel-worktrees"},
    "run": {"type": "path", "default": "/run/parallel-worktrees"},
    "state": {"type": "path", "default": "/var/lib/parallel-worktrees"},
    "user": {"type": "str", "default": "parallel-worktrees"},
    "source_user": {"type": "str", "default": "parallel-worktrees-source"},
    "pooler_user": {"type": "str", "default": "parallel-worktrees-pgbouncer"},
    "bin_directory": {"type": "path", "required": True},
    "supervisor": {"type": "str", "default": "systemd", "choices": ["systemd", "process"]},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 6432},
    "branch_ports": {"type": "dict", "options": PORTS_OPTIONS, "default": {}},
    "branch": {"type": "dict", "options": BRANCH_OPTIONS, "default": {}},
    "quota": {"type": "str"},
    "reserve": {"type": "float", "default": 10},
    "sources": {"type": "dict", "default": {}},
}


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the data of branches come from.

    :ivar kind: ``standby`` follows a primary by streaming; ``dump`` is restored anew for each golden.
    :ivar database: the one that branches are made for.
    :ivar admin: a superuser there; over the socket of a copy of it, root is let in as him.
    :ivar sslmode: how the connection to the primary is encrypted; None for libpq's default, which is ``prefer``.
    :ivar sslrootcert: the certificates of who may sign that of the primary.
    :ivar slot: of the standby on the primary; None for none.
    :ivar mask: a file of SQL that runs on each golden before any branch can be made of it.
    :ivar mask_verify: a query that must return no row then.
    :ivar exclude_kinds: of objects that a golden does not have; None for those that the mask does not reach.
    :ivar settings: of the servers that carry the data, such as ``shared_preload_libraries``.
    :ivar every: seconds from one golden to the next.
    :ivar keep: how many goldens stay.
    :ivar keep_age: seconds after which a golden goes though it is among those; None for never.
    :ivar expire: seconds without a session after which branches of it go, where they say nothing else.
    """

    name: str
    kind: str
    database: str
    admin: str
    host: str | None
    port: int
    user: str | None
    password_file: str | None
    sslmode: str | None
    sslrootcert: str | None
    slot: str | None
    dump: str | None
    extensions: tuple[str, ...]
    mask: str | None
    mask_verify: str | None
    exclude_kinds: tuple[str, ...] | None
    settings: dict[str, str]
    every: float
    keep: int
    keep_age: float | None
    expire: float | None

    def has_masked(self, mark: t.Mapping[str, t.Any]) -> bool:
        """Whether a golden of this mark is masked as it is to be now, where it is to be."""
        return self.mask is None or mark.get("masked_by") == (self.masked_by() or "what cannot be read")

    @property
    def masking(self) -> Masking:
        return Masking(self.mask, self.mask_verify)

    def masked_by(self) -> str | None:
        """Tells what masks from anything else; None where there is nothing that could be read."""
        if self.mask is None:
            return None
        try:
            what = [self.masking.digest(), sorted(self.excluded)]
        except (OSError, UserError):
            return None
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    @property
    def excluded(self) -> frozenset[str]:
        """The kinds of objects that a golden does not have."""
        by_default = () if self.mask is None else KINDS
        return frozenset(by_default if self.exclude_kinds is None else self.exclude_kinds)


@dataclasses.dataclass(frozen=True)
class Branches:
    """What a branch may use: ``memory`` limits its unit, the rest are settings of its server."""

    shared_buffers: str
    max_connections: int
    memory: str
    settings: dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Host:
    """A DB host.

    :ivar store: the file system behind the pool.
    :ivar pool: ZFS' name of the dataset that all of ours lie in.
    :ivar root: where that is mounted.
    :ivar run: sockets; ``state``: locks, logs and PgBouncer's files.
    :ivar user: the system user of the servers of branches; ``source_user``: of standbys, of goldens while they are
        made, and of the passwords for primaries; ``pooler_user``: of PgBouncer.
    :ivar port: of PgBouncer, at ``address``.
    :ivar branch_ports: the first and the last.
    :ivar reserve: percent of the pool that stay free.
    """

    store: str
    pool: str | None
    root: str
    run: str
    state: str
    user: str
    source_user: str
    pooler_user: str
    bin_directory: str
    supervisor: str
    address: str
    port: int
    branch_ports: range
    branch: Branches
    quota: str | None
    reserve: float
    sources: dict[str, Source]

    @property
    def programs(self) -> _clusters.Programs:
        return _clusters.programs_in(self.bin_directory, None)

    @property
    def account(self) -> _clusters.Account:
        return _clusters.Account.of(self.user)

    @property
    def source_account(self) -> _clusters.Account:
        return _clusters.Account.of(self.source_user)

    @property
    def pooler_account(self) -> _clusters.Account:
        return _clusters.Account.of(self.pooler_user)

    def check_accounts(self) -> None:
        """
        :raises UserError: the user of the branches is in the group of another, and so reaches what is closed to it.
        """
        ours = self.account
        for other in (self.source_account, self.pooler_account):
            if other != ours and other.gid in os.getgrouplist(ours.name, ours.gid):
                raise UserError(
                    f"the user {ours.name} of the branches is in the group of {other.name}, and would reach its files",
                    hint=f"take it out of that group: gpasswd --delete {ours.name} GROUP; or choose another user",
                )

    def source(self, name: str) -> Source:
        """
        :raises UserError: there is none of this name.
        """
        if name not in self.sources:
            known = ", ".join(sorted(self.sources)) or "none"
            raise UserError(
                f"this DB host has no source {name!r}; there are: {known}",
                hint="add it to db_host_sources and run parallel.worktrees.db_host again",
            )
        return self.sources[name]

    def elapsed(self, *, check: bool) -> _clock.Elapsed:
        """The time that has certainly passed here; each look at it is noted, but in check mode."""
        path = os.path.join(self.state, "clock.json")
        with contextlib.nullcontext() if check else self.locked("clock"):
            return _clock.look(path, note=not check)

    @contextlib.contextmanager
    def locked(self, what: str = "pool") -> t.Iterator[int]:
        """Keep others from the pool, or from something that takes longer; the descriptor carries the lock.

        The pool's is held for moments only, so that nobody waits for a golden that is being made.
        """
        folder = os.path.join(self.state, "locks")
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise EnvironmentFailure(f"cannot make {folder}: {error.strerror}", hint=SET_UP) from error
        with _files.locked(os.path.join(folder, what)) as handle:
            yield handle


def load(path: str = HOST_FILE) -> Host:
    """
    :raises UserError: there is no host file, or it says what cannot be.
    """
    try:
        with open(path, encoding="utf-8") as file:
            given = json.load(file)
    except FileNotFoundError as error:
        raise UserError(f"this machine is no DB host: it has no {path}", hint=SET_UP) from error
    except (OSError, ValueError) as error:
        raise EnvironmentFailure(f"cannot read {path}: {error}", hint=SET_UP) from error
    return parse(given, path)


def parse(given: t.Any, path: str) -> Host:
    """A host as the text of its file has it.

    :raises UserError: it cannot be one; with all that is wrong.
    """
    wrong = list(_faults(given)) if isinstance(given, dict) else ["it is no dictionary"]
    if wrong:
        raise UserError(f"{path} is no host file: {'; '.join(wrong)}", hint=SET_UP)
    host = _read(OPTIONS, given)
    ports = _read(PORTS_OPTIONS, host["branch_ports"])
    if not 0 < ports["first"] <= ports["last"] < 65536:
        raise UserError(f"{path} is no host file: no port is in branch_ports: {ports}", hint=SET_UP)
    return Host(
        **{
            **host,
            "branch_ports": range(ports["first"], ports["last"] + 1),
            "branch": Branches(**_read(BRANCH_OPTIONS, host["branch"])),
            "sources": {name: _source(name, about) for name, about in host["sources"].items()},
        }
    )


def source_of_mark(name: str, mark: t.Mapping[str, t.Any]) -> Source:
    """A standby of which the host file tells nothing any more, by the mark of its volume."""
    keys = ("database", "admin", "host", "port", "user", "sslmode", "sslrootcert", "slot")
    known = {key: mark.get(key) for key in keys}
    return _source(name, {**known, "kind": "standby"})


def seconds(text: str) -> float:
    """A length of time such as ``90s``, ``1h`` or ``7d``.

    :raises ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhdw])", text)
    if match is None:
        raise ValueError(f"{text!r} is no length of time: a number and one of s, m, h, d, w are, as in 7d")
    return float(match[1]) * UNITS[match[2]]


def _read(spec: dict[str, t.Any], given: dict[str, t.Any]) -> dict[str, t.Any]:
    """What is given, and defaults; what comes out of Ansible may be a number's text."""
    found = {name: about.get("default") if given.get(name) is None else given[name] for name, about in spec.items()}
    casts: dict[str, t.Callable[[t.Any], t.Any]] = {"int": int, "float": float}
    return {
        name: value if value is None or (cast := casts.get(spec[name]["type"])) is None else cast(value)
        for name, value in found.items()
    }


def _source(name: str, about: dict[str, t.Any]) -> Source:
    given = _read(SOURCE_OPTIONS, about)
    times = {key: None if given[key] is None else seconds(given[key]) for key in ("every", "keep_age", "expire")}
    kinds = given["exclude_kinds"]
    lists = {"extensions": tuple(given["extensions"]), "exclude_kinds": None if kinds is None else tuple(kinds)}
    return Source(**{**given, **times, **lists, "name": name})


def _faults(given: dict[str, t.Any]) -> t.Iterator[str]:
    """What is wrong with a host file."""
    spec = {**OPTIONS, "sources": {"type": "dict"}}
    for name in given:
        if name not in spec:
            yield f"{name}: nothing reads it{_options.meant(name, spec)}"
    yield from _options.faults(spec, given, lambda value: value)
    users = [given.get(key) or OPTIONS[key]["default"] for key in ("user", "source_user", "pooler_user")]
    if len(set(users)) < len(users):
        yield f"user, source_user and pooler_user have to be three, and are {', '.join(map(str, users))}"
    if given.get("store") == "zfs" and not given.get("pool"):
        yield "pool is missing, which names the dataset of a ZFS store"
    sources = given.get("sources")
    for name, about in sources.items() if isinstance(sources, dict) else ():
        if not re.fullmatch(NAME, name):
            yield f"{name!r} is no name of a source: letters, digits, '_' and '-' are"
        elif not isinstance(about, dict):
            yield f"sources.{name} is no dictionary"
        else:
            yield from _faults_of_source(about, f"sources.{name}.")


def _faults_of_source(about: dict[str, t.Any], where: str) -> t.Iterator[str]:
    yield from _options.faults(SOURCE_OPTIONS, about, lambda value: value, where)
    needed = {"standby": ("host", "user"), "dump": ("dump",)}.get(str(about.get("kind")), ())
    yield from (f"{where}{name} is missing" for name in needed if not about.get(name))
    if not re.fullmatch(r"[a-z0-9_]{1,63}", str(about.get("slot") or "none")):
        yield f"{where}slot is {about['slot']!r}, and slots are named with small letters, digits and '_'"
    for key in ("database", "admin", "user"):
        if (name := about.get(key)) is not None and (reason := _hba.fault(str(name))):
            yield f"{where}{key} is {name!r}: {reason}"
    if about.get("sslmode") in VERIFYING and not about.get("sslrootcert"):
        yield f"{where}sslrootcert is missing, which sslmode {about['sslmode']} verifies the primary with"
    if about.get("sslrootcert") and about.get("sslmode") not in VERIFYING:
        yield f"{where}sslmode has to be verify-ca or verify-full for sslrootcert to be looked at"
    settings = about.get("settings")
    for name in settings if isinstance(settings, dict) else ():
        if name.lower() in _clusters.OUR_SETTINGS or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
            yield f"{where}settings.{name} cannot be given"
    for name in ("every", "keep_age", "expire"):
        try:
            seconds(str(about.get(name) or "1s"))
        except ValueError as error:
            yield f"{where}{name}: {error}"
    if re.fullmatch(r"0|-\d+", str(about.get("keep"))):
        yield f"{where}keep is {about['keep']}, and one golden has to stay"
