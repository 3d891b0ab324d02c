# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reservations in a registry, and at the commits of real worktrees."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import typing as t

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from clocks import Clock
from integration.repos import commit, git, refused, succeeded
from integration.test_hooks import attempt, hooks

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _records,
    _registry,
    _registry_file,
    _reservations,
    _status,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer, filled

SPACE = "shop"


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> str:
    """A registry with two tasks."""
    path = str(tmp_path / "registry.sqlite3")
    for task in ("fix", "other"):
        record(path, task, "provisioning")
    return path


def record(registry: str, task: str, state: str) -> None:
    given = {"registry": registry, "workspace": SPACE, "root": "/", "task": task, "state": state}
    succeeded(answer(_records.operation, filled(_records.ARGUMENT_SPEC, given), check=False, diff=False))


def reserve(registry: str, task: str, *paths: str, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
    given = {"registry": registry, "workspace": SPACE, "task": task, "repos": ["docs"], "paths": list(paths), **more}
    checked = ArgumentSpecValidator(_reservations.ARGUMENT_SPEC).validate(given)
    assert not checked.error_messages, checked.error_messages
    return answer(_reservations.operation, checked.validated_parameters, check=check, diff=True)


def held(registry: str) -> list[tuple[str, str, str]]:
    with _registry.opened(registry, write=False) as opened:
        return [(one.task, one.repo, one.glob) for one in _reservations.reservations(opened, SPACE)]


def test_an_overlap_is_refused_and_names_the_holder(registry):
    succeeded(reserve(registry, "fix", "src/**/*.gleam", reason="new parser"))
    text = refused(reserve(registry, "other", "docs", "src/web/**"), "user", "src/web/** overlaps src/**/*.gleam")
    assert "which task fix has until " in text
    assert "(new parser); both mean src/web/.gleam" in text
    assert held(registry) == [("fix", "docs", "src/**/*.gleam")], "all or none"
    # Another repository is another matter, and so is what a task has itself.
    succeeded(reserve(registry, "other", "src/web/**", repos=["app"]))
    succeeded(reserve(registry, "fix", "src/web/**"))
    succeeded(reserve(registry, "other", "docs"))


@pytest.mark.parametrize("step", [0, 86400, -86400])
def test_it_ends_with_the_time(registry, monkeypatch, step):
    """Whatever the clock was set to in between."""
    clock = Clock(monkeypatch, 1_000_000)
    succeeded(reserve(registry, "fix", "src"))
    clock.pass_by(7199)
    clock.set(step)
    refused(reserve(registry, "other", "src/a"), "user", "overlaps")
    clock.pass_by(2)
    assert held(registry) == []
    succeeded(reserve(registry, "other", "src/a"))


def test_it_ends_with_the_task(registry):
    succeeded(reserve(registry, "fix", "src"))
    record(registry, "fix", "absent")
    succeeded(reserve(registry, "other", "src/a"))
    refused(reserve(registry, "fix", "src"), "user", "there is no task fix")


def test_it_is_released(registry):
    succeeded(reserve(registry, "fix", "src", "docs"))
    assert succeeded(reserve(registry, "fix", "src", state="absent", check=True))["changed"]
    assert succeeded(reserve(registry, "fix", "src", state="absent"))["changed"]
    assert held(registry) == [("fix", "docs", "docs")]
    assert not succeeded(reserve(registry, "fix", "src", state="absent"))["changed"]
    succeeded(reserve(registry, "fix", state="absent"))
    assert held(registry) == []


def test_the_same_again_lasts_longer_and_never_shorter(registry):
    first = succeeded(reserve(registry, "fix", "src", seconds=100))["reservations"][0]["expires"]
    assert not succeeded(reserve(registry, "fix", "src", seconds=10))["changed"]
    again = succeeded(reserve(registry, "fix", "src", seconds=200))
    assert again["changed"]
    assert again["reservations"][0]["expires"] >= first + 100


def test_check_mode_reserves_nothing(registry):
    assert succeeded(reserve(registry, "fix", "src", check=True))["changed"]
    assert held(registry) == []


def test_what_is_no_reservation_is_refused(registry):
    refused(reserve(registry, "fix"), "user", "no path is named")
    refused(reserve(registry, "fix", "../src"), "user", "no glob")
    refused(reserve(registry, "fix", "src", seconds=0), "user", "0 seconds")


def test_status_tells_them(registry):
    succeeded(reserve(registry, "fix", "src/**", reason="new parser"))
    given = {"registry": registry, "workspace": SPACE, "backend": "none", "format": "table"}
    found = succeeded(answer(_status.operation, filled(_status.ARGUMENT_SPEC, given), check=False, diff=False))
    assert "reserved by fix: docs: src/** until " in found["report"]
    assert [[one["glob"] for one in task["reservations"]] for task in found["tasks"]] == [["src/**"], []]


def test_a_registry_of_before_learns_of_them(tmp_path):
    path = str(tmp_path / "registry.sqlite3")
    with contextlib.closing(connection := sqlite3.connect(path)), connection:
        connection.executescript(_registry_file.SCHEMA)
        values = "(?, 'fix', '/', 'fix', 'fix', 'fix', 'ready', '{}', 1, 1)"
        columns = "(workspace, name, root, branch, slug, subdomain, state, plan, created, updated)"
        connection.execute(f"insert into task {columns} values {values}", (SPACE,))
        connection.execute("pragma user_version = 1")
    succeeded(reserve(path, "fix", "src"))
    assert held(path) == [("fix", "docs", "src")]


# At a commit


@pytest.fixture
def tree(sample, registry):
    """The worktree of the task ``other``, while ``fix`` has reserved src."""
    sample.make("docs", task="other")
    succeeded(hooks(sample, "docs", task="other", registry=registry, workspace=SPACE))
    succeeded(reserve(registry, "fix", "src", reason="new parser"))
    return sample.tree("docs", "other")


def test_a_commit_to_what_another_has_reserved_is_refused(tree, registry):
    (tree / "src" / "file1").write_text("changed\n")
    (tree / "README").write_text("changed\n")
    for arguments in (["--all"], ["README", "src/file1"]):
        done = attempt(tree, "commit", "--quiet", "--message", "work", *arguments)
        assert done.returncode != 0
        assert "src/file1 is reserved by task fix until " in done.stderr
        assert "(new parser), as src" in done.stderr
        assert "README is" not in done.stderr
    git(tree, "mv", "src/file2", "elsewhere")
    assert "src/file2 is reserved" in attempt(tree, "commit", "--quiet", "--message", "move").stderr
    git(tree, "restore", "--staged", ".")
    assert attempt(tree, "commit", "--quiet", "--message", "work", "README").returncode == 0
    succeeded(reserve(registry, "fix", state="absent"))
    assert attempt(tree, "commit", "--quiet", "--message", "work", "--all").returncode == 0


def test_the_first_commit_of_a_branch(tree):
    git(tree, "switch", "--quiet", "--orphan", "fresh")
    (tree / "README").write_text("anew\n")
    git(tree, "add", "README")
    done = attempt(tree, "commit", "--quiet", "--message", "first")
    assert done.returncode == 0, done.stderr
    git(tree, "switch", "--quiet", "--orphan", "fresher")
    (tree / "src").mkdir(exist_ok=True)
    (tree / "src" / "file1").write_text("anew\n")
    git(tree, "add", "src/file1")
    assert "src/file1 is reserved" in attempt(tree, "commit", "--quiet", "--message", "first").stderr


def test_what_is_reserved_in_a_submodule(sample, registry):
    sample.make("backend", task="other")
    succeeded(hooks(sample, "backend", task="other", registry=registry, workspace=SPACE))
    succeeded(reserve(registry, "fix", "migrations/*.sql", repos=["backend"]))
    inner = sample.tree("backend", "other") / "migrations"
    for name in ("0002.sql", "README"):
        (inner / name).write_text("new\n")
        git(inner, "add", name)
    done = attempt(inner, "commit", "--quiet", "--message", "work")
    assert done.returncode != 0
    assert "0002.sql is reserved by task fix until " in done.stderr
    git(inner, "rm", "--quiet", "--cached", "0002.sql")
    assert attempt(inner, "commit", "--quiet", "--message", "work").returncode == 0


def test_what_a_merge_brings_is_not_this_tasks_change(sample, tree):
    (sample.docs / "src" / "file1").write_text("theirs\n")
    git(sample.docs, "commit", "--quiet", "--all", "--message", "theirs")
    commit(sample.docs, "README", "theirs\n")
    (tree / "README").write_text("ours\n")
    assert attempt(tree, "commit", "--quiet", "--all", "--message", "ours").returncode == 0
    assert attempt(tree, "merge", "--quiet", "main").returncode != 0
    (tree / "README").write_text("both\n")
    git(tree, "add", "README")
    done = attempt(tree, "commit", "--quiet", "--no-edit")
    assert done.returncode == 0, done.stderr
    sample.make("docs", task="late")
    assert attempt(sample.tree("docs", "late"), "merge", "--quiet", "main").returncode == 0


def test_cannot_tell_is_not_free(tree, registry):
    pathlib.Path(registry).write_bytes(b"damaged")
    (tree / "README").write_text("changed\n")
    done = attempt(tree, "commit", "--quiet", "--all", "--message", "work")
    assert done.returncode != 0
    assert "cannot use the registry" in done.stderr
