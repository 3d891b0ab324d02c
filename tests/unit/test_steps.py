# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several modules in one call, and the plan of a task; what the modules do is tested with each of them."""

from __future__ import annotations

import pathlib
import threading
import typing as t

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _progress, _records, _steps
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

FACTS = {"name": "a", "worktrees": {}, "branches": {}, "database": {}}


def record(registry: pathlib.Path, state: str, name: str = "a step") -> dict[str, t.Any]:
    arguments = {"registry": str(registry), "workspace": "w", "task": "a", "state": state}
    return {"name": name, "module": "task_record", "arguments": arguments}


def carry_out(*steps: dict[str, t.Any], check: bool = False, plan: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
    given = [{"planned": None, "arguments": {}, **step} for step in steps]
    return _steps.operation({"steps": given, "plan": plan, "holder": None}, check=check)


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "registry.sqlite3"


def test_steps_are_carried_out_in_order(registry: pathlib.Path) -> None:
    result = carry_out(record(registry, "provisioning", "One"), record(registry, "ready", "Two"))
    assert result["changed"]
    assert result["actions"] == ["register task a", "mark task a as ready"]
    assert [(one["step"], one["actions"]) for one in result["results"]] == [
        ("One", ["register task a"]),
        ("Two", ["mark task a as ready"]),
    ]
    assert all(one["began"] <= one["ended"] for one in result["results"])


def test_no_step_changes_nothing() -> None:
    assert carry_out() == {"changed": False, "actions": [], "diff": [], "results": []}


def test_a_dry_run_touches_nothing(registry: pathlib.Path) -> None:
    assert carry_out(record(registry, "provisioning"), check=True)["changed"]
    assert not registry.exists()


def test_the_first_step_that_fails_ends_the_call(registry: pathlib.Path) -> None:
    first, last = record(registry, "provisioning", "One"), record(registry, "ready", "Three")
    refused = record(registry, "ready", "Two")
    refused["arguments"]["task"] = "missing"
    with pytest.raises(UserError) as caught:
        carry_out(first, refused, last)
    result = caught.value.as_result()
    assert result["step"] == "Two"
    assert [one["step"] for one in result["results"]] == ["One"]
    assert result["changed"], "the first step has changed something"
    assert carry_out(record(registry, "ready"))["actions"] == ["mark task a as ready"]


def test_all_arguments_are_checked_before_the_first_step(registry: pathlib.Path) -> None:
    wrong = {"name": "Two", "module": "task_record", "arguments": {"workspace": "w", "state": "gone"}}
    with pytest.raises(UserError, match=r"module task_record cannot .*: value of state must be one of") as caught:
        carry_out(record(registry, "provisioning"), wrong)
    assert caught.value.details["step"] == "Two"
    assert not registry.exists()


@pytest.mark.parametrize("module", _steps.OPERATIONS)
def test_no_step_takes_a_secret(module: str) -> None:
    """Ansible masks what a module's own options mark as secret, and those of a step are not the module's own."""

    def secrets(options: dict[str, t.Any]) -> list[str]:
        inner = [name for about in options.values() for name in secrets(about.get("options") or {})]
        return inner + [name for name, about in options.items() if about.get("no_log")]

    assert secrets(_steps.OPERATIONS[module][1]) == []


# --- the plan ---------------------------------------------------------------------------------------------------


def plan(registry: pathlib.Path, **more: t.Any) -> dict[str, t.Any]:
    return {
        "registry": str(registry),
        "workspace": "w",
        "task": "a",
        "pattern": _records.ARGUMENT_SPEC["pattern"]["default"],
        "worktrees": {"worktrees": [], "owner": "w/a@1"},
        "database": {"backend": "none", "name": "d", "owner": "w/a@1"},
        "agent": {},
        "facts": FACTS,
        **more,
    }


def test_a_plan_is_noted_once(registry: pathlib.Path) -> None:
    carry_out(record(registry, "provisioning"))
    first, second = carry_out(plan=plan(registry)), carry_out(plan=plan(registry))
    assert first["actions"] == ["note what is made for task a"]
    assert [(one["step"], one["changed"]) for one in first["results"]] == [("_Plan", True)]
    assert first["facts"]["database"]["backend"] == "none"
    assert first["planned"]["database"] == {"backend": "none", "name": "d", "owner": "w/a@1"}
    assert not second["changed"]


def test_a_refusal_notes_nothing_and_makes_nothing(registry: pathlib.Path) -> None:
    carry_out(record(registry, "provisioning"))
    before = registry.read_bytes()
    member = {"name": "x", "repo": str(registry.parent), "path": ".worktrees/a", "branch": "a"}
    refused = plan(registry, worktrees={"worktrees": [member], "owner": "w/a@1"})
    with pytest.raises(UserError, match="is not a git repository") as caught:
        carry_out(record(registry, "ready"), plan=refused)
    assert caught.value.details["step"] == "_Plan"
    assert registry.read_bytes() == before


def test_a_step_takes_its_arguments_from_the_plan(registry: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carry_out(record(registry, "provisioning"))
    seen: list[dict[str, t.Any]] = []
    run, spec = _steps.OPERATIONS["task_database"]

    def watch(params: dict[str, t.Any], *, check: bool) -> dict[str, t.Any]:
        seen.append({"check": check, **params})
        return run(params, check=check)

    monkeypatch.setitem(_steps.OPERATIONS, "task_database", (watch, spec))
    step = {"name": "Start", "module": "task_database", "planned": "database", "arguments": {"wait": False}}
    carry_out(step, plan=plan(registry))
    assert [(one["check"], one["name"], one["wait"]) for one in seen] == [(True, "d", True), (False, "d", False)]


def test_what_is_planned_needs_a_plan() -> None:
    with pytest.raises(UserError, match="there is no plan, which git_worktree is to take its worktrees from"):
        carry_out({"name": "Worktrees", "module": "git_worktree", "planned": "worktrees"})


def test_a_branch_keeps_the_name_that_its_worktree_was_made_for(registry: pathlib.Path) -> None:
    carry_out(record(registry, "provisioning"))
    known = {**FACTS, "worktrees": {"x": "/w/x"}, "branches": {"x": "frozen", "y": "left"}}
    assert carry_out(plan=plan(registry, facts=known))["facts"]["branches"] == {"x": "frozen"}


def test_a_step_that_takes_long_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    is_told = threading.Event()

    def tell(line: str) -> None:
        told.append(line)
        is_told.set()

    def wait(_params: dict[str, t.Any], *, check: bool) -> dict[str, t.Any]:
        assert not check
        assert is_told.wait(60)
        return {"changed": False, "actions": [], "diff": []}

    monkeypatch.setattr(_progress, "SECONDS", 0.01)
    monkeypatch.setitem(_steps.OPERATIONS, "worktree_setup", (wait, {}))
    _progress.tell_to(tell)
    try:
        carry_out({"name": "Set-up commands", "module": "worktree_setup", "arguments": {}})
    finally:
        _progress.tell_to(None)
    assert told == ["Set-up commands"]
