# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""port_lease alone: a play of somebody who wants ports and nothing else of this collection."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import typing as t

import pytest
from integration.workspaces import COLLECTIONS
from ports import free_base

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Lease
      parallel.worktrees.port_lease:
        workspace: "{{ space }}"
        owners: "{{ names }}"
        ports: {http: {base: "{{ base }}"}, debug: {base: "{{ base + 100 }}"}}
        slots: "{{ slots | default({}) }}"
        expires_after: "{{ expires_after | default(omit) }}"
        state: "{{ state | default('present') }}"
      register: lease
    - name: Use
      ansible.builtin.copy:
        content: "{{ lease | to_json }}"
        dest: "{{ out }}"
        mode: "0600"
      check_mode: false
"""


class Play:
    """The play in a folder of its own, with a registry of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.base = free_base()
        self.space = f"alone-{secrets.token_hex(3)}"
        (folder / "play.yml").write_text(PLAY)

    def __call__(self, *names: str, options: tuple[str, ...] = (), **more: t.Any) -> dict[str, t.Any]:
        """What the module answers."""
        out = self.folder / "out.json"
        values = {"space": self.space, "base": self.base, "out": str(out), "names": names, **more}
        program = pathlib.Path(sys.executable).with_name("ansible-playbook")
        done = subprocess.run(
            [program, self.folder / "play.yml", "-e", json.dumps(values), *options],
            check=False,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_LOCALHOST_WARNING": "False",
                "XDG_STATE_HOME": str(self.state),
            },
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return t.cast("dict[str, t.Any]", json.loads(out.read_text()))


@pytest.fixture
def play(tmp_path):
    return Play(tmp_path)


def test_ports_for_whoever_asks_and_back(play):
    with contextlib.closing(socket.socket(socket.AF_INET6)) as listener:
        listener.bind(("::1", play.base + 1))
        listener.listen()
        first = play("pr-17", "pr-18")
    assert [one["ports"] for one in first["leases"]] == [
        {"http": play.base + slot, "debug": play.base + 100 + slot} for slot in (2, 3)
    ]
    assert f"port {play.base + 1} (http) is taken" in first["summary"]
    assert play("pr-17")["changed"] is False
    # Another workspace of the machine gets others, in a play of its own.
    assert play("pr-17", space="another", slots={"first": 2})["leases"][0]["slot"] == 4
    assert play("pr-17", state="absent")["changed"]
    assert play("pr-19", slots={"first": 2})["leases"][0]["slot"] == 2
    files = sorted(path.name for path in play.state.rglob("*") if path.is_file())
    assert files == ["registry.sqlite3", "registry.sqlite3.copy"]


def test_a_lease_for_a_while(play):
    lease = play("pr-17", expires_after=3600)["leases"][0]
    used = play("pr-17")
    assert not used["changed"]
    assert used["leases"][0]["expires"] > lease["expires"]


def test_a_dry_run_leases_nothing(play):
    assert play("pr-17", options=("--check",))["leases"][0]["slot"] == 1
    assert not play.state.exists()
