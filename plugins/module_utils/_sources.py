# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of a DB host: set up, refreshed, told of, and taken away.

Private to this collection: may change without notice.

The timer of a DB host runs it as ``python3 -m parallel_worktrees._sources refresh``.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import time
import typing as t

from . import _db_host, _pg_programs, _refresh, _stores
from ._door import Params, Result
from ._errors import WorktreesError
from ._pg_server import Journal
from ._standby import SHELF, Standby

if t.TYPE_CHECKING:
    from ._db_host import Host, Source

HOST_FILE: dict[str, t.Any] = {"type": "path", "default": _db_host.HOST_FILE}
ARGUMENT_SPEC: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "refresh": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "host_file": HOST_FILE,
}
INFO_SPEC: dict[str, t.Any] = {
    "name": {"type": "str"},
    "host_file": HOST_FILE,
}

SORTED_OTHERWISE = (
    "its collations have other versions on this machine, so indexes of text may miss rows, in its branches too: "
    "set the DB host up on the distribution of the primary, have the mask reindex, or use kind: dump"
)
LATE = 2
"""How many times as old as it should be the newest golden may be before it is told of."""


def operation(params: Params, *, check: bool) -> Result:
    """Set up a source of a DB host with a golden that branches can be made of, or take both away."""
    host, name = _db_host.load(params["host_file"]), params["name"]
    journal = Journal(check=check)
    with contextlib.nullcontext() if check else _alone(host, name):
        if params["state"] == "absent":
            _absent(host, name, journal, force=params["force"])
            source = None
        else:
            source = host.source(name)
            host.check_accounts()
            _present(host, source, journal, refresh=params["refresh"])
    result = journal.result(f"source {name}")
    del result["statements"]
    return {**result, "source": None if source is None else _about(host, source)}


def info(params: Params, *, check: bool) -> Result:  # noqa: ARG001 - it changes nothing
    """How the sources of a DB host stand."""
    host = _db_host.load(params["host_file"])
    return {"changed": False, "diff": [], "actions": [], **report(host, params["name"])}


def report(host: Host, name: str | None = None) -> dict[str, t.Any]:
    """Lag, age and space, and what somebody should look into."""
    sources = host.sources.values() if name is None else [host.source(name)]
    space = _stores.of(host).space()
    told = [_about(host, source) for source in sources]
    problems = [problem for one in told for problem in one["problems"]]
    if space.percent_free < host.reserve:
        problems.append(f"the pool in {host.root} has {space.percent_free:.1f} % free, less than {host.reserve:g} %")
    return {
        "sources": told,
        "space": {
            "root": host.root,
            "total": space.total,
            "free": space.free,
            "free_percent": round(space.percent_free, 1),
            "reserve_percent": host.reserve,
        },
        "problems": problems,
    }


def refresh(host: Host, source: Source, *, only_due: bool = False) -> list[str]:
    """Make a new golden, and retire those that are no longer kept; tells what was done."""
    with _alone(host, source.name):
        _refresh.clear(host, source.name)
        gone = _retire(host, source)  # first, for where the pool is full no other is made
        if only_due and not _refresh.is_due(source, _refresh.goldens(_stores.of(host), source.name), time.time()):
            return gone
        return [*gone, *_renew(host, source)]


def up(host: Host) -> list[str]:
    """Start the standbys, as after a reboot; tells what was done."""
    actions = []
    for source in host.sources.values():
        if source.kind == "standby":
            with _alone(host, source.name):
                standby, volume = _standby_of(host, source)
                if volume is not None and _is_ready(volume) and not standby.look().running:
                    standby.start()
                    actions.append(f"start the standby of source {source.name}")
    return actions


def main(arguments: t.Sequence[str]) -> int:
    """For the timer and the start of the machine: ``refresh`` those that are due, or those that are named; ``up``."""
    verb, *names = arguments or [""]
    if verb not in ("refresh", "up") or (verb == "up" and names):
        sys.stderr.write("usage: python3 -m parallel_worktrees._sources refresh [SOURCE...] | up\n")
        return 2
    failed = False
    actions: list[str] = []
    try:
        host = _db_host.load()
        if verb == "up":
            actions = up(host)
        for source in [host.source(name) for name in names or host.sources] if verb == "refresh" else ():
            try:
                actions += refresh(host, source, only_due=not names)
            except WorktreesError as error:  # the others are done all the same
                failed = True
                _tell(error)
    except WorktreesError as error:
        failed = True
        _tell(error)
    if actions:
        sys.stdout.write(json.dumps(actions) + "\n")
    return int(failed)


def _tell(error: WorktreesError) -> None:
    sys.stderr.write(f"{error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))


def _alone(host: Host, name: str) -> contextlib.AbstractContextManager[int]:
    """Keep others from the same source; the pool's lock is another one, and is held for moments only."""
    return host.locked(f"source-{name}")


# Present


def _present(host: Host, source: Source, journal: Journal, *, refresh: bool) -> None:
    left, last = _half_made(host, source), _newest(host, source)
    is_masked = source.has_masked(_stores.of(host).must_have(last).mark) if last else False
    not_kept = _refresh.not_kept(host, source, check=journal.check)
    reached = _stores.of(host).open_shelves()
    before: dict[str, t.Any] = {"half_made": left, "golden": last, "not_kept": not_kept, "reached": reached}
    after: dict[str, t.Any] = {"half_made": [], "golden": last, "not_kept": [], "reached": []}
    steps: list[tuple[str, t.Callable[[], t.Any]]] = []
    if reached:
        steps.append((f"keep others out of {', '.join(reached)}", _stores.of(host).close_shelves))
    if source.kind == "standby":
        standby, volume = _standby_of(host, source)
        before["standby"], after["standby"] = _standing(standby, volume), "running"
        steps += _steps_of_standby(standby, before["standby"])
    if not_kept:
        steps.append((f"remove {', '.join(not_kept)}, which is not kept any longer", lambda: _retire(host, source)))
    if refresh or not is_masked:
        if before.get("standby", "running") not in (None, "half made"):
            _refresh.check(host, source)
        after["golden"] = f"{_refresh.SHELF}/{source.name}/new"
        steps.append((f"make a golden of source {source.name}", lambda: _renew(host, source)))
    elif left:
        steps.append(
            (f"remove what a killed run has left: {', '.join(left)}", lambda: _refresh.clear(host, source.name))
        )
    for action, step in steps:
        journal.begin(action)
        if not journal.check:
            step()
    if not journal.check:
        after["golden"] = _newest(host, source)
    journal.state(before, after)


def _steps_of_standby(standby: Standby, standing: str | None) -> t.Iterator[tuple[str, t.Callable[[], t.Any]]]:
    """What has to be done for it to run."""
    source = standby.source
    if standing in (None, "half made"):
        standby.check_primary()
        _stores.of(standby.host).check_room(f"cannot copy source {source.name}")
        if standing is not None:
            yield f"remove the half made copy of source {source.name}", standby.remove_volume
        yield f"copy the primary of source {source.name} from {source.host}:{source.port}", standby.make
    if standing == "with other settings":
        yield f"stop the standby of source {source.name}, whose settings have changed", standby.stop
    if standing != "running":
        yield f"start the standby of source {source.name}", standby.start


def _standing(standby: Standby, volume: _stores.Volume | None) -> str | None:
    if volume is None:
        return None
    if not _is_ready(volume):
        return "half made"
    if standby.server.status() is None:
        return "stopped"
    return "running" if standby.is_configured() else "with other settings"


def _renew(host: Host, source: Source) -> list[str]:
    with _pg_programs.found_in(host.bin_directory):
        made = _refresh.refresh(host, source)
    return [f"make {made}", *_retire(host, source)]


def _retire(host: Host, source: Source) -> list[str]:
    return [f"remove {name}" for name in _refresh.retire(host, source)]


# Absent


def _absent(host: Host, name: str, journal: Journal, *, force: bool) -> None:
    store = _stores.of(host)
    found = [one.name for one in _refresh.goldens(store, name)]
    volume = store.volume(f"{SHELF}/{name}")
    _refresh.check_unused(store, name)
    for one in (*found, *([] if volume is None else [volume.name])):
        store.check_unmounted(one)
    journal.state({"standby": volume is not None, "goldens": found}, {"standby": False, "goldens": []})
    if found:
        journal.begin(f"remove {', '.join(found)}")
        if not journal.check:
            _refresh.remove_all(host, name)
    if volume is not None:
        journal.begin(f"remove the standby of source {name}")
        if not journal.check:
            source = host.sources.get(name) or _db_host.source_of_mark(name, volume.mark)
            Standby(host, source).remove(force=force)


# Looking


def _standby_of(host: Host, source: Source) -> tuple[Standby, _stores.Volume | None]:
    standby = Standby(host, source)
    return standby, _stores.of(host).volume(standby.name)


def _is_ready(volume: _stores.Volume) -> bool:
    return volume.mark.get("phase") == "ready"


def _newest(host: Host, source: Source) -> str | None:
    last = _refresh.newest(_refresh.goldens(_stores.of(host), source.name))
    return None if last is None else last.name


def _half_made(host: Host, source: Source) -> list[str]:
    return [one.name for one in _refresh.goldens(_stores.of(host), source.name) if not one.ready]


def _about(host: Host, source: Source) -> dict[str, t.Any]:
    """One source, as people and ``db_status`` want to know it."""
    found, now = _refresh.goldens(_stores.of(host), source.name), time.time()
    last = _refresh.newest(found)
    about: dict[str, t.Any] = {
        "name": source.name,
        "kind": source.kind,
        "database": source.database,
        "standby": None,
        "golden": None if last is None else last.name,
        "golden_age": None if last is None else round(now - last.created),
        "data_at": None if last is None else last.mark.get("data_at"),
        "goldens": [
            {
                "name": one.name,
                "ready": one.ready,
                "created": _refresh.utc(one.created),
                "data_at": one.mark.get("data_at"),
                "branches": list(one.branches),
            }
            for one in found
        ],
    }
    problems = []
    if last is None:
        problems.append("it has no golden, so no branch can be made of it")
    elif not source.has_masked(last.mark):
        problems.append(
            f"its newest golden is not masked by {source.mask} as this is now, so no branch can be made of it"
        )
    elif source.kind == "standby" and now - last.created > LATE * source.every:
        problems.append(f"its newest golden is {_span(now - last.created)} old, and is to be {_span(source.every)}")
    if source.kind == "standby":
        about["standby"], trouble = _about_standby(host, source, now)
        problems += trouble
    elif not os.access(str(source.dump), os.R_OK):
        problems.append(f"its dump {source.dump} cannot be read")
    problems += [
        f"everybody on the machine can read {path}, so branches can, too: chmod 600 {path}"
        for path in (source.dump, source.password_file)
        if path is not None and _is_for_everybody(path)
    ]
    return {**about, "problems": [f"source {source.name}: {problem}" for problem in problems]}


def _about_standby(host: Host, source: Source, now: float) -> tuple[dict[str, t.Any] | None, list[str]]:
    standby, volume = _standby_of(host, source)
    if volume is None or not _is_ready(volume):
        return None, ["it has no standby yet"]
    try:
        state, differ = standby.look(), standby.other_collations()
    except WorktreesError as error:
        return None, [error.message]
    lag = 0.0 if state.streaming and not state.behind else None if state.data_at is None else now - state.data_at
    about = {
        "running": state.running,
        "streaming": state.streaming,
        "lag": None if lag is None else round(lag, 1),
        "behind": state.behind,
        "data_at": None if state.data_at is None else _refresh.utc(state.data_at),
    }
    problems = [f"{SORTED_OTHERWISE}: {', '.join(differ)}"] if differ else []
    if not state.running:
        return about, [f"its standby does not run; see {standby.log}"]
    if not state.streaming:
        since = "" if state.data_at is None else f" since {about['data_at']}"
        problems.append(f"its standby has had nothing from the primary at {source.host}{since}; see {standby.log}")
    return about, problems


def _is_for_everybody(path: str) -> bool:
    """Whether a file, or one in a folder, can be read by every user of this machine."""
    path = os.path.realpath(path)
    folders: list[str] = []
    while (folder := os.path.dirname(folders[-1] if folders else path)) not in folders:
        folders.append(folder)
    try:
        leads_there = all(os.stat(folder).st_mode & stat.S_IXOTH for folder in folders)
        return leads_there and bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


def _span(seconds: float) -> str:
    """A length of time as people say it."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
