# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import multiprocessing
import os
import pathlib
import sqlite3
import typing as t

import pytest
from clocks import Clock

from ansible_collections.parallel.worktrees.plugins.module_utils import _holder, _records, _registry
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import (
    EnvironmentFailure,
    PartialFailure,
    UserError,
    WorktreesError,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._secrets import DATABASE_PASSWORD

DEFAULTS = {key: spec.get("default") for key, spec in _records.ARGUMENT_SPEC.items()}
PLAN = {"worktrees": [{"path": "/w/a", "branch": "a"}], "database": {"backend": "embedded", "name": "d"}}


def record(
    registry: pathlib.Path, state: str, task: str | None = "a", check: bool = False, **more: t.Any
) -> dict[str, t.Any]:
    params = {**DEFAULTS, "registry": str(registry), "workspace": "w", "task": task, "state": state, **more}
    return _records.operation(params, check=check)


def holder(pid: int) -> dict[str, t.Any]:
    return dict(vars(_holder.holder_of(pid, "ada")))


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state" / "registry.sqlite3"


def test_the_life_of_a_task(registry: pathlib.Path) -> None:
    states = []
    steps: tuple[tuple[str, dict[str, t.Any]], ...] = (
        ("provisioning", {}),
        ("provisioning", {"plan": PLAN}),
        ("ready", {}),
        ("removing", {}),
        ("absent", {}),
    )
    for state, more in steps:
        result = record(registry, state, **more)
        assert result["changed"]
        states += [task["state"] for task in result["tasks"]]
    assert states == ["provisioning", "provisioning", "ready", "removing"]


TERMS = {"ports": {}, "slots": {"first": 1, "last": 2, "strategy": "lowest"}, "slot": None, "expires_after": None}


def test_a_lease_comes_with_the_record(registry: pathlib.Path) -> None:
    first = record(registry, "provisioning", "a,b", lease=TERMS)
    assert first["actions"] == ["register task a", "register task b", "lease slot 1 to a", "lease slot 2 to b"]
    assert [(lease["owner"], lease["slot"]) for lease in first["leases"]] == [("a", 1), ("b", 2)]
    second = record(registry, "provisioning", "a,b", lease=TERMS)
    assert not second["changed"]
    assert second["leases"] == first["leases"]


def test_there_is_no_record_without_the_lease(registry: pathlib.Path) -> None:
    record(registry, "provisioning", "a", lease=TERMS)
    before = registry.read_bytes()
    with pytest.raises(UserError, match="all slots from 1 to 2 are taken"):
        record(registry, "provisioning", "b,c", lease=TERMS)
    assert registry.read_bytes() == before
    assert record(registry, "provisioning", "b", lease=TERMS)["leases"][0]["slot"] == 2


def test_a_lease_is_taken_with_the_registration_alone(registry: pathlib.Path) -> None:
    record(registry, "provisioning")
    assert "leases" not in record(registry, "ready", lease=TERMS)


def test_a_dry_run_leases_nothing(registry: pathlib.Path) -> None:
    assert record(registry, "provisioning", check=True, lease=TERMS)["leases"][0]["slot"] == 1
    assert not registry.exists()


def test_a_ready_task_stays_ready_when_it_is_provisioned_again(registry: pathlib.Path) -> None:
    record(registry, "provisioning")
    record(registry, "provisioning", plan=PLAN)
    record(registry, "ready")
    again = record(registry, "provisioning")
    assert not again["changed"]
    assert again["tasks"][0]["state"] == "ready"
    assert not record(registry, "provisioning", plan=PLAN)["changed"]


def test_a_second_teardown_is_told_from_a_wrong_name(registry: pathlib.Path) -> None:
    record(registry, "provisioning")
    record(registry, "absent")
    again = record(registry, "removing")
    assert (again["changed"], again["missing"]) == (False, ["a"])
    assert "nothing to tear down" in again["summary"]
    record(registry, "provisioning", task="fix-login")
    with pytest.raises(UserError, match="no task fix-logn") as refused:
        record(registry, "removing", task="fix-logn")
    assert refused.value.hint == "did you mean fix-login?"


def test_who_is_at_work_is_named(registry: pathlib.Path) -> None:
    record(registry, "provisioning", holder=holder(os.getpid()))
    with pytest.raises(UserError, match=f"being provisioned by process {os.getpid()} of ada"):
        record(registry, "provisioning", holder=holder(os.getppid()))
    record(registry, "provisioning", holder=holder(os.getpid()))


def test_a_run_that_died_is_taken_over(registry: pathlib.Path) -> None:
    dead = {**holder(os.getpid()), "started": 1}
    record(registry, "provisioning", holder=dead)
    assert record(registry, "provisioning", holder=holder(os.getpid()))["tasks"][0]["state"] == "provisioning"


def test_a_task_that_is_refused_leaves_no_trace_if_it_is_new(registry: pathlib.Path) -> None:
    record(registry, "provisioning")
    refusal = {"msg": "no\nhint: go", "hint": "go", "failure": "partial"}
    with pytest.raises(PartialFailure, match=r"^no$") as told:
        record(registry, "absent", keep_planned=True, refusal=refusal)
    assert told.value.hint == "go"
    with pytest.raises(UserError, match="there is no task a"):
        record(registry, "removing")
    record(registry, "provisioning", plan=PLAN)
    record(registry, "absent", keep_planned=True)
    assert record(registry, "removing")["tasks"]


def test_plans_grow_and_keep_what_was_planned(registry: pathlib.Path) -> None:
    record(registry, "provisioning", plan=PLAN)
    more = {**PLAN, "worktrees": [{"path": "/w/b", "branch": "b"}, {"path": "/w/a", "branch": "renamed"}]}
    plan = record(registry, "provisioning", plan=more)["tasks"][0]["plan"]
    assert {one["path"]: one["branch"] for one in plan["worktrees"]} == {"/w/a": "a", "/w/b": "b"}


def test_another_back_end_is_refused_while_the_task_lives(registry: pathlib.Path) -> None:
    record(registry, "provisioning", plan=PLAN)
    with pytest.raises(UserError, match="embedded d, and the workspace now asks for container d"):
        record(registry, "provisioning", plan={**PLAN, "database": {"backend": "container", "name": "d"}})


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"root": "/one"}, {"root": "/two"}, "belongs to /one"),
        ({"branch": "x"}, {"branch": "y"}, "provisioned for branch x"),
    ],
)
def test_what_is_frozen(registry: pathlib.Path, first: dict[str, t.Any], second: dict[str, t.Any], words: str) -> None:
    record(registry, "provisioning", **first)
    with pytest.raises(UserError, match=words):
        record(registry, "provisioning", **second)


def test_existing_tasks_can_be_refused(registry: pathlib.Path) -> None:
    record(registry, "provisioning")
    record(registry, "provisioning", existing="refuse")  # an interrupted one goes on
    record(registry, "ready")
    with pytest.raises(UserError, match="already registered") as refused:
        record(registry, "provisioning", existing="refuse")
    assert "parallel.worktrees.status" in str(refused.value.hint)
    assert "parallel.worktrees.teardown" in str(refused.value.hint)


def test_two_branches_that_look_alike_get_distinct_subdomains(registry: pathlib.Path) -> None:
    pattern = "[a-z/]+"
    one = record(registry, "provisioning", task="feat/x", pattern=pattern)["tasks"][0]
    other = record(registry, "provisioning", task="fix/x", pattern=pattern)["tasks"][0]
    assert one["subdomain"] == "x"
    assert other["subdomain"].startswith("x-")


def test_check_mode_touches_nothing(registry: pathlib.Path) -> None:
    for state in ("provisioning", "ready"):
        assert record(registry, state, check=True)["changed"]
    assert not registry.parent.exists()
    record(registry, "provisioning")
    before = (registry.read_bytes(), sorted(registry.parent.iterdir()))
    record(registry, "provisioning", task="b", check=True)
    record(registry, "removing", check=True)
    assert (registry.read_bytes(), sorted(registry.parent.iterdir())) == before


def test_the_registry_is_private(registry: pathlib.Path) -> None:
    record(registry, "provisioning")
    assert registry.stat().st_mode & 0o077 == 0


def test_two_registries_give_different_marks(tmp_path: pathlib.Path) -> None:
    owners = {record(tmp_path / name / "r", "provisioning")["tasks"][0]["owner"] for name in "ab"}
    assert len(owners) == 2
    assert {_registry.task_of(owner)[1:] for owner in owners} == {("w", "a")}


def _damaged(path: pathlib.Path) -> None:
    path.write_bytes(b"this is no database, but it is long enough to be looked at" * 20)


def _of_a_later_version(path: pathlib.Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 99")


def _cut_short(path: pathlib.Path) -> None:
    record(path, "provisioning")
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("spoil", [_damaged, _of_a_later_version, _cut_short])
def test_a_registry_that_cannot_be_read_is_told_and_kept(
    registry: pathlib.Path, spoil: t.Callable[[pathlib.Path], None]
) -> None:
    registry.parent.mkdir()
    spoil(registry)
    before = registry.read_bytes()
    with pytest.raises(EnvironmentFailure, match=str(registry)) as told:
        record(registry, "provisioning", task="b")
    assert told.value.hint
    assert registry.read_bytes() == before


def _register(registry: pathlib.Path, number: int) -> str:
    try:
        return t.cast(str, record(registry, "provisioning", task=f"t{number}")["tasks"][0]["state"])
    except WorktreesError as error:
        return error.message


def test_many_processes_at_once(registry: pathlib.Path) -> None:
    with multiprocessing.get_context("fork").Pool(12) as pool:
        states = pool.starmap(_register, [(registry, number) for number in range(24)])
        pool.close()
        pool.join()  # else they are ended, which one that has only just started may not survive in good order
    assert set(states) == {"provisioning"}
    assert len(record(registry, "removing", task=None, all_tasks=True)["tasks"]) == 24


@pytest.mark.parametrize("step", [86400, -86400])
def test_a_clock_that_is_set_ends_no_run_on_another_machine(
    registry: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    clock = Clock(monkeypatch, 1_000_000)
    away = {**holder(os.getpid()), "machine": "another"}
    record(registry, "provisioning", holder=away)
    clock.pass_by(_holder.AWAY_SECONDS - 1)
    clock.set(step)
    with pytest.raises(UserError, match="task a is being provisioned"):
        record(registry, "removing", holder=holder(os.getpid()))
    clock.pass_by(2)
    assert record(registry, "removing", holder=holder(os.getpid()))["changed"]


def test_an_age_is_never_negative(registry: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 1_000_000)
    record(registry, "provisioning")
    clock.pass_by(7200)
    clock.set(-(10**6))
    with _registry.opened(str(registry), write=False) as opened:
        (found,) = opened.records()
    assert _records.age(found.created) == "2 h"


def test_a_record_is_shown_line_by_line_without_a_password(registry: pathlib.Path) -> None:
    record(registry, "provisioning")
    facts = {"database": {"url": f"x://u:{DATABASE_PASSWORD}@h/"}}
    (difference,) = record(registry, "provisioning", plan={**PLAN, "facts": facts})["diff"]
    assert difference["before"] == "a: provisioning, branch a\n"
    assert difference["after"].startswith("a: provisioning, branch a\n  {\n")
    assert max(map(len, difference["after"].splitlines())) < 120
    assert DATABASE_PASSWORD not in difference["after"]
    assert "x://u:********@h/" in difference["after"]


def test_what_commands_are_given_is_kept_from_the_plan_on(registry: pathlib.Path) -> None:
    """Until the task is ready: what it has then stays while it is provisioned again."""
    record(registry, "provisioning")
    record(registry, "provisioning", plan={**PLAN, "facts": {"slot": 1}})
    planned = record(registry, "provisioning", plan={**PLAN, "facts": {"slot": 2}})
    assert planned["tasks"][0]["plan"]["facts"]["slot"] == 2
    facts = {"slot": 3, "ports": {}, "name": "a", "worktrees": {}, "branch": "a", "database": {}}
    record(registry, "ready", facts=facts)
    again = record(registry, "provisioning", plan={**PLAN, "facts": {"slot": 4}})
    assert again["tasks"][0]["plan"]["facts"]["slot"] == 3
