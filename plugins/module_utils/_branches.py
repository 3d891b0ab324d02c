# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Branches of a DB host: writable copies of a database of any size, in a moment.

Private to this collection: may change without notice.

A branch is a volume, and its mark is all that is known of it:

    branches/<name>     the copy; its server works in ``data``, and ``user.scram`` beside has its user's verifier
    resets/<name>       what a reset builds beside, until it takes the place of the branch
    replaced/<name>     the branch in whose place it comes, until it is destroyed

It begins as a copy of a golden, which was shut down in good order, or of another branch that is stopped for that
moment. Its phase is ``creating`` until its data are right, and ``ready`` from then on. Then the server runs, PgBouncer
knows the name, and a session through it sees the right server: each of these is looked at, and seen to, by every run.
``removing`` are those that nobody gets into any more.

So a run that was killed needs no notes: the next one goes by the names and phases of the volumes. Runs for one branch
wait for each other; the pool's lock is held for moments only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import sys
import time
import typing as t

from . import _db_host, _files, _hba, _pgbouncer, _postgres, _services, _stores, _written
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError, WorktreesError
from ._pg_server import compose
from ._pgbouncer import PROBE, Route
from ._stores import Volume

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.sql import Composable

    from ._db_host import Host

ARGUMENT_SPEC: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent", "reset"], "default": "present"},
    "source": {"type": "str"},
    "parent": {"type": "str"},
    "user": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "expires": {"type": "str"},
    "protected": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "leaving": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "float", "default": 60},
    "host_file": {"type": "path", "default": _db_host.HOST_FILE},
}

INFO_SPEC: dict[str, t.Any] = {
    "name": {"type": "str"},
    "owner": {"type": "str"},
    "host_file": ARGUMENT_SPEC["host_file"],
}

NAMES = r"[A-Za-z0-9][A-Za-z0-9_-]*"
RESERVED = {_pgbouncer.CONSOLE, PROBE, "postgres", "template0", "template1"}

SEE = "see which there are: ansible-playbook parallel.worktrees.db_status -i inventory -e db_host=HOST"
LIVE, ASIDE, REPLACED = "branches", "resets", "replaced"
"""The shelves of volumes."""

CREATING, COMPLETE, READY, REMOVING = "creating", "complete", "ready", "removing"
"""Phases; what a reset has built beside is complete until it has taken its place."""

HALF_MADE_SECONDS = 3600
"""How old is what a sweep takes for left by a killed run."""

CERTAIN = {
    "archive_mode": "off",
    "archive_command": "",
    "restore_command": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "wal_level": "minimal",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "ssl": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0777",  # of the socket; its folder lets in who may
}
"""A branch talks to nobody, its source least of all, and may be lost in a crash of the machine."""

REFRESH = "have one made now: ansible-playbook parallel.worktrees.db_refresh"

MAINTENANCE = "postgres"
"""The database of a branch that only its administrator gets into: the place to manage roles."""

KEPT = "set synchronous_commit = on"

SHARED_BLOCKS = {"wal_init_zero": "off", "wal_recycle": "off"}
"""Where a block that is written anew is another one anyway."""

ROLES = "select rolname, rolcanlogin from pg_roles"
HARMLESS = """
select concat_ws(', ',
    case when pg_is_in_recovery() then 'it is a standby' end,
    case when current_setting('archive_mode') <> 'off' then 'it archives its log' end,
    case when current_setting('primary_conninfo', true) <> '' then 'it knows a primary' end,
    case when current_setting('data_directory') <> %(data)s then 'its data are elsewhere' end,
    case when exists (select from pg_tablespace where oid >= 16384) then 'it has tablespaces elsewhere' end,
    case when exists (select from pg_replication_slots) then 'it has replication slots' end,
    case when exists (select from pg_subscription where subenabled) then 'it has subscriptions' end
)
"""
"""What would let a branch touch its source."""

DIRECT = """
select count(*) from pg_stat_activity
where datname = %(database)s and backend_type = 'client backend' and client_addr is not null
"""
"""Sessions of people on the DB host itself; PgBouncer, which tells of its own, comes by the socket."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """What the mark of a branch says.

    :ivar golden: the snapshot of a golden that its data go back to.
    :ivar parent: the branch that it is a copy of; None for a copy of the golden itself.
    :ivar admin: the superuser, who comes in from this machine only; ``owner_role`` owns all that is in the database.
    :ivar data_at: when its data were those of the source.
    :ivar expires: after so many seconds without a session it goes; None for never.
    :ivar last_used: when a session was last seen, or when it was made; ``queries``: how many PgBouncer had had by then.
    """

    owner: str
    phase: str
    source: str
    golden: str
    parent: str | None
    port: int
    database: str
    user: str
    admin: str
    owner_role: str
    data_at: t.Any
    created: float
    last_used: float
    queries: int = 0
    expires: float | None = None
    protected: bool = False
    kind: str = "branch"

    @classmethod
    def of(cls, volume: Volume) -> Mark:
        """
        :raises UserError: the volume is something else.
        """
        try:
            mark = cls(**volume.mark)
        except TypeError:
            mark = None
        if mark is None or mark.kind != "branch":
            raise UserError(f"volume {volume.name} is no branch", hint="choose another name")
        return mark

    def as_dict(self) -> _stores.Mark:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Wish:
    """A branch as it is asked for.

    :ivar password: a verifier, or in clear text; None where it stays as it is.
    """

    name: str
    owner: str
    source: str | None
    parent: str | None
    user: str
    password: str | None
    expires: float | None
    protected: bool
    force: bool
    timeout: float
    leaving: tuple[str, ...]

    @classmethod
    def of(cls, params: Params) -> Wish:
        """
        :raises UserError: it is nothing that a branch could be.
        """
        name = _name("branch", params["name"])
        expires = params["expires"]
        if expires is not None:
            try:
                expires = _db_host.seconds(expires)
            except ValueError as error:
                raise UserError(f"branch {name}: expires: {error}", hint="such as expires: 7d") from error
        if params["source"] and params["parent"]:
            raise UserError(f"branch {name} is a copy of a source or of a parent, not of both", hint="leave one out")
        if params["parent"] == name:
            raise UserError(f"branch {name} cannot be its own parent", hint="name another one: parent")
        return cls(
            name=name,
            owner=params["owner"],
            source=params["source"],
            parent=None if params["parent"] is None else _name("parent", params["parent"]),
            user=_name("user", params["user"] or name),
            password=params["password"],
            expires=expires,
            protected=params["protected"],
            force=params["force"],
            timeout=params["timeout"],
            leaving=tuple(params["leaving"]),
        )


def _name(kind: str, asked: str) -> str:
    """A name that is one for PostgreSQL, PgBouncer, systemd and every file system."""
    name = _postgres.fit_name(asked)
    if not re.fullmatch(NAMES, name) or name in RESERVED:
        raise UserError(
            f"the {kind} {asked!r} cannot be called so",
            hint="letters, digits, '_' and '-' are allowed, not beginning with these, "
            f"and none of {', '.join(sorted(RESERVED))}",
        )
    return name


# The operations


def operation(params: Params, *, check: bool) -> Result:
    """Give a task its branch, reset it, or remove it."""
    wish = Wish.of(params)
    work = Work(_db_host.load(params["host_file"]), check=check)
    if wish.user == work.host.pooler_user:
        raise UserError(f"the user {wish.user} is PgBouncer's own", hint="choose another user")
    act = {"present": _present, "absent": _absent, "reset": _reset}[params["state"]]
    try:
        with work.alone(wish.name, wish.parent):
            return act(work, wish)
    except OSError as error:
        raise EnvironmentFailure(f"branch {wish.name}: {error}") from error


def info(params: Params, *, check: bool) -> Result:  # noqa: ARG001 - it touches nothing anyway
    """Look at all branches, or some of them."""
    work = Work(_db_host.load(params["host_file"]), check=True)
    uses: dict[str, _pgbouncer.Use] = {}
    with contextlib.suppress(EnvironmentFailure):
        uses = work.pooler.uses()
    told = [
        work.about(volume, uses)
        for volume in work.store().volumes(LIVE)
        if params["name"] in (None, os.path.basename(volume.name))
        if params["owner"] in (None, volume.mark.get("owner"))
    ]
    return {"changed": False, "diff": [], "actions": [], "branches": told}


def _present(work: Work, wish: Wish) -> Result:
    found = work.found(wish)
    if found is not None and found.phase == READY:
        return _see_to(work, wish, found)
    before = None
    if found is not None:
        before = {"phase": found.phase}
        work.discard(LIVE, wish.name, f"remove branch {wish.name}, which a killed run has left")
    if wish.password is None and not work.check:
        raise UserError(f"branch {wish.name} is new, and needs a password", hint="give it: password")
    if wish.parent is not None:
        mark = _make_from_parent(work, wish)
    else:
        mark = _make_from_golden(work, wish)
    return work.result(wish.name, before, mark)


def _see_to(work: Work, wish: Wish, found: Mark) -> Result:
    """See that a branch which is there is as it is asked for, and works."""
    for what, asked, there in (
        ("source", wish.source, found.source),
        ("parent", wish.parent, found.parent),
        ("user", wish.user, found.user),
    ):
        if asked is not None and asked != there:
            raise UserError(
                f"branch {wish.name} was made with the {what} {there}, not {asked}",
                hint="remove it and make it anew, or ask for what is there",
            )
    mark = dataclasses.replace(found, expires=work.expiry(wish, found.source), protected=wish.protected)
    before = {**work.state(found), **work.condition(wish.name, found, wish.password)}
    if mark != found:
        work.act(f"mark branch {wish.name}", lambda: work.mark(LIVE, wish.name, mark))
    if not before["running"]:
        work.act(f"start the server of branch {wish.name}", lambda: work.start(wish.name, mark, wish.timeout))
    if not before["password"]:
        work.act(
            f"give user {mark.user} of branch {wish.name} the password",
            lambda: work.let_in(LIVE, wish.name, mark, t.cast("str", wish.password), wish.timeout),
        )
    if not before["reached"]:
        work.act(f"route {wish.name} to its branch", lambda: None)
    if not all(before[key] for key in ("running", "password", "reached")):
        work.route(wish.name, mark, wish.timeout)
    return work.result(wish.name, before, mark)


def _make_from_golden(work: Work, wish: Wish) -> Mark:
    with work.pool() as (store, volumes):
        golden = _newest(work.host, volumes, wish.source)
        mark = work.planned(wish, volumes, store, golden.mark, golden=f"{golden.name}@ready")
        work.act(
            f"make branch {wish.name} of {golden.name}",
            lambda: store.clone(mark.golden, f"{LIVE}/{wish.name}", mark.as_dict(), quota=work.host.quota),
        )
    return _complete(work, wish, mark)


def _make_from_parent(work: Work, wish: Wish) -> Mark:
    """A copy of another branch, whose server is stopped for that moment while its clients wait."""
    parent = t.cast("str", wish.parent)
    with work.pool() as (store, volumes):
        about = next((Mark.of(one) for one in volumes if one.name == f"{LIVE}/{parent}"), None)
        if about is None or about.phase != READY:
            raise UserError(f"there is no branch {parent} to make another of", hint=SEE)
        mark = work.planned(wish, volumes, store, about.as_dict(), golden=about.golden)
    work.act(f"make branch {wish.name} of branch {parent}", lambda: None)
    if not work.check:
        with work.pooler.paused(parent):
            work.supervisor.stop(parent, work.folder(LIVE, parent))
            try:
                with work.pool() as (store, _volumes):
                    snapshot = store.snapshot(f"{LIVE}/{parent}", _label(wish.name))
                    store.clone(snapshot, f"{LIVE}/{wish.name}", mark.as_dict(), quota=work.host.quota)
            finally:
                work.start(parent, about, wish.timeout)
    return _complete(work, wish, mark)


def _complete(work: Work, wish: Wish, mark: Mark) -> Mark:
    """Make a server of its own out of a copy, and let its user in."""
    if work.check:
        return dataclasses.replace(mark, phase=READY)
    try:
        work.adapt(LIVE, wish.name, mark)
        work.start(wish.name, mark, wish.timeout)
        work.let_in(LIVE, wish.name, mark, t.cast("str", wish.password), wish.timeout)
        mark = dataclasses.replace(mark, phase=READY)
        work.route(wish.name, mark, wish.timeout, marking=True)
    except WorktreesError:
        if mark.phase == CREATING:
            work.discard(LIVE, wish.name, "undo it")
        raise
    return mark


def _reset(work: Work, wish: Wish) -> Result:
    """Put a branch back to how it began: build it beside, see it work, and swap."""
    found = work.found(wish, keep_built=True)
    if found is None or found.phase != READY:
        raise UserError(f"there is no branch {wish.name} to reset", hint=SEE)
    if found.protected and not wish.force:
        raise _protected(wish.name)
    name = wish.name
    with work.pool() as (store, volumes):
        _check_no_children(name, volumes)
        store.check_unmounted(f"{LIVE}/{name}")
        there = {one.name: one for one in volumes}
    origin = t.cast("str", there[f"{LIVE}/{name}"].origin)
    mark = dataclasses.replace(found, expires=work.expiry(wish, found.source), protected=wish.protected)
    draft = dataclasses.replace(mark, phase=CREATING, queries=0, last_used=work.now())
    before = {**work.state(found), "since": found.created}
    after = dataclasses.replace(draft, phase=READY, created=draft.last_used)
    password = work.verifier(LIVE, name)  # kept, for PgBouncer has let clients in by it who wait now
    if password is None or (wish.password and not _postgres.verifies(password, wish.password)):
        password = wish.password
    if password is None and not work.check:
        raise UserError(f"branch {name} has lost its password", hint="give it: password")
    built = there.get(f"{ASIDE}/{name}")
    if built is not None and (built.origin != origin or not work.takes(ASIDE, name, password)):
        work.discard(ASIDE, name, f"remove {built.name}, which an earlier reset has built for something else")
        built = None
    if built is None:
        _build_beside(work, wish, draft, origin, password)
    else:
        work.act(f"reset branch {name} to {origin}, as an earlier run has built it", lambda: None)
    if not work.check:
        work.mark(ASIDE, name, dataclasses.replace(after, phase=COMPLETE))
        _swap(work, name, found, after, wish.timeout)
        work.route(name, after, wish.timeout)
        work.discard(REPLACED, name, None)
    return work.result(name, before, after, since=after.created)


def _build_beside(work: Work, wish: Wish, draft: Mark, origin: str, password: str | None) -> None:
    """Build what a reset puts in the place of the branch, and see it work."""
    name = wish.name
    with work.pool() as (store, _volumes):
        store.check_room(f"cannot reset branch {name}")
        work.act(
            f"reset branch {name} to {origin}",
            lambda: store.clone(origin, f"{ASIDE}/{name}", draft.as_dict(), quota=work.host.quota),
        )
    if work.check:
        return
    work.adapt(ASIDE, name, draft)
    beside = _services.Process(work.host)
    try:
        beside.start(_beside(name), work.folder(ASIDE, name))
        work.let_in(ASIDE, name, draft, t.cast("str", password), wish.timeout)
    finally:
        beside.stop(_beside(name), work.folder(ASIDE, name))
    work.adapt(ASIDE, name, draft, as_live=True)


def _swap(work: Work, name: str, found: Mark, after: Mark, timeout: float) -> None:
    """Put what a reset has built in the place of the branch; where that fails, the branch works as before."""
    live, aside, replaced = (f"{shelf}/{name}" for shelf in (LIVE, ASIDE, REPLACED))
    mark = found
    with work.pooler.paused(name):
        work.supervisor.stop(name, work.folder(LIVE, name))
        try:
            with work.pool() as (store, _volumes):
                store.rename(live, replaced)
                try:
                    store.rename(aside, live)
                except WorktreesError:
                    store.rename(replaced, live)
                    raise
                mark = after
                store.set_mark(live, after.as_dict())
        finally:
            work.start(name, mark, timeout)


def _absent(work: Work, wish: Wish) -> Result:
    found = work.found(wish)
    if found is None:
        work.sweep_snapshots_of(wish.name)
        work.unroute(wish.name)
        return work.result(wish.name, None, None)
    if found.protected and not wish.force:
        raise _protected(wish.name)
    if not work.check:
        _wait_for_children(work, wish)
    leaving = _that_leave(work, wish) if work.check else ()
    _remove(work, wish.name, found, f"remove branch {wish.name}", leaving=leaving)
    return work.result(wish.name, work.state(found), None)


def _that_leave(work: Work, wish: Wish) -> set[str]:
    """The branches of the same run that can go: none that is protected, none on which a branch stands that stays."""
    there = {os.path.basename(one.name): one.mark for one in work.store().volumes(LIVE)}
    going = {name for name in wish.leaving if name in there and (wish.force or not there[name].get("protected"))}
    while kept := {str(mark.get("parent")) for name, mark in there.items() if name not in going} & going:
        going -= kept
    return going


def _wait_for_children(work: Work, wish: Wish) -> None:
    """Wait while others of the same run remove the branches that stand on this one."""
    until = time.monotonic() + wish.timeout
    while time.monotonic() < until:
        volumes = work.store().volumes(LIVE)
        children = {os.path.basename(one.name) for one in volumes if one.mark.get("parent") == wish.name}
        if not children or not children <= {*wish.leaving}:
            return
        time.sleep(0.2)


def _remove(work: Work, name: str, found: Mark, action: str, leaving: t.Collection[str] = ()) -> None:
    with work.pool() as (store, volumes):
        _check_no_children(name, volumes, leaving)
        store.check_unmounted(f"{LIVE}/{name}")
        removing = dataclasses.replace(found, phase=REMOVING)
        work.act(action, lambda: store.set_mark(f"{LIVE}/{name}", removing.as_dict()))
    work.unroute(name)
    work.discard(LIVE, name, None)
    if found.parent is not None:
        work.forget_snapshot(found.parent, name)
    if not work.check and work.store().volume(f"{LIVE}/{name}") is not None:
        raise EnvironmentFailure(f"branch {name} is there still, though it was destroyed without an error")


def _newest(host: Host, volumes: t.Sequence[Volume], source: str | None) -> Volume:
    """The golden to make a branch of."""
    if source is None:
        if len(host.sources) != 1:
            known = ", ".join(sorted(host.sources)) or "none"
            raise UserError(f"of which source is the branch? This DB host has {known}", hint="name one: source")
        (source,) = host.sources
    about = host.source(source)
    fit = [one for one in volumes if (one.mark.get("kind"), one.mark.get("phase")) == ("golden", READY)]
    fit = [one for one in fit if one.mark["source"] == source]
    if not fit:
        raise EnvironmentFailure(
            f"source {source} has no golden that is ready, of which a branch could be made",
            hint=REFRESH,
        )
    if not (fit := [one for one in fit if about.has_masked(one.mark)]):
        raise EnvironmentFailure(
            f"source {source} has no golden that is masked by {about.mask} as this is now", hint=REFRESH
        )
    return max(fit, key=lambda one: one.name)


def _check_no_children(name: str, volumes: t.Sequence[Volume], leaving: t.Collection[str] = ()) -> None:
    children = [os.path.basename(one.name) for one in volumes if one.mark.get("parent") == name]
    children = [child for child in children if child not in leaving]
    if children:
        raise UserError(
            f"branch {name} stays as it is: {', '.join(children)} stand on it", hint="remove these branches first"
        )


def _protected(name: str) -> UserError:
    return UserError(f"branch {name} is protected", hint="say so if you mean it: force")


def _label(child: str) -> str:
    """Of the snapshot that a branch's branch is a copy of."""
    return f"for_{child}"


def _beside(name: str) -> str:
    """The socket folder of a server that a reset builds: no name of a branch has a dot."""
    return f"{name}.reset"


# One run


class Work:
    """A run on a host: what it looks at, and what it did or in check mode would do."""

    def __init__(self, host: Host, *, check: bool) -> None:
        self.host = host
        self.check = check
        self.actions: list[str] = []
        self.left: list[str] = []
        self.supervisor = _services.of(host)
        self.pooler = _pgbouncer.Pooler(host, self.supervisor)

    def act(self, action: str, work: t.Callable[[], t.Any]) -> None:
        self.actions.append(action)
        if not self.check:
            work()

    def result(self, name: str, before: dict[str, t.Any] | None, mark: Mark | None, **more: t.Any) -> Result:
        """
        :arg before: what there was; with how it worked, which it does in every way when we are through.
        """
        before, after = before or {}, {} if mark is None else {**self.state(mark), **more}
        if after:
            after |= dict.fromkeys(before.keys() & {"running", "reached", "password"}, True)
        if self.left:
            before = {**before, "left": self.left}
        header = f"branch {name}"
        difference = {"before": before, "after": after, "before_header": header, "after_header": header}
        changed = before != after
        told = {"changed": changed, "diff": [difference] if changed else [], "actions": self.actions}
        if mark is None:
            return told
        return {
            **told,
            "name": name,
            "host": self.host.address,
            "port": self.host.port,
            "user": mark.user,
            "branch_port": mark.port,
            "source": mark.source,
            "golden": mark.golden,
            "parent": mark.parent,
            "data_at": mark.data_at,
            "created": mark.created,
        }

    def state(self, mark: Mark) -> dict[str, t.Any]:
        keys = ("owner", "phase", "source", "golden", "parent", "port", "user", "expires", "protected")
        return {key: getattr(mark, key) for key in keys}

    def now(self) -> float:
        """The time for a mark, with a look that shows whether the clock is set later on."""
        return self.host.elapsed(check=self.check).moment.wall

    # Locks

    @contextlib.contextmanager
    def alone(self, *names: str | None) -> t.Iterator[None]:
        """Keep other runs from these branches. There are 64 locks, so that they can stay, taken in one order."""
        with contextlib.ExitStack() as stack:
            for lock in () if self.check else sorted({_lock(name) for name in names if name is not None}):
                stack.enter_context(self.host.locked(lock))
            yield

    @contextlib.contextmanager
    def pool(self) -> t.Iterator[tuple[_stores.Store, list[Volume]]]:
        """Have the pool for ourselves, for a moment; with the volumes in it."""
        with contextlib.nullcontext(self.store()) if self.check else self.locked() as store:
            yield store, store.volumes()

    def locked(self) -> contextlib.AbstractContextManager[_stores.Store]:
        return _stores.locked(self.host)

    def store(self) -> _stores.Store:
        return _stores.of(self.host)

    # Looking

    def folder(self, shelf: str, name: str) -> str:
        return os.path.join(self.host.root, shelf, name)

    def found(self, wish: Wish, *, keep_built: bool = False) -> Mark | None:
        """The branch of this name, when what a killed run has begun on it is finished.

        :arg keep_built: leave what a reset has built and could not put in the place of the branch.
        :raises UserError: it is another's.
        """
        volume = self.recover(wish.name, keep_built=keep_built)
        if volume is None:
            return None
        mark = Mark.of(volume)
        if mark.owner != wish.owner:
            raise UserError(
                f"branch {wish.name} belongs to {mark.owner}, not to {wish.owner}",
                hint="choose another name, or let its owner remove it",
            )
        return mark

    def is_running(self, name: str) -> bool:
        return self.supervisor.is_running(name, self.folder(LIVE, name))

    def condition(self, name: str, mark: Mark, password: str | None) -> dict[str, bool]:
        """Whether a branch does what it should."""
        running, reached = self.is_running(name), False
        if running:
            with contextlib.suppress(EnvironmentFailure):
                known = self.pooler.known().get(name)
                reached = known == _pgbouncer.Known(self._sockets(name), mark.port, mark.database, paused=False)
        verifier = self.verifier(LIVE, name)
        is_same = password is None or (verifier is not None and _postgres.verifies(verifier, password))
        return {"running": running, "reached": reached, "password": is_same}

    def verifier(self, shelf: str, name: str) -> str | None:
        """What the user's password is held against."""
        try:
            with open(self._verifier_file(shelf, name), encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            return None

    def takes(self, shelf: str, name: str, password: str | None) -> bool:
        """Whether a server lets the user in with this password, or with any where none is given."""
        return password is None or _postgres.verifies(self.verifier(shelf, name) or "", password)

    def about(self, volume: Volume, uses: t.Mapping[str, _pgbouncer.Use]) -> dict[str, t.Any]:
        mark, name = Mark.of(volume), os.path.basename(volume.name)
        size, running = self.store().size(volume.name), self.is_running(name)
        told = {key: value for key, value in mark.as_dict().items() if key not in ("kind", "queries", "last_used")}
        return {
            **told,
            "name": name,
            "host": self.host.address,
            "port": self.host.port,
            "branch_port": mark.port,
            "own_bytes": size.own,
            "full_bytes": size.full,
            "age": max(0, int(time.time() - mark.created)),
            "running": running,
            "routed": name in uses,
            "sessions": uses[name].clients if running and name in uses else None,
        }

    def seen_used(self, name: str, mark: Mark) -> Mark:
        """The mark, brought up to date where somebody has used the branch since the last look.

        :raises EnvironmentFailure: that cannot be told.
        """
        use = self.pooler.uses().get(name, _pgbouncer.Use())
        try:
            connection = self._enter(LIVE, name, mark)
        except _postgres.driver().OperationalError as error:
            raise EnvironmentFailure(
                f"the server at {self._sockets(name)} does not answer: {str(error).strip()}"
            ) from error
        with contextlib.closing(connection):
            ((direct,),) = _rows(connection, DIRECT, database=mark.database)
        if not (use.clients or direct or use.queries != mark.queries):
            return mark
        return dataclasses.replace(mark, last_used=self.now(), queries=use.queries)

    def names(self) -> list[str]:
        """Of all branches, those included of which a killed run has left a part."""
        shelves = (LIVE, ASIDE, REPLACED)
        return sorted({os.path.basename(one.name) for one in self.store().volumes() if one.name.startswith(shelves)})

    # Planning

    def planned(
        self, wish: Wish, volumes: t.Sequence[Volume], store: _stores.Store, basis: _stores.Mark, *, golden: str
    ) -> Mark:
        """The mark of a new branch, with a port and a user that no other has.

        :arg basis: the mark of the golden, or of the branch, that it is to be a copy of.
        """
        others = [Mark.of(one) for one in volumes if one.name.startswith((f"{LIVE}/", f"{ASIDE}/", f"{REPLACED}/"))]
        sharing = [
            os.path.basename(one.name)
            for one in volumes
            if one.name.startswith(f"{LIVE}/") and one.mark.get("user") == wish.user
            if one.name != f"{LIVE}/{wish.name}"
        ]
        if sharing or wish.user in (basis["admin"], basis["owner_role"]):
            whose = f"branch {sharing[0]}" if sharing else "the source"
            raise UserError(
                f"branch {wish.name}: there is a user {wish.user} already, of {whose}",
                hint="leave user out, and it is called like the branch",
            )
        if len(os.path.join(self._sockets(wish.name), ".s.PGSQL.65535")) > 107:
            raise UserError(
                f"branch {wish.name}: {self._sockets(wish.name)} is too long for the path of a socket",
                hint="choose a shorter name",
            )
        store.check_room(f"cannot make branch {wish.name}")
        now = self.now()
        return Mark(
            owner=wish.owner,
            phase=CREATING,
            source=basis["source"],
            golden=golden,
            parent=wish.parent,
            port=self._free_port({mark.port for mark in others}),
            database=basis["database"],
            user=wish.user,
            admin=basis["admin"],
            owner_role=basis["owner_role"],
            data_at=basis.get("data_at"),
            created=now,
            last_used=now,
            expires=self.expiry(wish, basis["source"]),
            protected=wish.protected,
        )

    def expiry(self, wish: Wish, source: str) -> float | None:
        if wish.expires is not None or source not in self.host.sources:
            return wish.expires
        return self.host.sources[source].expire

    def _free_port(self, taken: set[int]) -> int:
        for port in self.host.branch_ports:
            if port not in taken:
                with contextlib.suppress(EnvironmentFailure):
                    _postgres.check_port_is_free("127.0.0.1", port)
                    return port
        first, last = self.host.branch_ports[0], self.host.branch_ports[-1]
        raise EnvironmentFailure(
            f"all ports for branches are taken, {first} to {last}",
            hint="remove branches, or widen db_host_branch_ports",
        )

    # Doing

    def mark(self, shelf: str, name: str, mark: Mark) -> None:
        with self.locked() as store:
            store.set_mark(f"{shelf}/{name}", mark.as_dict())

    def adapt(self, shelf: str, name: str, mark: Mark, *, as_live: bool = False) -> None:
        """Make a copy's settings those of a branch, before its server starts for the first time.

        :arg as_live: where it lies on another shelf until it takes the place of the branch.
        """
        folder = self.folder(shelf, name)
        _check_is_whole(os.path.join(folder, "data"))
        for file in (self._verifier_file(shelf, name), os.path.join(folder, "server.log")):
            with contextlib.suppress(FileNotFoundError):
                if not as_live:
                    os.unlink(file)
        self.configure(shelf, name, mark, as_live=as_live)

    def configure(self, shelf: str, name: str, mark: Mark, *, as_live: bool = False) -> None:
        """Write what the server of a branch goes by."""
        account, data = self.host.account, os.path.join(self.folder(shelf, name), "data")
        for file, content in self._settings(shelf, name, mark, as_live=as_live).items():
            path = os.path.join(data, file)
            _files.write(path, content.encode(), mode=0o600, owner=(account.uid, account.gid))

    def is_configured(self, name: str, mark: Mark) -> bool:
        """Whether the server of a branch goes by what this host says now."""
        data = os.path.join(self.folder(LIVE, name), "data")
        wanted = self._settings(LIVE, name, mark)
        return all(_own_text(os.path.join(data, file)) == content for file, content in wanted.items())

    def _settings(self, shelf: str, name: str, mark: Mark, *, as_live: bool = False) -> dict[str, str]:
        """The files that a server goes by, by their names in its data."""
        sockets = self._sockets(name if shelf == LIVE or as_live else _beside(name))
        settings = {
            **({} if self.host.store == "xfs" else SHARED_BLOCKS),
            "shared_buffers": self.host.branch.shared_buffers,
            "max_connections": self.host.branch.max_connections,
            "cluster_name": name,
            **self.host.branch.settings,
            **CERTAIN,
            "port": mark.port,
            "unix_socket_directories": sockets,
            _postgres.IDENTITY_SETTING: name,
        }
        if not (shelf == LIVE or as_live):
            settings["listen_addresses"] = ""
        text = _own_text(os.path.join(self.folder(shelf, name), "data", "postgresql.auto.conf"))
        return {
            # What the golden's servers need, such as libraries to load, holds where ours does not.
            **({} if _postgres.IDENTITY_SETTING in text else {"postgresql.conf": text}),
            "postgresql.auto.conf": _postgres.config(settings),
            **_hba.files(mark.admin, *_ways_in(mark)),
        }

    def start(self, name: str, mark: Mark, timeout: float) -> None:
        """See that the server of a branch runs and answers."""
        self.supervisor.start(name, self.folder(LIVE, name))
        self._await(LIVE, name, mark, timeout).close()

    def let_in(self, shelf: str, name: str, mark: Mark, password: str, timeout: float) -> None:
        """Give the user the password, and everybody else who came with the copy none.

        :raises EnvironmentFailure: the server might touch its source.
        """
        is_verifier = password.startswith(_postgres.SCRAM)
        verifier = password if is_verifier else _postgres.scram_verifier(password)
        with contextlib.closing(self._await(shelf, name, mark, timeout)) as connection:
            ((harm,),) = _rows(connection, HARMLESS, data=os.path.join(self.folder(shelf, name), "data"))
            if harm:
                raise EnvironmentFailure(
                    f"branch {name} might touch its source: {harm}", hint="refresh the golden that it is made of"
                )
            roles = dict(_rows(connection, ROLES))
            if mark.user in roles and mark.phase == CREATING:
                raise UserError(
                    f"branch {name}: its source has a role {mark.user} already",
                    hint="leave user out, and it is called like the branch",
                )
            owners = [role for role in _others(mark, roles) if not role.startswith("pg_")]
            version = connection.server_version
            if owners:
                with contextlib.closing(self._enter(shelf, name, mark, mark.database, version=version)) as inside:
                    _execute(inside, *(compose("reassign owned by {} to {}", role, mark.owner_role) for role in owners))
            _execute(connection, *_grants(mark, roles, verifier, self.pooler.probe_verifier()))
            if mark.phase == CREATING:
                with contextlib.closing(self._enter(shelf, name, mark, mark.database, version=version)) as inside:
                    _written.start_in(inside)
        _files.write(self._verifier_file(shelf, name), verifier.encode() + b"\n", mode=0o600)

    def route(self, name: str, mark: Mark, timeout: float, *, marking: bool = False) -> None:
        """Have PgBouncer know a name, and see that it leads to the branch.

        :arg marking: whether the branch becomes ready with that; in one step, so that nobody else leaves it out.
        """
        if self.check:
            return
        with self.locked() as store:
            if marking:
                store.set_mark(f"{LIVE}/{name}", mark.as_dict())
            routes = self.routes(store)
            self.pooler.write(routes)
            self.pooler.start()
            self.pooler.reload()
        self.pooler.check(next(one for one in routes if one.name == name), name, timeout)

    def unroute(self, name: str) -> None:
        """Have PgBouncer forget a name, which ends the sessions under it. One that is down reads its files later."""
        if self.check:
            return
        with self.locked() as store:
            routes = [one for one in self.routes(store) if one.name != name]
            if os.path.isdir(self.pooler.folder) and self.pooler.write(routes):
                with contextlib.suppress(EnvironmentFailure):
                    self.pooler.reload()

    def discard(self, shelf: str, name: str, action: str | None) -> None:
        """End a server and destroy what it worked on.

        :arg action: None where it belongs to the action before.
        """
        if action is not None:
            self.actions.append(action)
        if self.check:
            return
        if shelf == LIVE:
            self.supervisor.stop(name, self.folder(shelf, name))
        else:
            _services.Process(self.host).stop(_beside(name), self.folder(shelf, name))
        with self.locked() as store:
            store.destroy(f"{shelf}/{name}")

    def recover(self, name: str, *, keep_built: bool = False) -> Volume | None:
        """Finish what a killed run has begun: a swap goes on, or back; what lies beside goes.

        In check mode nothing is touched, and what would take the place of the branch stands for it.
        """
        live, aside, replaced = (f"{shelf}/{name}" for shelf in (LIVE, ASIDE, REPLACED))
        with self.pool() as (store, volumes):
            there = {one.name: one for one in volumes if one.name in (live, aside, replaced)}
            for other, phase in ((aside, COMPLETE), (replaced, READY)):
                if live not in there and other in there and there[other].mark.get("phase") == phase:
                    there[live] = there.pop(other)
                    if not self.check:
                        store.rename(other, live)
            found = there.pop(live, None)
            if found is not None and not self.check:
                if not os.path.isdir(self.folder(LIVE, name)):
                    store.mount(live)
                if found.mark.get("phase") == COMPLETE:
                    found = dataclasses.replace(found, mark={**found.mark, "phase": READY})
                    store.set_mark(live, found.mark)
        for other, volume in there.items():
            if keep_built and (other, volume.mark.get("phase")) == (aside, COMPLETE):
                continue
            self.left.append(other)
            self.discard(os.path.dirname(other), name, f"remove {other}, which a killed run has left")
        return found

    def forget_snapshot(self, parent: str, child: str) -> None:
        """Destroy the snapshot that a branch was a copy of, when it is gone."""
        if self.check:
            return
        with self.locked() as store:
            wanted = f"{LIVE}/{parent}@{_label(child)}"
            if any(one.name == wanted and not one.dependants for one in store.snapshots(f"{LIVE}/{parent}")):
                store.destroy_snapshot(wanted)

    def sweep_snapshots_of(self, child: str) -> None:
        """The same where a killed run leaves open whose snapshot it was."""
        if self.check:
            return
        for volume in self.store().volumes(LIVE):
            self.forget_snapshot(os.path.basename(volume.name), child)

    def _await(self, shelf: str, name: str, mark: Mark, timeout: float) -> Connection:
        """A connection as administrator, as soon as there can be one."""
        server = _services.server_in(self.folder(shelf, name))
        until, looked = time.monotonic() + timeout, time.monotonic()
        reason = ""
        while True:
            try:
                return self._enter(shelf, name, mark)
            except _postgres.driver().OperationalError as error:
                reason = str(error).strip()
            now = time.monotonic()
            ended = now - looked > 0.5 and server.status() is None
            if ended or now > until or not re.search(_NOT_YET, reason):
                raise EnvironmentFailure(
                    f"the server of branch {name} does not come up: {reason}; "
                    f"its last words: {self.supervisor.last_words(name, self.folder(shelf, name))}",
                    hint="run it again, or make the branch anew",
                )
            time.sleep(0.003)

    def _enter(self, shelf: str, name: str, mark: Mark, database: str = MAINTENANCE, *, version: int = 0) -> Connection:
        """A connection as administrator to a branch.

        :arg version: of the server, for a database whose content is its user's.
        """
        settings = _postgres.fixed(version // 10000, superuser=True)
        sockets = self._sockets(name if shelf == LIVE else _beside(name))
        address = _postgres.Address(sockets, mark.port, mark.admin, database)
        return _postgres.connect(address, None, settings=settings)

    def routes(self, store: _stores.Store) -> list[Route]:
        """Those of all branches that are ready."""
        routes = []
        for volume in store.volumes(LIVE):
            mark, name = Mark.of(volume), os.path.basename(volume.name)
            if mark.phase == READY:
                verifier = self.verifier(LIVE, name) or ""
                routes.append(Route(name, self._sockets(name), mark.port, mark.database, mark.user, verifier))
        return routes

    def _sockets(self, name: str) -> str:
        return _services.socket_folder(self.host, name)

    def _verifier_file(self, shelf: str, name: str) -> str:
        return os.path.join(self.folder(shelf, name), "user.scram")


_NOT_YET = "No such file|Connection refused|starting up|not yet accepting|shutting down"


def _lock(name: str) -> str:
    return f"branch-{hashlib.sha256(name.encode()).digest()[0] % 64}"


def _ways_in(mark: Mark) -> tuple[str, str]:
    """Clients through PgBouncer and the probe over the socket, and clients on this machine at the branch's own port."""
    database, user, probe = (_hba.quoted(name) for name in (mark.database, mark.user, PROBE))
    return (
        f"local {database} {user},{probe} scram-sha-256",
        f"host {database} {user} 127.0.0.1/32 scram-sha-256",
    )


def _own_text(path: str) -> str:
    """The text of a file among data in which the system user of the branches may have put a link to another's file.

    :raises EnvironmentFailure: it is no file.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot read {path}: {error.strerror}", hint="somebody has changed it: make the branch anew"
        ) from error


def _check_is_whole(data: str) -> None:
    """Refuse data of which a part lies elsewhere, where a server on the copy would write into the source.

    :raises EnvironmentFailure: with that part.
    """
    spaces = os.path.join(data, "pg_tblspc")
    outside = [path for path in (os.path.join(data, "pg_wal"), spaces) if os.path.islink(path)]
    outside += [os.path.join(spaces, entry) for entry in ([] if spaces in outside else os.listdir(spaces))]
    outside += [path for name in ("standby.signal", "recovery.signal") if os.path.exists(path := f"{data}/{name}")]
    if outside:
        raise EnvironmentFailure(
            f"a branch of this would reach into its source: {', '.join(outside)}",
            hint="refresh the golden that it is made of",
        )


def _rows(connection: Connection, query: str, **values: t.Any) -> list[tuple[t.Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        return cursor.fetchall()


def _execute(connection: Connection, *statements: Composable) -> None:
    """All of it as one transaction, which a crash of the server does not undo."""
    text = "; ".join(statement.as_string(connection) for statement in (compose(KEPT), *statements))
    with connection.cursor() as cursor:
        try:
            cursor.execute(text)
        except _postgres.driver().Error as error:
            raise EnvironmentFailure(f"the server of the branch refuses its user: {str(error).strip()}") from error


def _others(mark: Mark, roles: t.Mapping[str, bool]) -> list[str]:
    """The roles that came with a copy and could log in."""
    return [role for role, can_log_in in roles.items() if can_log_in and role not in (mark.admin, mark.user, PROBE)]


def _grants(mark: Mark, roles: t.Mapping[str, bool], verifier: str, probe: str) -> t.Iterator[Composable]:
    """The user's role, the probe's, and an end to all other ways in."""
    for role in _others(mark, roles):
        yield compose("alter role {} nologin password null", role)
    if mark.user not in roles:
        yield compose("create role {}", mark.user)
    yield compose("alter role {} login password {secret}", mark.user, secret=verifier)
    yield compose("grant {} to {}", mark.owner_role, mark.user)
    yield compose("alter role {} set role = {}", mark.user, mark.owner_role)
    if PROBE not in roles:
        yield compose("create role {}", PROBE)
    yield compose("alter role {} login password {secret}", PROBE, secret=probe)
    yield compose("grant connect on database {} to {}, {}", mark.database, mark.user, PROBE)


# What the timer and the start of the machine do


def up(host: Host) -> list[str]:
    """Bring all branches back, as after a reboot.

    :raises EnvironmentFailure: some do not come; the others have.
    """
    work = Work(host, check=False)
    failed = _each(work, _start_one)
    work.pooler.start()
    with work.locked() as store:
        if work.pooler.write(work.routes(store)):
            work.pooler.reload()
    _tell(failed)
    return work.actions


def _start_one(work: Work, name: str) -> None:
    volume = work.recover(name)
    if volume is None or (mark := Mark.of(volume)).phase != READY:
        return
    folder, word = work.folder(LIVE, name), "start"
    if not work.is_configured(name, mark):  # as where an older version of this collection has set the host up
        word = "restart"
        work.supervisor.stop(name, folder)
        work.configure(LIVE, name, mark)
    if not work.is_running(name):
        work.act(f"{word} the server of branch {name}", functools.partial(work.supervisor.start, name, folder))


def sweep(host: Host) -> list[str]:
    """Remove branches that nobody has used for as long as they allow, and what killed runs have left.

    :raises EnvironmentFailure: some cannot be removed; the others have been.
    """
    work = Work(host, check=False)
    with work.pool() as (store, _volumes):
        store.tidy()
    _tell(_each(work, _sweep_one))
    return work.actions


def _each(work: Work, act: t.Callable[[Work, str], None]) -> list[str]:
    """Do something with every branch, whatever becomes of the others; tells what went wrong."""
    failed = []
    for name in work.names():
        try:
            with work.alone(name):
                act(work, name)
        except WorktreesError as error:
            failed.append(f"branch {name}: {error.message}")
    return failed


def _tell(failed: list[str]) -> None:
    if failed:
        raise EnvironmentFailure("\n".join(failed), hint=SEE)


def _sweep_one(work: Work, name: str) -> None:
    volume = work.recover(name)
    if volume is None:
        return
    mark, elapsed = Mark.of(volume), work.host.elapsed(check=work.check)
    if mark.phase != READY:
        if elapsed.since(mark.created) > HALF_MADE_SECONDS or mark.phase == REMOVING:
            work.unroute(name)
            work.discard(LIVE, name, f"remove branch {name}, which a killed run has left")
        return
    if mark.expires is None or mark.protected:
        return
    seen = dataclasses.replace(mark, last_used=min(mark.last_used, elapsed.moment.wall))  # the clock may be set back
    if work.is_running(name):
        try:
            seen = work.seen_used(name, seen)
        except EnvironmentFailure:
            return
    if seen != mark:
        work.mark(LIVE, name, seen)
    if elapsed.since(seen.last_used) > mark.expires:
        idle = f"{mark.expires:g} s"
        with contextlib.suppress(UserError):  # others stand on it
            _remove(work, name, seen, f"remove branch {name}, which nobody has used for {idle}")


def main(arguments: t.Sequence[str]) -> int:
    """``sweep`` or ``up``, for the timer and the start of the machine; tells what was done."""
    verbs = {"sweep": sweep, "up": up}
    if len(arguments) != 1 or arguments[0] not in verbs:
        sys.stderr.write(f"usage: python3 -m parallel_worktrees._branches {'|'.join(verbs)}\n")
        return 2
    try:
        actions = verbs[arguments[0]](_db_host.load())
    except WorktreesError as error:
        sys.stderr.write(f"{error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 1
    sys.stdout.write(json.dumps(actions) + "\n" if actions else "")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
