# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a task and the verdict on it; what the modules do that it looks at is tested with each of them."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _plan, _records
from ansible_collections.parallel.worktrees.plugins.module_utils._door import filled
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

FACTS = {"name": "a", "worktrees": {}, "branches": {}, "database": {}}


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> pathlib.Path:
    """With a task that is being provisioned."""
    path = tmp_path / "registry.sqlite3"
    given = {"registry": str(path), "workspace": "w", "task": "a", "state": "provisioning"}
    _records.operation(filled(_records.ARGUMENT_SPEC, given), check=False)
    return path


def plan(registry: pathlib.Path, *, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
    given = {
        "registry": str(registry),
        "workspace": "w",
        "task": "a",
        "worktrees": {"worktrees": [], "owner": "w/a@1"},
        "database": {"backend": "none", "name": "d", "owner": "w/a@1"},
        "facts": FACTS,
        **more,
    }
    return _plan.operation(filled(_plan.ARGUMENT_SPEC, given), check=check)


def test_a_plan_is_noted_once(registry: pathlib.Path) -> None:
    first, second = plan(registry), plan(registry)
    assert first["actions"] == ["note what is made for task a"]
    assert first["facts"]["database"]["backend"] == "none"
    assert first["planned"]["database"] == {"backend": "none", "name": "d", "owner": "w/a@1"}
    assert not second["changed"]


def test_a_dry_run_notes_nothing(registry: pathlib.Path) -> None:
    before = registry.read_bytes()
    assert plan(registry, check=True)["changed"]
    assert registry.read_bytes() == before


def test_a_refusal_notes_nothing(registry: pathlib.Path) -> None:
    before = registry.read_bytes()
    member = {"name": "x", "repo": str(registry.parent), "path": ".worktrees/a", "branch": "a"}
    with pytest.raises(UserError, match="is not a git repository"):
        plan(registry, worktrees={"worktrees": [member], "owner": "w/a@1"})
    assert registry.read_bytes() == before


def test_arguments_that_a_maker_does_not_take_are_refused(registry: pathlib.Path) -> None:
    before = registry.read_bytes()
    with pytest.raises(UserError, match=r"module pg_database cannot take these arguments: .*backend"):
        plan(registry, database={"backend": "sqlite", "name": "d", "owner": "w/a@1"})
    assert registry.read_bytes() == before


def test_a_branch_keeps_the_name_that_its_worktree_was_made_for(registry: pathlib.Path) -> None:
    known = {**FACTS, "worktrees": {"x": "/w/x"}, "branches": {"x": "frozen", "y": "left"}}
    assert plan(registry, facts=known)["facts"]["branches"] == {"x": "frozen"}


@pytest.mark.parametrize("missing", _plan.NEEDED)
def test_a_plan_needs(missing: str, registry: pathlib.Path) -> None:
    with pytest.raises(UserError, match=f"a plan needs {missing}"):
        plan(registry, **t.cast("dict[str, t.Any]", {missing: None}))


def test_a_verdict_on_a_task_that_has_nothing() -> None:
    given = {"state": "absent", "worktrees": {"worktrees": [], "owner": "w/a@1"}, "database": {}}
    result = _plan.operation(filled(_plan.ARGUMENT_SPEC, given), check=False)
    assert result == {"changed": False, "actions": [], "diff": [], "written": []}


def test_no_maker_takes_a_secret() -> None:
    """Ansible masks what a module's own options mark as secret, and those of a plan are not the module's own."""

    def secrets(options: dict[str, t.Any]) -> list[str]:
        inner = [name for about in options.values() for name in secrets(about.get("options") or {})]
        return inner + [name for name, about in options.items() if about.get("no_log")]

    assert [secrets(spec) for _module, _run, spec in _plan.MAKERS.values()] == [[], [], []]
