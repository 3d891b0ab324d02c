# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine behind SSH that is made a DB host, the playbooks run on it, and looks at it with the real tools."""

from __future__ import annotations

import json
import pathlib
import typing as t

import yaml
from integration import workspaces

if t.TYPE_CHECKING:
    from conftest import SshHost

POOL = {
    "db_host_zfs_package": "zfs-fuse",
    "db_host_file": "/var/lib/parallel-worktrees.pool",
    "db_host_file_size": "1G",
}
ROOT = "/srv/parallel-worktrees"


class DbHost(workspaces.Workspace):
    """The machine ``box`` of an inventory, alone in the group ``db_hosts``."""

    def __init__(self, folder: pathlib.Path, machine: SshHost, store: str, **variables: t.Any) -> None:
        file = folder / "db_host.yml"
        super().__init__(folder, file, folder / "state", {})
        self.machine = machine
        self.on = machine.on
        file.write_text(yaml.safe_dump({**POOL, "db_host_store": store, **variables}))
        self.environment = {"ANSIBLE_PIPELINING": "true"}
        self.inventory = folder / "inventory.yml"
        self.inventory.write_text(yaml.safe_dump({"db_hosts": {"hosts": {"box": machine.inventory()}}}))

    def run(self, verb: str, *options: str, **variables: t.Any) -> workspaces.Run:
        """To its end, which takes a while: packages are installed."""
        return self.start(verb, *options, **variables).end(timeout=900)

    def calls(self, *calls: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        """The answers of modules of this collection, called there one after another by root."""
        tasks = [
            {
                "name": str(number),
                "ignore_errors": True,
                **{f"parallel.worktrees.{name}": given for name, given in one.items()},
            }
            for number, one in enumerate(calls)
        ]
        play = {"hosts": "box", "gather_facts": False, "become": True, "tasks": tasks}
        playbook = self.root / "calls.yml"
        playbook.write_text(json.dumps([play]))
        run = self.run(str(playbook))
        answers = {one["step"]: one["result"] for one in run.results if "step" in one}
        return [answers[str(number)] for number in range(len(calls))]

    def command(self, verb: str, *options: str, **variables: t.Any) -> list[str]:
        words = super().command(verb, *options, **variables)
        return [word.removeprefix("parallel.worktrees.") if word.endswith(".yml") else word for word in words]

    def everything(self) -> list[str]:
        """All that a run could touch: files with their times, file systems, services, rules of the firewall."""
        moving = ["*/.ansible*", "/run", "/run/systemd/*", "/run/user*", "/run/sudo/*", "/run/utmp", "/run/motd*"]
        moving += ["/var/lib/systemd/*", "/var/lib/apt/*"]
        left_out = " ".join(f"-not -path '{path}'" for path in moving)
        places = "/etc /srv /usr/local /var/lib /run /root"
        find = f"find {places} -xdev {left_out} -printf '%p %m %u %T@ %s %l\\n' | sort"
        units = "systemctl list-units --all --plain --no-legend 'parallel-worktrees*' 'postgresql*' 'pgbouncer*' 'zfs*'"
        asked = (find, "grep -v ' /run/' /proc/mounts", units, "! command -v nft >/dev/null || nft list ruleset")
        return [line for one in asked for line in self.on("sh", "-c", one).splitlines()]

    def host_file(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads(self.on("cat", "/etc/parallel-worktrees/db_host.json")))
