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
    "zfs": {"db_host_store": "zfs", "db_host_dataset": "tank/parallel-worktrees"},
    "btrfs": {"db_host_store": "btrfs"},
    "xfs": {"db_host_store": "xfs"},
}
"""What the role is told of each kind of pool."""


class DbHost(workspaces.Workspace):
    """The machine ``box`` of an inventory, alone in the group ``db_hosts``."""

    def __init__(self, folder: pathlib.Path, machine: SshHost, store: str, **variables: t.Any) -> None:
        super().__init__(folder, folder / "db_host.yml", folder / "state", {})
        self.machine = machine
        self.on = machine.on
        file = {"db_host_file": "/var/lib/parallel-worktrees.pool", "db_host_file_size": "1G"}
        self.file.write_text(yaml.safe_dump({**POOL[store], **file, **variables}))
        self.inventory = folder / "inventory.yml"
        self.inventory.write_text(yaml.safe_dump({"db_hosts": {"hosts": {"box": machine.inventory()}}}))

    def everything(self) -> list[str]:
        """All that a run could touch: files with their times, file systems, services, rules of the firewall."""
        find = (
            "find /etc /srv /usr/local /var/lib /run /root /home -xdev -not -path '*/.ansible/*'"
            " -not -path '/run/systemd/*' -not -path '/run/user*' -not -path '/run/sudo/*' -not -path '/run/utmp'"
            " -not -path '/var/lib/systemd/*' -not -path '/var/lib/apt/*' -printf '%p %m %u %T@ %s %l\\n' | sort"
        )
        asked = (
            find,
            "grep -v ' /run/' /proc/mounts",
            "losetup -a",
            "systemctl list-units --all --plain --type=service",
        )
        return [line for one in asked for line in self.on("sh", "-c", one).splitlines()]

    def host_file(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads(self.on("cat", "/etc/parallel-worktrees/db_host.json")))
