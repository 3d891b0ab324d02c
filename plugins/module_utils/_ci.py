# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same gate elsewhere: a CI workflow with the workspace's own commands, and what the forge is to protect.

Private to this collection: may change without notice.

A workflow is written as YAML whose texts are JSON (which YAML takes), so that a command comes out as it went in.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import typing as t
import urllib.parse

from . import _files, _gates, _git
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError
from ._placing import inside

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        **_gates.WORKTREES,
        "options": {
            **_gates.WORKTREES["options"],
            "setup": {"type": "list", "elements": "dict", "default": []},
        },
    },
    "file": {"type": "str", "default": ".github/workflows/integration.yml"},
    "branch": {"type": "str", "default": "integration"},
    "target": {"type": "str", "default": "main"},
    "remote": {"type": "str", "default": "origin"},
    "image": {"type": "str", "default": "postgres:17"},
    "runner": {"type": "str", "default": "ubuntu-latest"},
    "variables": {"type": "dict", "default": {}},
    "reviews": {"type": "int", "default": 1},
    "linear_history": {"type": "bool", "default": False},
    "checks": _gates.CHECKS,
}

MARK = "# Written by parallel.worktrees from the workspace: playbook parallel.worktrees.ci writes it anew."
JOB = "gate"
DATABASE_URL = "postgresql://postgres:postgres@localhost:5432/postgres"

WORKFLOW = """\
%(mark)s
name: %(name)s
on:
  push:
    branches: [%(branch)s]
  pull_request:
    branches: [%(target)s]
permissions:
  contents: read
jobs:
  %(job)s:
    runs-on: %(runner)s
    services:
      postgres:
        image: %(image)s
        env:
          POSTGRES_PASSWORD: postgres
        ports: ["5432:5432"]
        options: --health-cmd pg_isready --health-interval 2s --health-timeout 5s --health-retries 30
    env:
%(variables)s
    steps:
      - uses: actions/checkout@v4
%(steps)s"""


def operation(params: Params, *, check: bool) -> Result:
    """Write the workflow into each worktree, and tell what the forge is to be told."""
    _gates.refused_where_unclear(params["checks"], [], "integration")
    if not params["worktrees"]:
        raise UserError("the task has no worktree to write a workflow into", hint="name a task that has one")
    actions, diff, told = [], [], []
    for worktree in params["worktrees"]:
        if not os.path.isdir(worktree["path"]):
            hint = "run provision again: it makes what is missing"
            raise EnvironmentFailure(f"there is no folder {worktree['path']}", hint=hint)
        place = inside(worktree["path"], params["file"])
        before, after = _read(place), workflow(worktree, params)
        if before is not None and not before.startswith(MARK):
            raise UserError(
                f"cannot write {place}: something is there that this project did not write",
                hint=f"look at it, then move it away: mv {place} {place}.old, or name another: ci_file",
            )
        told.append(protection(worktree, params))
        if before == after:
            continue
        actions.append(f"write {place}")
        diff.append({"before_header": place, "after_header": place, "before": before or "", "after": after})
        if not check:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            _files.write(place, after.encode(), mode=0o644)
    return {"changed": bool(actions), "actions": actions, "diff": diff, "report": "\n".join(told)}


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def workflow(worktree: Params, params: Params) -> str:
    """The text of the workflow of one repository."""
    variables = {"DATABASE_URL": DATABASE_URL, **params["variables"]}
    words = {key: json.dumps(params[key]) for key in ("branch", "target", "image", "runner")}
    return WORKFLOW % {
        **words,
        "mark": MARK,
        "name": json.dumps(params["branch"]),
        "job": JOB,
        "variables": "\n".join(f"      {name}: {json.dumps(str(value))}" for name, value in variables.items()),
        "steps": "".join(_steps(worktree, params)),
    }


def _steps(worktree: Params, params: Params) -> t.Iterator[str]:
    for one in worktree["setup"]:
        yield _step(f"set up: {one['command']}", one["command"], one.get("folder") or ".")
    for one in params["checks"]:
        if "integration" not in one["stages"] or (one["repos"] is not None and worktree["name"] not in one["repos"]):
            continue
        warns = "integration" in one["warns"]
        if one["command"] is not None:
            yield _step(one["name"], one["command"], one["folder"], warns=warns)
        elif one["databases"] is not None:
            yield _step(one["name"], _leaked(one["databases"]), warns=warns)
        elif one["git"] == "clean":
            yield _step(one["name"], 'git status --short; test -z "$(git status --porcelain)"', warns=warns)
        # CI is never on a branch: it has checked out a commit.


def _step(name: str, command: str, folder: str = ".", *, warns: bool = False) -> str:
    lines = [f"      - name: {json.dumps(name)}", f"        run: {json.dumps(command)}"]
    if os.path.normpath(folder) != ".":
        lines.append(f"        working-directory: {json.dumps(folder)}")
    if warns:
        lines.append("        continue-on-error: true")
    return "".join(line + "\n" for line in lines)


def _leaked(pattern: str) -> str:
    quoted = pattern.replace("'", "''")
    query = f"select datname from pg_database where datname like '{quoted}' and not datistemplate"  # noqa: S608
    return f'leaked=$(psql "$DATABASE_URL" -Atc {shlex.quote(query)}) && echo "$leaked" && test -z "$leaked"'


# --- the forge --------------------------------------------------------------------------------------------------


def protection(worktree: Params, params: Params) -> str:
    """The commands that protect the target of one repository, as comments and lines for a shell."""
    target = params["target"]
    head = f"# {worktree['name']}: let the forge protect {target}"
    url = _git.git(worktree["path"], "remote", "get-url", params["remote"]).stdout.strip()
    host, path = _where(url)
    if "github" in host:
        settings = {
            "required_status_checks": {"strict": True, "contexts": [JOB]},
            "enforce_admins": True,
            "required_pull_request_reviews": {"required_approving_review_count": params["reviews"]},
            "restrictions": None,
            "required_linear_history": params["linear_history"],
            "allow_force_pushes": False,
            "allow_deletions": False,
        }
        branch = urllib.parse.quote(target, safe="")
        host_option = "" if host == "github.com" else f" --hostname {shlex.quote(host)}"
        command = (
            f"gh api{host_option} --method PUT {shlex.quote(f'repos/{path}/branches/{branch}/protection')} --input -"
        )
        return f"{head}\n{command} <<'JSON'\n{json.dumps(settings, indent=2)}\nJSON\n"
    if "gitlab" in host:
        project = f"projects/{urllib.parse.quote(path, safe='')}"
        method = "ff" if params["linear_history"] else "merge"
        return (
            f"{head}\nexport GITLAB_HOST={shlex.quote(host)}\n"
            f"glab api --method POST {project}/protected_branches -f name={shlex.quote(target)} -F push_access_level=0 "
            "-F merge_access_level=40 -F allow_force_push=false\n"
            f"glab api --method PUT {project} -F only_allow_merge_if_pipeline_succeeds=true -f merge_method={method}\n"
            f"glab api --method POST {project}/approval_rules -f name=review "
            f"-F approvals_required={params['reviews']}\n"
        )
    return (
        f"{head} (the address {url or 'of no remote'} tells no forge that is known here; set there by hand):\n"
        f"#   reviews of a pull request: {params['reviews']}; required check: {JOB}; "
        f"linear history: {'yes' if params['linear_history'] else 'no'}; no forced pushes, no deletion\n"
    )


def _where(url: str) -> tuple[str, str]:
    """The host and the path of a repository, of ``https://``, ``ssh://`` or ``user@host:path``."""
    if found := re.fullmatch(r"(?:[^@/:]+@)?([^@/:]+):(?!//)(.+)", url):
        host, path = found.groups()
    else:
        parts = urllib.parse.urlsplit(url)
        host, path = parts.hostname or "", parts.path
    return host, path.strip("/").removesuffix(".git")
