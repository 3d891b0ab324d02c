# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tasks get that have no database: answers in JSON, an environment, commands before they are ready."""

from __future__ import annotations

import json

import pytest
from integration import workspaces
from integration.workspaces import commit


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    with workspaces.bautista(tmp_path_factory.mktemp("without"), repos="backend") as made:
        yield made


def test_several_tasks_answer_in_one_document(space):
    """Those that are refused among them."""
    space.provision("json-1").must()
    commit(space.worktree("backend", "json-1"), "work.txt")
    (space.worktree("backend", "json-1") / "more.txt").write_text("more\n")
    run = space.provision("json-1,json-2", format="json").must()
    assert [(one["name"], one["state"]) for one in json.loads(run.stdout)["tasks"]] == [
        ("json-1", "ready"),
        ("json-2", "ready"),
    ]
    run = space.run("teardown", all_tasks=True, format="json")
    assert run.code != 0
    refused, removed = json.loads(run.stdout)["tasks"]
    assert (refused["name"], refused["failed"], refused["failure"]) == ("json-1", True, "user")
    assert "more.txt" in refused["msg"]
    assert "force=true" in refused["hint"]
    assert (removed["name"], removed["state"]) == ("json-2", "absent")
    run = space.teardown("json-1,json-2", force=True, format="json").must()
    told = {one["name"]: one["state"] for one in json.loads(run.stdout)["tasks"]}
    assert told == {"json-1": "absent", "json-2": "absent"}
    assert json.loads(space.run("teardown", all_tasks=True, format="json").must().stdout) == {"tasks": []}
    run = space.provision("json-3,no good", format="json")
    assert json.loads(run.stdout)["tasks"] == []
    assert json.loads(run.stdout)["failure"] == "user"
