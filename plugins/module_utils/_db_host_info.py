# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a DB host stands: space, sources with their lag and goldens, branches, and what somebody should look into.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import json
import time
import typing as t

from . import _branches, _db_host, _sources
from ._door import Params, Result
from ._records import age

ARGUMENT_SPEC: dict[str, t.Any] = {
    "format": {"type": "str", "choices": ["text", "json"]},
    "host_file": {"type": "path", "default": _db_host.HOST_FILE},
}

COLUMNS = ("BRANCH", "OWNER", "STATE", "SOURCE", "AGE", "OWN", "FULL", "SESSIONS", "EXPIRES")


def operation(params: Params, *, check: bool) -> Result:
    """Ask sources, pool and branches."""
    report = _sources.report(_db_host.load(params["host_file"]))
    asked = {"name": None, "owner": None, "host_file": params["host_file"]}
    branches = _branches.info(asked, check=check)["branches"]
    problems = [*report["problems"], *(problem for branch in branches for problem in _problems(branch))]
    found = {**report, "branches": branches, "problems": problems}
    styles = {"text": _text, "json": lambda about: json.dumps(about, indent=2, sort_keys=True)}
    told = styles[params["format"]](found) if params["format"] else None
    return {"changed": False, "diff": [], "actions": [], **found, "report": told}


def _problems(branch: dict[str, t.Any]) -> t.Iterator[str]:
    if branch["phase"] == "ready" and not branch["running"]:
        yield f"branch {branch['name']}: its server does not run"
    elif branch["phase"] == "ready" and not branch["routed"]:
        yield f"branch {branch['name']}: PgBouncer does not know it"


def _text(found: dict[str, t.Any]) -> str:
    space = found["space"]
    percent = f"{space['free_percent']:g} %, {space['reserve_percent']:g} % stay so"
    lines = [f"{space['root']}: {_size(space['free'])} of {_size(space['total'])} free ({percent})"]
    for source in found["sources"]:
        lines.append(f"source {source['name']} ({source['kind']}): {', '.join(_about_source(source))}")
    if found["branches"]:
        rows = [COLUMNS, *(_row(branch) for branch in found["branches"])]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
    else:
        lines.append("no branches")
    return "\n".join([*lines, *(f"look into it: {problem}" for problem in found["problems"])])


def _about_source(source: dict[str, t.Any]) -> t.Iterator[str]:
    standby = source["standby"]
    if standby is not None and standby["lag"] is not None:
        yield f"{_span(standby['lag'])} behind"
    ready = [golden for golden in source["goldens"] if golden["ready"]]
    yield f"{len(ready)} golden{'' if len(ready) == 1 else 's'}"
    if source["golden_age"] is not None:
        yield f"the newest {_span(source['golden_age'])} old"


def _row(branch: dict[str, t.Any]) -> tuple[str, ...]:
    state = "running" if branch["running"] and branch["phase"] == "ready" else branch["phase"]
    return (
        branch["name"],
        branch["owner"],
        "stopped" if state == "ready" else state,
        branch["source"],
        _span(branch["age"]),
        _size(branch["own_bytes"]),
        _size(branch["full_bytes"]),
        "-" if branch["sessions"] is None else str(branch["sessions"]),
        "protected"
        if branch["protected"]
        else "-"
        if branch["expires"] is None
        else f"after {_span(branch['expires'])}",
    )


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TB"


def _span(seconds: float) -> str:
    return age(time.time() - seconds)
