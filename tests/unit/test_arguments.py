# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module says of arguments that it does not take."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils._arguments import validated
from ansible_collections.parallel.worktrees.plugins.module_utils._databases import _no_port
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

SPEC: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "inner": {"type": "dict", "options": {"port": {"type": "int"}}},
}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "a", "nmae": 1}, ["there is no nmae; did you mean name?"]),
        ({"name": "a", "inner": {"prot": 1}}, ["there is no inner.prot; did you mean inner.port?"]),
        ({"other": 1}, ["missing required arguments: name", "there is no other"]),
        ({"name": "a", "inner": {"port": "x"}}, ["unable to convert to int"]),
    ],
)
def test_what_is_not_taken_is_named(given: dict[str, t.Any], words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        validated("task_exec", SPEC, given)
    assert refused.value.message.startswith("module task_exec cannot take these arguments: ")
    for word in words:
        assert word in refused.value.message
    assert "Supported parameters" not in refused.value.message
    assert refused.value.hint == "what it takes: ansible-doc parallel.worktrees.task_exec"


def test_arguments_get_their_types() -> None:
    assert validated("x", SPEC, {"name": 1, "inner": {"port": "2"}}).validated_parameters == {
        "name": "1",
        "inner": {"port": 2},
    }


def test_a_database_without_a_port_is_told_which_there_are() -> None:
    error = _no_port({"db": 15433, "web": 3001})
    assert error.message == "the database has no port: the task has db, web, and none is called database"
    assert 'database_port: "{{ task_facts.ports.db }}"' in str(error.hint)
    assert "the task has none" in _no_port({}).message
