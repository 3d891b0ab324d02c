# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On which machine a playbook works: what the inventory has and says, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t

import pytest
import yaml
from integration import workspaces

if t.TYPE_CHECKING:
    import pathlib

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
HERE = "localhost"
BOXES: dict[str, t.Any] = {"all": {"hosts": {"box": LOCAL, "other": LOCAL}}}
SAID_FOR_ALL = {"all": {**BOXES["all"], "vars": {"workspace_machine": "box"}}}
SAID_FOR_ITSELF = {"all": {"hosts": {"box": {**LOCAL, "workspace_machine": "box"}}}}


def run(folder: pathlib.Path, verb: str, inventory: dict[str, t.Any] | None, **variables: str) -> tuple[int, str]:
    """The code and the output of a playbook, with Ansible's own settings."""
    words = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), f"parallel.worktrees.{verb}"]
    if inventory is not None:
        (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
        words += ["-i", str(folder / "inventory.yml")]
    for name, value in variables.items():
        words += ["-e", f"{name}={value}"]
    environ = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    environ |= {"ANSIBLE_COLLECTIONS_PATH": str(workspaces.COLLECTIONS), "XDG_STATE_HOME": str(folder)}
    done = subprocess.run(words, cwd=folder, env=environ, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("inventory", "given", "machine"),
    [
        (None, {}, HERE),
        (BOXES, {}, HERE),
        (BOXES, {"workspace_machine": "box"}, "box"),
        (SAID_FOR_ALL, {}, "box"),
        (SAID_FOR_ALL, {"workspace_machine": "other"}, "other"),
        (SAID_FOR_ITSELF, {"workspace_machine": HERE}, HERE),
    ],
    ids=["none", "inventory", "command line", "all", "command line beats all", "command line beats a host"],
)
def test_a_playbook_works_on_the_machine_that_is_said(
    tmp_path: pathlib.Path, inventory: dict[str, t.Any] | None, given: dict[str, str], machine: str
) -> None:
    code, output = run(tmp_path, "status", inventory, **given)
    assert code == 0, output
    assert f"ok: [{machine}]" in output.partition("PLAY [Status]")[2], output


@pytest.mark.parametrize(
    ("verb", "inventory", "given", "words"),
    [
        ("provision", None, {"workspace_machine": "box"}, ["is box,", "-i inventory -e workspace_machine=box"]),
        ("status", BOXES, {"workspace_machine": "bxo"}, ["is bxo,", "did you mean box?", "choose from: box, other"]),
        ("teardown", SAID_FOR_ITSELF, {}, ["is said for box only", "group_vars/all.yml", "-e workspace_machine=box"]),
        ("db_host", None, {}, ["does not have db_hosts", "-i inventory -e db_host=HOST"]),
        ("db_refresh", BOXES, {"db_host": "bxo"}, ["db_host is bxo", "did you mean box?"]),
        ("db_status", BOXES, {"db_host": "bxo"}, ["db_host is bxo"]),
        ("db_status", None, {"workspace_machine": "box"}, ["workspace_machine is box"]),
    ],
)
def test_a_machine_that_is_not_there_is_refused(
    tmp_path: pathlib.Path, verb: str, inventory: dict[str, t.Any] | None, given: dict[str, str], words: list[str]
) -> None:
    code, output = run(tmp_path, verb, inventory, task="any", **given)
    assert code == 2, output
    for word in words:
        assert word in output, output
    assert output.count("TASK [") == 1, "nothing else is done"
