# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With Ansible's own output a run says the same as with the collection's."""

from __future__ import annotations

import json

import pytest
from integration import workspaces

DEFAULT = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A workspace without databases, whose runs have Ansible's own output."""
    with workspaces.bautista(tmp_path_factory.mktemp("default")) as made:
        made.environment = dict(DEFAULT)
        yield made


def result(run) -> str:
    """The lines of the last Ansible task of a run, as a text."""
    last = run.must().stdout.rpartition("TASK [Result]")[2]
    assert last, run
    return "\n".join(json.loads(last[last.index("=> {") + 3 : last.index("\n}\n") + 2])["msg"])


def test_provision_reports_all_tasks_once(space):
    said = result(space.provision("one,two"))
    for task in ("one", "two"):
        assert f"{task}: ready\n" in said
        assert str(space.worktree("docs", task)) in said
        assert f"ansible-playbook parallel.worktrees.teardown -e @{space.file} -e workspace_root={space.root}" in said
    assert said.count(": ready\n") == 2


@pytest.mark.parametrize(
    ("verb", "variables", "words"),
    [
        ("status", {}, ["TASK", "one", "two", "ready"]),
        ("exec", {"task": "one", "command": "echo said"}, ["said"]),
        ("reserve", {"task": "one", "paths": "src/**"}, ["one: has reserved", "src/**"]),
        ("prune", {}, ["nothing"]),
    ],
)
def test_other_verbs(space, verb, variables, words):
    said = result(space.run(verb, **variables))
    for word in words:
        assert word in said


def test_the_own_output_says_it_once(space):
    own = space.varied()
    own.environment = {}
    run = own.teardown("one,two").must()
    assert run.stdout.count("one: torn down\n") == 1
    assert "Result" not in run.stdout
    assert "nothing to tear down" in result(space.teardown("one"))
