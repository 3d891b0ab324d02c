# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's databases in a PostgreSQL server that others use as well.

Private to this collection: may change without notice.

A task has one role, which owns its databases and alone may connect to them. The comment on the role is the mark of
ownership, of the role and of each database that it owns:

    on the role        {"owner": <mark>, "creating": [<names>]}    with the databases that are not complete
    on a puller        {"pulls_for": <mark>}                       a role that lives as long as a pull

Only an administrator can comment on a role, or make it the owner of a database. What its owner can change, such as the
comment on a database, says nothing here. What a killed run left half made is named by the role: it is dropped and made
anew.

What is pulled has data that nobody is to see before they are masked. It is built aside, under another name, and belongs
to a puller, for the owner of a database lets himself in. At the end it becomes the task's, and is renamed, in one
transaction with its marks; the one in whose place it comes, if any, takes the other name, is a half-made one from then
on, and is dropped.

Runs for one role queue at an advisory lock. The server holds it until our connection's last socket is closed, and
through a statement whose asker was killed; pg_restore inherits the socket. So who has the lock is alone at work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import secrets
import typing as t

from . import _extensions, _pg_pull, _pg_server, _postgres, _secrets, _written
from ._door import Params, Result
from ._errors import EnvironmentFailure, PartialFailure, UserError, WorktreesError
from ._pg_dumps import Dump
from ._pg_pull import Pull, Source
from ._pg_server import EXTENSIONS, Journal, Server, administration, carry_out, compose

if t.TYPE_CHECKING:
    from psycopg2.sql import Composable

ARGUMENT_SPEC: dict[str, t.Any] = {
    "databases": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "template": {"type": "str"},
            "dump": {"type": "path"},
            "extensions": {"type": "list", "elements": "str", "default": []},
            "connection_limit": {"type": "int"},
            "strategy": {"type": "str", "choices": _pg_server.STRATEGIES, "default": "auto"},
            "pull": _pg_pull.OPTION,
        },
    },
    "pull_again": {"type": "bool", "default": False},
    "owner": {"type": "str", "required": True},
    "role": {"type": "str", "required": True},
    "password_file": {"type": "path", "no_log": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "protected": {"type": "list", "elements": "str", "default": []},
    **_pg_server.ARGUMENT_SPEC,
}

PROTECTED = {"postgres", "template0", "template1"}

IDENTITY = _postgres.IDENTITY_SETTING.split(".")

PUBLIC_SINCE = 150000
"""The version since which the schema ``public`` is the database's owner's."""

INVALID = -2
"""The connection limit by which PostgreSQL marks a database whose removal was interrupted."""

FULL = "too many (connections|clients)|slots are reserved"
"""What a task is told whose own sessions, or others', take all the connections that there are."""

ROLES = "select rolname, shobj_description(oid, 'pg_authid') from pg_roles order by 1"
PULLER = "select from pg_roles where rolname = %(name)s and shobj_description(oid, 'pg_authid') = %(mark)s"
ROLE = "select oid, shobj_description(oid, 'pg_authid'), rolconnlimit from pg_roles where rolname = %(name)s"

OWNED = "select from pg_database where datdba = %(role)s"

DATABASES = """
select d.oid, d.datname, r.rolname, shobj_description(r.oid, 'pg_authid'),
    d.datallowconn, d.datconnlimit, s.setconfig,
    exists (
        select from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba)))
        where grantee = 0 and privilege_type = 'CONNECT'
    )
from pg_database d
join pg_roles r on r.oid = d.datdba
left join pg_db_role_setting s on s.setdatabase = d.oid and s.setrole = 0
where %(names)s::text[] is null or d.datname = any(%(names)s)
order by d.datname
"""

REPLICATION = """
select d.datname, format('subscription %%s', subname) from pg_subscription s join pg_database d on d.oid = s.subdbid
where d.datname = any(%(names)s)
union all
select database, format('replication slot %%s', slot_name) from pg_replication_slots
where database = any(%(names)s) and active
"""

BELONGINGS = """
select distinct coalesce('something in database ' || d.datname, pg_describe_object(s.classid, s.objid, 0))
from pg_shdepend s left join pg_database d on d.oid = s.dbid
where s.refclassid = 'pg_authid'::regclass and s.refobjid = %(role)s
    and s.dbid <> all(%(gone)s::oid[])
    and not (s.classid = 'pg_database'::regclass and s.objid = any(%(gone)s::oid[]))
order by 1
"""


# What is asked


@dataclasses.dataclass(frozen=True)
class Wish:
    """One database as it is asked for.

    :ivar asked: its name before it was made to fit.
    """

    asked: str
    name: str
    template: str | None
    dump: str | None
    extensions: tuple[str, ...]
    connection_limit: int
    strategy: str
    pull: Pull | None

    @classmethod
    def of(cls, given: dict[str, t.Any]) -> Wish:
        """
        :raises UserError: it is nothing that a database could be.
        """
        name, limit = _name("database", given["name"]), given["connection_limit"]
        if limit is not None and limit < 1:
            raise UserError(f"database {name}: connection_limit is {limit}, and has to be 1 or more")
        for other in ("template", "dump"):
            if given["pull"] and given[other]:
                raise UserError(f"database {name}: it begins with a pull or with a {other}, not with both")
        return cls(
            asked=given["name"],
            name=name,
            template=given["template"] and _postgres.fit_name(given["template"]),
            dump=given["dump"],
            extensions=tuple(sorted({*given["extensions"]})),
            connection_limit=_pg_server.NO_LIMIT if limit is None else limit,
            strategy=given["strategy"],
            pull=given["pull"] and Pull.of(given["pull"]),
        )

    @property
    def aside(self) -> str:
        """The name under which a pull is built."""
        return _postgres.fit_name(f"{self.name} (pulled)")


@dataclasses.dataclass(frozen=True)
class Task:
    """Whose databases are asked for, and where."""

    owner: str
    role: str
    wishes: tuple[Wish, ...]
    pull_again: bool
    password_file: str | None
    host: str
    port: int
    timeout: float

    @classmethod
    def of(cls, params: Params) -> Task:
        """
        :raises UserError: two databases have one name, or one is not to be touched.
        """
        wishes = tuple(Wish.of(given) for given in params["databases"])
        names = [wish.name for wish in wishes]
        protected = {*PROTECTED, params["maintenance_database"], *map(_postgres.fit_name, params["protected"])}
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"database {name} is named twice")
            if name in protected:
                raise UserError(
                    f"database {name} is protected: a task neither has it nor drops it",
                    hint="choose another name for the task's",
                )
        if params["state"] == "present" and not (wishes and params["password_file"]):
            raise UserError("state=present needs databases and password_file")
        return cls(
            owner=params["owner"],
            role=_name("role", params["role"]),
            wishes=wishes,
            pull_again=params["pull_again"],
            password_file=params["password_file"],
            host=params["host"],
            port=params["port"],
            timeout=params["timeout"],
        )

    @property
    def names(self) -> list[str]:
        return [wish.name for wish in self.wishes]

    @property
    def puller(self) -> str:
        return _postgres.fit_name(f"{self.role} (pulling)")

    @property
    def puller_mark(self) -> str:
        return json.dumps({"pulls_for": self.owner})

    def address(self, wish: Wish) -> _postgres.Address:
        return _postgres.Address(self.host, self.port, self.role, wish.name)

    def facts(self) -> Result:
        """What the task is told of its databases."""
        facts = {wish.asked: self.address(wish).facts("shared", self.password_file) for wish in self.wishes}
        return {"database": next(iter(facts.values())), "databases": facts}

    def password(self, *, check: bool) -> tuple[str, bool]:
        """The role's password, an empty one where check mode may not make it; and whether it was there before."""
        path = t.cast("str", self.password_file)
        is_old = os.path.exists(path)
        return "" if check and not is_old else _secrets.ensure(path), is_old

    def mark(self, creating: t.Sequence[str] = ()) -> str:
        """The comment that makes a role and its databases ours, with the names of those that are not complete."""
        return json.dumps({"owner": self.owner, **({"creating": creating} if creating else {})})


def _name(kind: str, asked: str) -> str:
    name = _postgres.fit_name(asked)
    _postgres.check_name(kind, name)
    return name


# What is there


@dataclasses.dataclass(frozen=True)
class Role:
    """
    :ivar creating: names of databases that are not complete.
    """

    oid: int
    owner: str | None
    creating: tuple[str, ...]
    connection_limit: int


@dataclasses.dataclass(frozen=True)
class Found:
    """A database that is there.

    :ivar owner: the mark of the task that it is made for.
    :ivar ready: whether it is complete.
    :ivar open: whether it takes connections at all.
    :ivar private: whether nobody but its role may connect.
    :ivar identity: what it says of itself.
    """

    oid: int
    name: str
    role: str
    owner: str | None
    ready: bool
    open: bool
    connection_limit: int
    private: bool
    identity: str | None

    @classmethod
    def of(cls, row: tuple[t.Any, ...]) -> Found:
        oid, name, role, role_comment, is_open, limit, settings, public = row
        mark = _read_mark(role_comment)
        prefix = f"{_postgres.IDENTITY_SETTING}="
        return cls(
            oid=oid,
            name=name,
            role=role,
            # What a puller has is unmasked, so it is his alone until the end.
            owner=mark.get("owner", mark.get("pulls_for")),
            ready=name not in mark.get("creating", ()) and "pulls_for" not in mark and limit != INVALID,
            open=is_open,
            connection_limit=limit,
            private=not public,
            identity=next((one.removeprefix(prefix) for one in settings or () if one.startswith(prefix)), None),
        )

    def state(self) -> dict[str, t.Any]:
        told = ("role", "ready", "open", "connection_limit", "private", "identity")
        return {key: getattr(self, key) for key in told}


def _read_mark(comment: str | None) -> dict[str, t.Any]:
    """The mark in a comment; an empty one where a person wrote it."""
    try:
        mark = json.loads(comment or "{}")
    except ValueError:
        return {}
    return mark if isinstance(mark, dict) else {}


def _role(server: Server, name: str) -> Role | None:
    for oid, comment, limit in server.rows(ROLE, name=name):
        mark = _read_mark(comment)
        return Role(oid, mark.get("owner"), tuple(mark.get("creating", ())), limit)
    return None


def _databases(server: Server, names: list[str] | None = None) -> dict[str, Found]:
    """Those of these names that are there, or all."""
    return {row[1]: Found.of(row) for row in server.rows(DATABASES, names=names)}


def is_complete(server: Server, name: str) -> bool:
    """Whether a task has a database of this name."""
    found = _databases(server, [name]).get(name)
    return found is not None and found.owner is not None and found.ready


def _asked_for(server: Server, task: Task) -> dict[str, Found]:
    """The task's databases that are there, and what a killed run left aside of them."""
    there = _databases(server, [*task.names, *(wish.aside for wish in task.wishes)])
    return {name: one for name, one in there.items() if name in task.names or not one.ready}


def facts(params: Params) -> Result:
    """What a task is going to be told of its databases; the server is not asked."""
    return Task.of(params).facts()


def marked(params: Params) -> list[dict[str, t.Any]]:
    """What tasks have in a server, by role: ``role``, its ``owner``, and the names of its ``databases``.

    :arg params: those of ``_pg_server.ARGUMENT_SPEC``.
    """
    with administration(params, Journal(check=True)) as server:
        databases = _databases(server).values()
        roles = [(name, _read_mark(comment).get("owner")) for name, comment in server.rows(ROLES)]
    return [
        {
            "role": role,
            "owner": owner,
            "databases": [one.name for one in databases if (one.role, one.owner) == (role, owner)],
        }
        for role, owner in roles
        if owner is not None
    ]


# The operation


def operation(params: Params, *, check: bool) -> Result:
    """Give a task its databases in a server, or remove them."""
    task = Task.of(params)
    act = _present if params["state"] == "present" else _absent
    where = f"role {task.role}"
    header = f"{where} at {task.host}:{task.port}"
    return carry_out(params, functools.partial(act, task), check=check, lock=where, header=header)


def _present(task: Task, server: Server) -> Result:
    check = server.journal.check
    role, found = _role(server, task.role), _asked_for(server, task)
    _check_are_ours(task, server, role, found)
    complete = [wish for wish in task.wishes if wish.name in found and found[wish.name].ready]
    replaced = [wish for wish in complete if wish.pull and (task.pull_again or _lacks_data(server, wish, found))]
    _check_can_go(server, [found[wish.name] for wish in replaced])
    kept = [wish for wish in complete if wish not in replaced]
    new = {wish: _plan(server, wish) for wish in task.wishes if wish not in kept}
    if new:
        _check_room(server, task, role, list(new))
    password, is_old = task.password(check=check)
    refusals = {wish: _refusal(task.address(wish), password) if is_old else "the password is new" for wish in complete}
    after = {wish.name: _wished(server, task, wish) for wish in task.wishes}
    after |= {wish.name: after[wish.name] | {"data": plan.source.where} for wish, plan in new.items() if plan.source}
    left = [one.name for one in found.values() if not one.ready]
    changing = [*left, *(wish.name for wish in replaced)]
    before: dict[str, t.Any] = {name: found[name].state() for name in changing}
    for wish in kept:
        state = found[wish.name].state()
        state |= {"extensions": _made(server, wish, found[wish.name]), "lets_in": refusals[wish] is None}
        before[wish.name] = {key: state[key] for key in after[wish.name]}
        server.check_extensions({*wish.extensions}.difference(state["extensions"]))
    server.journal.state({"role": role and task.role, "databases": before}, {"role": task.role, "databases": after})

    for name in left:
        server.drop(name, task.timeout, ", which is half made")
    _drop_puller(server, task)
    if not check:
        _pg_pull.forget(t.cast("str", task.password_file))
    creating = [wish.aside if plan.source else wish.name for wish, plan in new.items()]
    creating += [name for name in (role.creating if role else ()) if name not in {*creating, *task.names, *left}]
    if not complete or any(refusals.values()):
        _give_password(server, task, password, creating, new_role=role is None)
    elif new or left:
        server.act(None, _marked(task, creating))
    made: list[str] = []
    for wish, plan in new.items():
        creating = creating[1:]
        try:
            if plan.source is None:
                _make(server, task, wish, plan, password, creating)
            else:
                _pull(server, task, wish, plan, plan.source, creating, replace=wish in replaced)
        except WorktreesError as error:
            if not made:
                raise
            raise PartialFailure(f"{error.message} (made: {', '.join(made)})", hint=error.hint, changed=True) from error
        made.append(wish.name)
    for wish in kept:
        _converge(server, task, wish, before[wish.name], after[wish.name], password)
    if not check:
        _check_lets_in(server, task, [wish for wish in task.wishes if wish in new or refusals[wish]], password)
    return task.facts()


def _lacks_data(server: Server, wish: Wish, found: t.Mapping[str, Found]) -> bool:
    """Whether a database is as empty as it was made, and what it is to begin with is not."""
    return bool(wish.pull and found[wish.name].open and server.is_empty(wish.name) and wish.pull.look().count)


def _absent(task: Task, server: Server) -> Result:
    role, found = _role(server, task.role), _asked_for(server, task)
    _check_are_ours(task, server, role, found)
    _check_can_go(server, list(found.values()))
    gone = [one.oid for one in found.values()]
    rest = [what for (what,) in server.rows(BELONGINGS, role=role.oid, gone=gone)] if role else []
    state: dict[str, t.Any] = {"role": role and task.role, "databases": {n: one.state() for n, one in found.items()}}
    end: dict[str, t.Any] = {"role": task.role if rest else None, "databases": {}}
    forgotten = task.password_file if task.password_file and not rest and os.path.lexists(task.password_file) else None
    if forgotten:
        state["password_file"] = forgotten
    server.journal.state(state, end)

    for name in found:
        server.drop(name, task.timeout)
    _drop_puller(server, task)
    if task.password_file and not server.journal.check:
        _pg_pull.forget(task.password_file)
    if role and not rest:
        server.act(f"drop role {task.role}", compose("drop role {}", task.role))
    elif role and not server.journal.check:
        server.act(None, compose("alter role {} nologin password null", task.role))
    if forgotten:
        server.act(f"remove {forgotten}")
        if not server.journal.check:
            os.unlink(forgotten)
    return {"left": _kept_role(server, task.role, rest)} if rest else {"left": []}


def _kept_role(server: Server, role: str, belongings: list[str]) -> list[str]:
    """Why a role stays, and how an administrator removes it."""
    quoted = compose("{}", role).as_string(server.connection)
    stays = f"role {role} at {server.where} stays, without a login: it has {', '.join(belongings)}"
    return [f"{stays}; an administrator removes them there: drop owned by {quoted}; then the role: drop role {quoted}"]


def _check_are_ours(task: Task, server: Server, role: Role | None, found: dict[str, Found]) -> None:
    """
    :raises UserError: the role, or a database, is somebody else's.
    """
    things = [(f"role {task.role}", role.owner)] if role else []
    things += [(f"database {one.name} of role {one.role}", one.owner) for one in found.values()]
    for thing, owner in things:
        if owner != task.owner:
            whose = f"belongs to {owner}, not to {task.owner}" if owner else "is there, and was made for no task"
            raise UserError(
                f"{thing} at {server.where} {whose}", hint="choose another name, or let its owner remove it"
            )
    for one in found.values():
        if one.role not in (task.role, task.puller):
            raise UserError(
                f"database {one.name} was made for role {one.role}, not for {task.role}, "
                "and to make it anew would lose its data",
                hint="tear the task down and provision it again, or ask for what is there",
            )


def _check_can_go(server: Server, found: list[Found]) -> None:
    """
    :raises UserError: a database is replicated.
    """
    for name, what in server.rows(REPLICATION, names=[one.name for one in found]):
        raise UserError(
            f"database {name} at {server.where} is replicated: {what} is in use",
            hint="end the subscription (alter subscription .. disable, drop subscription ..), or who reads the slot",
        )


def _check_room(server: Server, task: Task, role: Role | None, new: list[Wish]) -> None:
    """Refuse databases that nobody could connect to."""
    places = server.places()
    for wish in new:
        if wish.connection_limit > places:
            raise UserError(
                f"database {wish.name}: connection_limit is {wish.connection_limit}, "
                f"and the server at {server.where} has {places} connections for all",
                hint="ask for fewer, or raise max_connections of the server",
            )
    server.check_room(places, len(new))
    if role and role.connection_limit != _pg_server.NO_LIMIT:
        server.check_room(role.connection_limit, len(new), task.role)


def _wished(server: Server, task: Task, wish: Wish) -> dict[str, t.Any]:
    """How a database is going to be; only a superuser can give it its identity."""
    return {
        "role": task.role,
        "ready": True,
        "open": True,
        "connection_limit": wish.connection_limit,
        "private": True,
        **({"identity": wish.name} if server.is_superuser else {}),
        "extensions": list(wish.extensions),
        "lets_in": True,
    }


def _made(server: Server, wish: Wish, found: Found) -> list[str]:
    """Which of the extensions that are asked for a database has, as far as one can look into it."""
    if not (wish.extensions and found.open):
        return []
    return sorted(server.extensions(wish.name).intersection(wish.extensions))


def _refusal(address: _postgres.Address, password: str) -> str | None:
    """Why a task does not get into its database; None where it does, or would if there were not so many in it."""
    try:
        _postgres.connect(address, password).close()
    except _postgres.driver().OperationalError as error:
        reason = str(error).strip()
        return None if re.search(FULL, reason) else reason
    return None


def _check_lets_in(server: Server, task: Task, wishes: list[Wish], password: str) -> None:
    """
    :raises EnvironmentFailure: the task does not get into one of its databases.
    """
    for wish in wishes:
        if reason := _refusal(task.address(wish), password):
            raise EnvironmentFailure(
                f"role {task.role} does not get into database {wish.name} at {server.where}: {reason}",
                hint="the server's pg_hba.conf has to let roles in with a password, for example: "
                "host all all 127.0.0.1/32 scram-sha-256",
            )


# Making


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a database is going to be made."""

    strategy: str
    dump: Dump | None
    source: Source | None


def _plan(server: Server, wish: Wish) -> Plan:
    """Look whether a database can be made, and how.

    :raises UserError: the server has no such template, extension or strategy, or there is no such dump or source.
    :raises EnvironmentFailure: the template is in use, or the dump or the source cannot be read here.
    """
    if wish.template is not None:
        template = _databases(server, [wish.template]).get(wish.template)
        if template is None:
            raise UserError(
                f"database {wish.name}: there is no template {wish.template} at {server.where}",
                hint="see what there is: psql --list",
            )
        if not template.ready:
            raise EnvironmentFailure(
                f"database {wish.name}: its template {wish.template} at {server.where} is half made",
                hint="provision the task that it belongs to again",
            )
        if server.journal.check:  # PostgreSQL gives them five seconds to leave, so the real run has to try
            server.check_nobody_is_in(wish.template)
    server.check_extensions(wish.extensions)
    strategy = server.strategy(wish.strategy, wish.template)
    dump = None if wish.dump is None else Dump.of(wish.dump, server.major)
    source = None if wish.pull is None else wish.pull.look()
    if source is not None:
        source.check_fits(server, wish.extensions, as_superuser=False)
    return Plan(strategy, dump, source)


def _give_password(server: Server, task: Task, password: str, creating: list[str], *, new_role: bool) -> None:
    """Make the role, or give it its password again, and note what is being made for it."""
    verifier = server.journal.secret = _postgres.scram_verifier(password)
    verb, action = ("create", "create role") if new_role else ("alter", "set the password of role")
    # Who is no superuser can give a database only to a role that he is a member of.
    joining = [compose("grant {} to current_user", task.role)] if new_role and not server.is_superuser else []
    server.act(
        f"{action} {task.role}",
        compose(verb + " role {} login password {verifier}", task.role, verifier=verifier),
        *joining,
        _marked(task, creating),
    )


def _make(server: Server, task: Task, wish: Wish, plan: Plan, password: str, creating: list[str]) -> None:
    """Make a database and fill it; its mark comes last.

    :arg creating: what is still to be made after it.
    """
    check = server.journal.check
    server.create(wish.name, task.role, wish.template, plan.strategy)
    with _dropped_on_failure(server, task, wish.name):
        settled = _settled(server, task, wish)
        if not server.is_superuser:  # to whom the limit of new databases applies
            server.act(None, *settled)
        names = _prepare(server, task, wish)
        if server.is_superuser:
            server.act(None, *settled)
        _extensions.create_as_owner(server, task.address(wish), password, names)
        if plan.dump is not None:
            server.journal.begin(f"restore {wish.dump} into database {wish.name}")
            if not check:
                limit = None if wish.connection_limit == _pg_server.NO_LIMIT else wish.connection_limit
                keep = (server.connection.fileno(),)
                plan.dump.restore(task.address(wish), password, connections=limit, keep=keep)
        _written.start(server, wish.name)
    server.act(None, _marked(task, creating))


def _pull(
    server: Server, task: Task, wish: Wish, plan: Plan, source: Source, creating: list[str], *, replace: bool
) -> None:
    """Build a database aside from a source, and rename it when it is masked.

    :arg creating: what is still to be made after it.
    :arg replace: whether it comes in the place of one that is there.
    """
    password = secrets.token_hex(16)
    verifier = server.journal.secret = _postgres.scram_verifier(password)
    with _dropped_on_failure(server, task, wish.aside):
        server.act(
            None,
            compose("create role {} login password {verifier}", task.puller, verifier=verifier),
            compose("comment on role {} is {mark}", task.puller, mark=task.puller_mark),
            # Who is no superuser can act only for a role that he is a member of.
            *([] if server.is_superuser else [compose("grant {} to current_user", task.puller)]),
        )
        server.create(wish.aside, task.puller, None, plan.strategy)
        server.act(
            None,
            compose("revoke connect on database {} from public", wish.aside),
            compose("grant connect on database {} to current_user", wish.aside),
            compose("alter database {} connection limit {limit}", wish.aside, limit=_pg_server.NO_LIMIT),
        )
        if wish.extensions or server.version < PUBLIC_SINCE:
            with server.at_work_in(wish.aside) as inside:
                if not server.journal.check:
                    inside.hand_over(task.puller)
                inside.create_extensions(wish.aside, wish.extensions)
        server.journal.begin(source.action(wish.name, server))
        if not server.journal.check:
            source.fill(
                dataclasses.replace(task.address(wish), user=task.puller, database=wish.aside),
                password,
                server=server,
                folder=_pg_pull.folder_of(t.cast("str", task.password_file)),
                keep=(server.connection.fileno(),),
            )
            server.act(None, compose("alter database {} owner to {}", wish.aside, task.role))
            with server.within(wish.aside) as inside:
                inside.take_over(task.puller, task.role)
        _written.start(server, wish.aside)
        server.put_in_place(
            wish.aside,
            wish.name,
            *_settled(server, task, wish),
            compose("revoke connect on database {} from current_user", wish.name),
            compose("drop role {}", task.puller),
            _marked(task, [wish.aside, *creating] if replace else creating),
            old=[] if replace else None,
            timeout=task.timeout,
        )
    if replace:
        server.drop(wish.aside, task.timeout, ", which it was until now")
        server.act(None, _marked(task, creating))


@contextlib.contextmanager
def _dropped_on_failure(server: Server, task: Task, name: str) -> t.Iterator[None]:
    """What has failed, for example on a full disk, shall be in nobody's way."""
    try:
        yield
    except Exception:
        if not server.journal.check:
            for drop in (lambda: server.drop(name, task.timeout), lambda: _drop_puller(server, task)):
                with contextlib.suppress(_postgres.driver().Error, EnvironmentFailure):
                    drop()
        raise


def _drop_puller(server: Server, task: Task) -> None:
    if server.rows(PULLER, name=task.puller, mark=task.puller_mark):
        server.act(f"drop role {task.puller}", compose("drop role {}", task.puller))


def _prepare(server: Server, task: Task, wish: Wish) -> list[str]:
    """Make the extensions of a new database, and give what there is in it to the task's role.

    :returns: the extensions that the role makes by itself.
    """
    if not (wish.template or wish.extensions or server.version < PUBLIC_SINCE):
        return []
    with server.at_work_in(wish.name) as inside:
        there = set() if server.journal.check else {name for (name,) in inside.rows(EXTENSIONS)}
        owners, others = _extensions.divided(inside, [name for name in wish.extensions if name not in there])
        _extensions.create_as_admin(inside, wish.name, others)
        # A golden database's role may have to go while copies stay. A task's that is called like it has databases.
        maker = _role(server, wish.template) if wish.template else None
        is_builder = maker is not None and maker.owner is not None and not server.rows(OWNED, role=maker.oid)
        if not server.journal.check and is_builder:
            inside.take_over(t.cast("str", wish.template), task.role)
        elif not server.journal.check:
            inside.hand_over(task.role)
    return owners


def _settled(server: Server, task: Task, wish: Wish) -> list[Composable]:
    """What gives a database that which none gets from its template: rights, limit, identity."""
    identity = compose("alter database {} set {}.{} = {name}", wish.name, *IDENTITY, name=wish.name)
    limit = "alter database {} allow_connections true connection limit {limit}"
    return [
        compose("revoke connect on database {} from public", wish.name),
        compose("grant connect on database {} to {}", wish.name, task.role),
        *([identity] if server.is_superuser else []),
        compose(limit, wish.name, limit=wish.connection_limit),
    ]


def _marked(task: Task, creating: list[str]) -> Composable:
    """What says which databases of a role are not complete."""
    return compose("comment on role {} is {mark}", task.role, mark=task.mark(creating))


def _converge(
    server: Server, task: Task, wish: Wish, before: dict[str, t.Any], after: dict[str, t.Any], password: str
) -> None:
    """Give a complete database what it lacks of what is asked."""
    if any(before[key] != after[key] for key in after if key not in ("extensions", "lets_in")):
        server.act(f"set rights, limit and identity of database {wish.name}", *_settled(server, task, wish))
    missing = sorted({*after["extensions"]}.difference(before["extensions"]))
    if missing:
        owners, others = _extensions.divided(server, missing)
        if others:
            with server.at_work_in(wish.name) as inside:
                _extensions.create_as_admin(inside, wish.name, others)
        _extensions.create_as_owner(server, task.address(wish), password, owners)
