# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of a workspace, by the roles' own documentation."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml

from ansible_collections.parallel.worktrees.plugins.module_utils import _options

ROLES = sorted((pathlib.Path(__file__).parents[2] / "roles").iterdir())
SPECS = {
    role.name: yaml.safe_load((role / "meta" / "argument_specs.yml").read_bytes())["argument_specs"] for role in ROLES
}
MAIN: dict[str, t.Any] = {
    name: about for entries in SPECS.values() for name, about in entries.get("main", {}).get("options", {}).items()
}
WORKSPACE = {"workspace_root": "/srv", "task": "a", "worktrees_repos": ["docs"]}


def resolve(value: str) -> t.Any:
    if "{{" in value:
        raise _options.NotYet
    return value


def faults(**given: t.Any) -> list[str]:
    return list(_options.faults(MAIN, {**WORKSPACE, "a_variable_of_mine": {}, **given}, resolve))


def test_a_template_that_stands_for_nothing_is_as_good_as_none() -> None:
    given = {**WORKSPACE, "database_databases": [{"name": "a", "pull": "{{ nothing }}"}]}
    assert not list(_options.faults(MAIN, given, lambda value: None if "nothing" in value else value))


def test_each_variable_has_one_owner() -> None:
    owners: dict[str, set[str]] = {}
    for role, entries in SPECS.items():
        for entry in entries.values():
            for name in entry.get("options", {}):
                owners.setdefault(name, set()).add(role)
    assert {name: roles for name, roles in owners.items() if len(roles) > 1} == {}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"worktrees_repos": ["docs", {"name": "api", "links": ["vendor", {"path": "x", "optional": "yes"}]}]},
        {"worktrees_repos": [{"name": "{{ x }}", "submodules": "{{ task_facts.x }}", "setup": ["make {{ x }}"]}]},
        {"worktrees_repos": "{{ task_facts.anything }}"},
        {"env_files": [{"repo": "docs", "path": ".env", "values": {"PORT": "{{ task_facts.ports.web }}", "NO": None}}]},
        {"env_files": [{"repo": "docs", "path": "{{ task_facts.name }}.env", "content": "x", "source": None}]},
        {"database_port": "{{ task_facts.ports.database }}", "database_memory": None, "database_name": 7},
        {"database_timeout": 1.5, "count": "30", "lease_slot": 0, "lease_slots": {"last": "15"}},
        {"database_timeout": "1.5", "database_settings": {"jit": False}},
        {"env_shell": ["file", "mise"]},
    ],
)
def test_what_is_right_passes(given: dict[str, t.Any]) -> None:
    assert faults(**given) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"database_backend": "dockr"},
            "database_backend is 'dockr', and has to be one of none, branch, container, embedded, shared",
        ),
        ({"database_backend": ["none"]}, "database_backend is a list, and has to be a text"),
        (
            {"lease_slots": {"strategy": "foo"}},
            "lease_slots.strategy is 'foo', and has to be one of lowest, hash, fixed",
        ),
        ({"env_shell": ["file", "fish"]}, "env_shell[1] is 'fish', and has to be one of file, direnv, mise"),
        ({"lease_slots": {"frist": 3}}, "lease_slots.frist: nothing reads it; did you mean first?"),
        ({"lease_slots": 15}, "lease_slots is 15, and has to be a dictionary"),
        ({"lease_slot": "1.5"}, "lease_slot is '1.5', and has to be a whole number"),
        ({"lease_slot": True}, "lease_slot is True, and has to be a whole number"),
        ({"count": 2.5}, "count is 2.5, and has to be a whole number"),
        ({"database_timeout": "soon"}, "database_timeout is 'soon', and has to be a number"),
        ({"database_settings": "jit=off"}, "database_settings is a text, and has to be a dictionary"),
        ({"worktrees_repos": "docs"}, "worktrees_repos is a text, and has to be a list"),
        ({"worktrees_repos": ["docs", ["api"]]}, "worktrees_repos[1] is a list, and has to be a text or a dictionary"),
        ({"worktrees_repos": [{"path": "x"}]}, "worktrees_repos[0].name is missing"),
        (
            {"worktrees_repos": [{"name": "docs", "submodule": ["x"]}]},
            "worktrees_repos[0].submodule: nothing reads it; did you mean submodules?",
        ),
        (
            {"worktrees_repos": [{"name": "docs", "submodules": "x"}]},
            "worktrees_repos[0].submodules is a text, and has to be a list",
        ),
        (
            {"worktrees_repos": [{"name": "docs", "setup": [{"command": "make", "dir": "x"}]}]},
            "worktrees_repos[0].setup[0].dir: nothing reads it",
        ),
        (
            {"worktrees_repos": [{"name": "docs", "links": [{"path": "x", "optional": "perhaps"}]}]},
            "worktrees_repos[0].links[0].optional is 'perhaps', and has to be true or false",
        ),
        (
            {"env_files": [{"repo": "{{ x }}", "path": "{{ task_facts.name }}", "value": {}}]},
            "env_files[0].value: nothing reads it; did you mean values?",
        ),
        (
            {"env_files": [{"repo": "docs", "path": ".env", "content": "{{ x }}", "values": {"A": 1}}]},
            "env_files[0] has content and values, and may have one of them",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(given: dict[str, t.Any], told: str) -> None:
    assert faults(**given) == [told]


def test_a_secret_in_the_wrong_place_is_not_told() -> None:
    assert "hunter2" not in str(faults(env_files=[{"repo": "docs", "path": ".env", "values": "PASSWORD=hunter2"}]))


def test_what_is_missing_is_told() -> None:
    assert list(_options.faults(MAIN, {"task": "a"}, resolve)) == ["worktrees_repos is missing"]


def test_a_value_that_has_to_wait_is_not_asked_for_in_vain() -> None:
    """Text passes whatever it is, so no lookup in it is made at this time."""

    def refuse(value: str) -> t.Any:
        raise AssertionError(value)

    files = [{"repo": "docs", "path": ".env", "values": {"KEY": "{{ lookup('pipe', 'pass show key') }}"}}]
    assert list(_options.faults({"env_files": MAIN["env_files"]}, {"env_files": files}, refuse)) == []


def test_a_slip_of_the_finger_is_told() -> None:
    given = ["database_backnd", "worktree_repos", "lease__given", "_task", "my_variable", "task", "tasks", "env_files"]
    assert _options.strays(MAIN, given) == [
        "database_backnd is no variable of this collection; did you mean database_backend?",
        "worktree_repos is no variable of this collection; did you mean worktrees_repos?",
    ]
