# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples in the documentation of modules, run as a reader pastes them: in one play, from the first to the last.

Those of the databases and of a DB host need servers that the examples name, and are checked against the specs alone
(tests/unit/test_house.py).
"""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import yaml
from integration.repos import Sample, git
from integration.workspaces import CLONE, COLLECTIONS

PLAYBOOK = pathlib.Path(sys.executable).with_name("ansible-playbook")
MODULES = sorted(
    path.stem
    for path in (CLONE / "plugins" / "modules").glob("*.py")
    if not path.stem.startswith(("db_", "pg_")) and path.stem not in ("task_host", "workspace_check")
)
"""Without those that need servers, and those that need the playbooks' own variables."""
WITHOUT_WORKTREES = {"git_worktree", "git_worktree_info"}
WITHOUT_A_RECORD = {"task_record", "port_lease"}
DATABASE = ("host", "port", "user", "name", "url", "password_file")
PROGRAMS = ("bandit", "make", "npm", "pytest", "ruff", "uv")
"""What the commands of the examples call. The programs themselves are not what is tried."""


def examples(module: str) -> list[dict[str, t.Any]]:
    for statement in ast.parse((CLONE / "plugins" / "modules" / f"{module}.py").read_bytes()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "EXAMPLES":
            return [without_a_server(task) for task in yaml.safe_load(ast.literal_eval(statement.value))]
    raise AssertionError(f"{module} has no examples")


def without_a_server(task: dict[str, t.Any]) -> dict[str, t.Any]:
    """The task without the check of a gate that looks into a database."""
    gate = task.get("parallel.worktrees.task_gate")
    if gate:
        gate["checks"] = [check for check in gate["checks"] if "databases" not in check]
    return task


def before(module: str) -> list[dict[str, t.Any]]:
    """What has to be there: a registered task with its worktrees, as the examples of other modules make them."""
    made = [] if module in WITHOUT_WORKTREES else examples("git_worktree")[:1]
    if module in WITHOUT_A_RECORD:
        return made
    _register, _several, register, plan, ready, _remove = examples("task_record")
    return [*made, register, plan, ready]


@pytest.fixture
def place(sample: Sample, tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of two repositories with the files that examples name."""
    files = {
        "backend": {
            "vendor/x": "",
            "storage/uploads/x": "",
            "config/local.ini.example": "",
            ".env": "DB_PORT=5432\n",
            "client/package-lock.json": "",
            "server/uv.lock": "",
        },
        "app": {".env": "PORT=3000\n", ".mcp.json": "{}"},
    }
    for repo, content in files.items():
        for name, text in content.items():
            file = sample.work / repo / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    for name in ("config", "client", "server"):
        git(sample.work / "backend", "add", "--force", name)
    git(sample.work / "backend", "commit", "--quiet", "--message", "folders")
    git(sample.work / "backend", "push", "--quiet", "origin", "main")
    git(sample.work / "backend", "worktree", "add", "--quiet", "-b", "lisbon", str(sample.work / "lisbon"))
    (sample.work / "spawn.md.j2").write_text("Spawn\n")
    (sample.work / "secrets").mkdir()
    (sample.work / "secrets" / "database").write_text("s3cret")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    return sample.work


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module(module: str, place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    tree = str(place / "backend" / ".worktrees" / "fix-login")
    facts = {
        "name": "fix-login",
        "owner": "shop/fix-login",
        "ports": {"database": 15433},
        "worktrees": {"backend": tree},
        "database": dict.fromkeys(DATABASE) | {"backend": "none"},
        "databases": [],
    }
    planned = [{"name": "backend", "repo": str(place / "backend"), "path": tree, "branch": "fix-login"}]
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"workspace_root": str(place), "task_facts": facts, "task_record": {"plan": {"worktrees": planned}}},
        "tasks": before(module) + examples(module),
    }
    text = yaml.safe_dump([play]).replace("/home/ada/conductor/shop/lisbon", str(place / "lisbon"))
    (tmp_path / "play.yml").write_text(text.replace("/srv/shop", str(place)))
    done = subprocess.run(
        [PLAYBOOK, tmp_path / "play.yml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{tmp_path / 'programs'}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "XDG_STATE_HOME": str(tmp_path / "state"),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
