# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The play in the README of each role, as a user runs it: with validation on, twice, then torn down."""

from __future__ import annotations

import pathlib
import re

import pytest
from integration import workspaces
from integration.workspaces import CLONE

PLAY = re.compile(r"^```yaml\n(- name: .*?)^```$", re.MULTILINE | re.DOTALL)
PLAYS = {
    path.parent.name: found[1]
    for path in sorted((CLONE / "roles").glob("*/README.md"))
    if (found := PLAY.search(path.read_text()))
}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    given = {"env_shell": ["file"], "hooks_enabled": True}
    with workspaces.bautista(tmp_path_factory.mktemp("alone"), **given) as made:
        yield made


def test_the_roles_that_provision_show_a_play():
    assert set(PLAYS) >= {"agents", "database", "env", "hooks", "lease", "worktrees"}


@pytest.mark.parametrize("role", PLAYS)
def test_the_play_of_a_role(space, role, tmp_path):
    file = pathlib.Path(tmp_path, "play.yml")
    file.write_text(PLAYS[role])
    assert "rolespec_validate" not in PLAYS[role]
    alone = space.varied()
    alone.playbook = str(file)
    name = f"{role}-alone"
    run = alone.run("play", task=name).must()
    assert any(str(one.get("action")).endswith("validate_argument_spec") for one in run.results)
    assert run.recap[name]["changed"]
    again = alone.run("play", task=name).must()
    assert again.recap[name]["changed"] == 0, str(again)
    space.teardown(name).must()
    assert space.traces(name) == []
