# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plays in the README of each role and in docs/, as a user runs them: with validation on, twice, then torn down."""

from __future__ import annotations

import pathlib
import re
import typing as t

import pytest
from integration import workspaces
from integration.workspaces import CLONE, Run


def plays(path: pathlib.Path) -> list[str]:
    return re.findall(r"^```yaml\n(- name: .*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


PLAYS = {path.parent.name: plays(path) for path in sorted((CLONE / "roles").glob("*/README.md"))}
PLAYS["all"] = plays(CLONE / "docs" / "your-own-playbook.md")
ON_A_DB_HOST = {"db_host"}
"""What the molecule scenario of a DB host runs."""
FOR_A_READY_TASK = {"analysis", "ci", "gate", "integration", "reservations"}
EACH_TIME_ANEW = {"analysis", "reservations"}
"""Reports are written, and a reservation lasts longer, with each run."""
WRITES_INTO_WORKTREES = {"ci"}
VARIABLES: dict[str, dict[str, t.Any]] = {
    "all": {"database_backend": "embedded"},
    "analysis": {"analysis_checks": [{"name": "files", "command": "ls"}], "wait": True},
    "database": {"database_backend": "embedded"},
    "reservations": {"paths": "src/**"},
}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    given: dict[str, t.Any] = {
        "env_shell": ["file"],
        "hooks_enabled": True,
        "gate_checks": [{"name": "files", "command": "ls", "stages": ["gate", "integration"]}],
    }
    with workspaces.bautista(tmp_path_factory.mktemp("alone"), **given) as made:
        yield made


@pytest.mark.parametrize("role", sorted(PLAYS.keys() - ON_A_DB_HOST))
def test_the_plays_of_a_role(space, role, tmp_path):
    def run(number: int) -> Run:
        play = tmp_path / f"play-{number}.yml"
        play.write_text(PLAYS[role][number])
        alone = space.varied(**VARIABLES.get(role, {}))
        alone.playbook = str(play)
        made: Run = alone.run("play", task=name)
        return made.must()

    name = f"{role}-alone"
    if role in FOR_A_READY_TASK:
        space.provision(name).must()
    first = run(0)
    assert any(str(result.get("action")).endswith("validate_argument_spec") for result in first.results)
    assert role in EACH_TIME_ANEW or run(0).changed == 0
    if PLAYS[role][1:]:
        assert run(1).changed
    space.teardown(name, force=role in WRITES_INTO_WORKTREES).must()
    assert space.traces(name) == []


def test_a_role_that_makes_something_shows_how_it_is_removed():
    removes = {path.parent.parent.name for path in (CLONE / "roles").glob("*/tasks/teardown.yml")} - {"gate"}
    assert {role for role, plays in PLAYS.items() if len(plays) == 2} >= removes
    assert all(PLAYS.values())
