# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leases: a slot per task, and the ports that follow from it.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import socket
import time
import types
import typing as t

from . import _registry, _registry_file
from ._door import Params, Result
from ._errors import UserError
from ._registry import Kept, Registry

HIGHEST_PORT = 65535

ARGUMENT_SPEC: dict[str, t.Any] = {
    "registry": {"type": "path"},
    "workspace": {"type": "str", "required": True},
    "owners": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "renewed", "absent"], "default": "present"},
    "ports": {
        "type": "dict",
        "default": {},
    },
    "slots": {
        "type": "dict",
        "default": {},
        "options": {
            "first": {"type": "int", "default": 1},
            "last": {"type": "int", "default": 99},
            "strategy": {"type": "str", "choices": ["lowest", "hash", "fixed"], "default": "lowest"},
        },
    },
    "slot": {"type": "int"},
    "expires_after": {"type": "int"},
}

TERMS = ("ports", "slots", "slot", "expires_after")
"""What is asked of a lease, whoever its owner is."""


def operation(params: Params, *, check: bool) -> Result:
    """Take or release the leases of several owners, all or none; one that there is is used, so renewed."""
    with _registry.opened(params["registry"], write=not check) as registry:
        return moved(registry, params)


def moved(registry: Registry, params: Params, *, taken: t.Mapping[int, str] | None = None) -> Result:
    """The same within a transaction of the caller's.

    :arg taken: ports that others have, as is known elsewhere, each with whose it is.
    """
    workspace = params["workspace"]
    expired: list[str] = []
    main_ports: dict[str, int] = {}
    before = {owner: _leased(registry, workspace, owner) for owner in params["owners"]}
    if params["state"] == "absent":
        for owner in params["owners"]:
            registry.sql.execute("delete from lease where workspace = ? and owner = ?", (workspace, owner))
        after: dict[str, Lease | None] = dict.fromkeys(before)
    elif params["state"] == "renewed":
        if lacking := [owner for owner, lease in before.items() if not lease]:
            raise UserError(
                f"{', '.join(lacking)} of workspace {workspace} has no lease any more: its time was up, and its "
                "ports may be another's by now",
                hint="run provision again: it leases anew, and writes the new ports where they are named",
            )
        _refuse_no_time(params["expires_after"])
        _renew(registry, workspace, params["owners"], params["expires_after"])
        after = before
    else:
        ports, slots = _checked(params)
        main_ports = {name: port["main"] for name, port in ports.items()}
        _renew(registry, workspace, params["owners"], params["expires_after"])
        if not all(before.values()):
            expired = _end_expired(registry)
        after = {}
        for owner, lease in before.items():
            after[owner] = lease or _take(registry, workspace, owner, ports, slots, params, taken or {})
    # As the registry has them now, with the time at which they end.
    leases = [lease for owner in after if (lease := _leased(registry, workspace, owner))]
    actions, passed_over = list(expired), []
    for owner, lease in after.items():
        former = before[owner]
        if lease and not former:
            told = [f"{owner}: slot {over['slot']} was passed over: {over['reason']}" for over in lease["passed_over"]]
            passed_over += told
            actions += told
            actions.append(f"lease slot {lease['slot']} to {owner}")
        elif former and not lease:
            actions.append(f"release slot {former['slot']} of {owner}")
    is_other = _lines(before) != _lines(after)
    return {
        "changed": is_other,
        "leases": [
            {**lease, "main_ports": {name: main for name, main in main_ports.items() if name in lease["ports"]}}
            for lease in leases
        ],
        "actions": actions,
        "summary": "".join(line + "\n" for line in expired + passed_over) or None,
        "diff": [
            {"before_header": "leases", "after_header": "leases", "before": _lines(before), "after": _lines(after)}
        ]
        if is_other
        else [],
    }


class Lease(t.TypedDict):
    """A slot that is held: by whom, the ports that follow, and which slots were wanted but not free.

    ``expires`` is when it ends unless it is used before, in seconds since the epoch.
    """

    owner: str
    slot: int
    ports: dict[str, int]
    passed_over: list[dict[str, t.Any]]
    expires: float | None


class Port(t.TypedDict):
    """How the numbers of a named port follow from slots, ``base + slot * stride``, and the main tree's own number."""

    base: int
    stride: int
    main: int


class Slots(t.TypedDict):
    """The slots of a workspace, ``first`` to ``last``, and the order in which they are tried."""

    first: int
    last: int
    strategy: str


def _lines(leases: dict[str, Lease | None]) -> str:
    held = [lease for lease in leases.values() if lease]
    return "".join(
        f"{lease['owner']}: slot {lease['slot']}"
        + "".join(f", {name} {number}" for name, number in lease["ports"].items())
        + "\n"
        for lease in held
    )


def _checked(params: Params) -> tuple[dict[str, Port], Slots]:
    """The ports and slots that a workspace asks for, refused where a port would leave the range of TCP."""
    slots = t.cast(Slots, {"first": 1, "last": 99, "strategy": "lowest", **(params["slots"] or {})})
    if not 0 <= slots["first"] <= slots["last"]:
        raise UserError(
            f"lease_slots go from {slots['first']} to {slots['last']}, which is no range",
            hint="from a first to a last one: {first: 1, last: 99}",
        )
    ports: dict[str, Port] = {}
    for name, given in (params["ports"] or {}).items():
        if not isinstance(given, dict) or not set(given) <= {"base", "stride", "main"} or "base" not in given:
            raise UserError(
                f"lease_ports.{name} is {given!r}",
                hint="give it a base, and where they differ from 1 and from base, a stride and main",
            )
        try:
            base = int(given["base"])
            port = Port(base=base, stride=int(given.get("stride", 1)), main=int(given.get("main", base)))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"lease_ports.{name} is {given!r}, and base, stride and main are whole numbers",
                hint="write it as {base: 15432, stride: 1}",
            ) from error
        for slot in (slots["first"], slots["last"]):
            number = port["base"] + slot * port["stride"]
            if not 1 <= number <= HIGHEST_PORT:
                raise UserError(
                    f"lease_ports.{name} of slot {slot} would be {number}, and ports go from 1 to {HIGHEST_PORT}",
                    hint="change its base or stride, or lease_slots.last",
                )
        if twin := next((other for other, it in ports.items() if _step(it) == _step(port)), None):
            raise UserError(
                f"lease_ports.{twin} and lease_ports.{name} would be one number in every slot",
                hint="give each a base of its own",
            )
        ports[name] = port
    _refuse_no_time(params["expires_after"])
    return ports, slots


def _refuse_no_time(seconds: int | None) -> None:
    if seconds is not None and seconds < 1:
        raise UserError(
            f"lease_expires_after is {seconds}, and a lease lasts a second or more",
            hint="leave it out for one that does not end",
        )


def _step(port: Port) -> tuple[int, int]:
    return port["base"], port["stride"]


def _renew(registry: _registry.Registry, workspace: str, owners: t.Sequence[str], seconds: int | None) -> None:
    """Have the leases last from now on, as long as this call says or, where it says nothing, as they did."""
    for owner in owners:
        registry.sql.execute(
            "update lease set seconds = coalesce(?1, seconds), expires = ?2 + coalesce(?1, seconds)"
            " where workspace = ?3 and owner = ?4",
            (seconds, time.time(), workspace, owner),
        )


def _end_expired(registry: _registry.Registry) -> list[str]:
    """Release every lease that has ended, of any workspace, and tell which."""
    now = time.time()
    ended = registry.sql.execute("select workspace, owner, slot from lease where expires < ?", (now,)).fetchall()
    registry.sql.execute("delete from lease where expires < ?", (now,))
    return [
        f"slot {one['slot']} of {one['owner']} ({one['workspace']}) was free again: its time was up" for one in ended
    ]


def _leased(registry: _registry.Registry, workspace: str, owner: str) -> Lease | None:
    found = registry.sql.execute(
        "select slot, passed_over, expires from lease where workspace = ? and owner = ?", (workspace, owner)
    ).fetchone()
    if found is None:
        return None
    ports = registry.sql.execute(
        "select name, number from port where workspace = ? and owner = ? order by number", (workspace, owner)
    )
    try:
        return Lease(
            owner=owner,
            slot=int(found["slot"]),
            ports=dict(map(tuple, ports)),
            passed_over=json.loads(found["passed_over"]),
            expires=None if found["expires"] is None else float(found["expires"]),
        )
    except (TypeError, ValueError) as error:
        raise _registry_file.malformed(f"its lease of {owner}") from error


def all_leases(registry: _registry.Registry) -> dict[tuple[str, str], Lease]:
    """Every lease of the machine, by workspace and owner."""
    owners = registry.sql.execute("select workspace, owner from lease").fetchall()
    return {
        (row["workspace"], row["owner"]): t.cast(Lease, _leased(registry, row["workspace"], row["owner"]))
        for row in owners
    }


def _take(
    registry: _registry.Registry,
    workspace: str,
    owner: str,
    ports: dict[str, Port],
    slots: Slots,
    params: Params,
    taken: t.Mapping[int, str],
) -> Lease:
    passed_over: list[dict[str, t.Any]] = []
    fixed, seconds = params["slot"], params["expires_after"]
    kept = {one.slot: one for one in registry.kept(workspace).values() if one.slot is not None}
    for slot in _candidates(owner, slots, fixed, kept):
        numbers = {name: port["base"] + slot * port["stride"] for name, port in ports.items()}
        reason = _occupied(registry, workspace, slot, numbers, taken, owner, kept.get(slot))
        if reason is None:
            break
        if slots["strategy"] != "lowest" or "slot is held" not in reason:
            passed_over.append({"slot": slot, "reason": reason})
    else:
        raise _none_left(registry, workspace, owner, slots, fixed, passed_over)
    registry.sql.execute(
        "insert into lease (workspace, owner, slot, created, seconds, expires, passed_over)"
        " values (?1, ?2, ?3, ?4, ?5, ?4 + ?5, ?6)",
        (workspace, owner, slot, time.time(), seconds, json.dumps(passed_over)),
    )
    registry.sql.executemany(
        "insert into port (number, name, workspace, owner) values (?, ?, ?, ?)",
        [(number, name, workspace, owner) for name, number in numbers.items()],
    )
    return t.cast(Lease, _leased(registry, workspace, owner))


def _candidates(
    owner: str, slots: Slots, fixed: int | None, kept: t.Mapping[int, Kept] = types.MappingProxyType({})
) -> list[int]:
    """The slots to try, in order; first that of the database that was kept of a task of this name."""
    every = list(range(slots["first"], slots["last"] + 1))
    if slots["strategy"] == "fixed" or fixed is not None:
        if fixed not in every:
            raise UserError(
                f"slot {fixed} for {owner} is not one of {slots['first']} to {slots['last']}",
                hint="name one: -e lease_slot=3",
            )
        return [fixed]
    own = [slot for slot, one in kept.items() if one.name == owner and slot in every]
    if own:
        return own + [slot for slot in every if slot not in own]
    if slots["strategy"] == "hash":
        start = int.from_bytes(hashlib.sha256(owner.encode()).digest(), "big") % len(every)
        return every[start:] + every[:start]
    return every


def _occupied(
    registry: _registry.Registry,
    workspace: str,
    slot: int,
    numbers: dict[str, int],
    elsewhere: t.Mapping[int, str],
    owner: str,
    kept: Kept | None,
) -> str | None:
    """Why a slot cannot be given, or None where it can.

    :arg kept: the database that was kept with the slot, and may listen on a port of it.
    """
    held = registry.sql.execute(
        "select owner from lease where workspace = ? and slot = ?", (workspace, slot)
    ).fetchone()
    if held:
        return f"the slot is held by {held['owner']}"
    if kept and kept.name != owner:
        return f"the slot stays with the database that was kept of {kept.name}"
    for name, number in numbers.items():
        if twin := next((other for other, its in numbers.items() if other != name and its == number), None):
            return f"port {number} would be both {name} and {twin}"
        taken = registry.sql.execute("select workspace, owner from port where number = ?", (number,)).fetchone()
        if taken:
            return f"port {number} ({name}) is leased to {taken['owner']} of workspace {taken['workspace']}"
        if number in elsewhere:
            return f"port {number} ({name}) is {elsewhere[number]}"
        if is_listened_on(number) and not (kept and kept.plan["database"].get("port") == number):
            return f"port {number} ({name}) is taken by a process that is not ours"
    return None


def _none_left(
    registry: _registry.Registry,
    workspace: str,
    owner: str,
    slots: Slots,
    fixed: int | None,
    passed_over: list[dict[str, t.Any]],
) -> UserError:
    holders = [
        f"{row['slot']}: {row['owner']}"
        for row in registry.sql.execute("select slot, owner from lease where workspace = ? order by slot", (workspace,))
    ]
    reasons = "; ".join(f"slot {over['slot']}: {over['reason']}" for over in passed_over[:5])
    what = (
        f"slot {fixed} is not free"
        if fixed is not None
        else f"all slots from {slots['first']} to {slots['last']} are taken"
    )
    return UserError(
        f"no slot for {owner}: {what}"
        + (f" (held: {', '.join(holders)})" if holders else "")
        + (f" ({reasons})" if reasons else ""),
        hint="tear one down: ansible-playbook parallel.worktrees.teardown -e task=NAME",
        holders=holders,
    )


def is_listened_on(port: int) -> bool:
    """Whether some process listens on a TCP port, on any address of IPv4 or IPv6.

    A bind with SO_REUSEADDR fails where a listener is, and does not where only old connections linger (socket(7)).
    """
    for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - bound, never listened on
        try:
            probe = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue  # no such family on this machine
        with contextlib.closing(probe):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((wildcard, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return True
    return False
