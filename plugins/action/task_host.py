# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import typing as t

from ansible.plugins.action.add_host import ActionModule as AddHost
from ansible.plugins.loader import lookup_loader

from ..plugin_utils import _loading
from ..plugin_utils._machines import TASKS

_loading.preload()  # before the plays over the tasks, which fork a worker for each

LEASED = ("slot", "ports")
_CONNECTION = re.compile(
    r"ansible_(host|port|user|password|connection|private_key_file|remote_tmp|shell_\w+|python_interpreter"
    r"|ssh_\w+|sftp_\w+|scp_\w+|become\w*|pipelining|docker_\w+|podman_\w+)$"
)


class ActionModule(AddHost):
    """Add the host that stands for a task: reached as the machine is reached on which the task lives."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        task_vars = task_vars or {}
        record, adopted = self._task.args["record"], self._task.args.get("adopted")
        if adopted and adopted["adopt"]:
            # The plan that the task is about to have: of this one worktree alone.
            record = {**record, "plan": {"facts": record["plan"].get("facts", {}), "worktrees": [adopted]}}
        former = record["plan"].get("facts", {})
        if record["state"] == "provisioning":
            former = {**former, "branches": {}}  # frozen once the task is ready
        leased: dict[str, t.Any] = next(
            (one for one in self._task.args.get("leases") or () if one["owner"] == record["name"]), {}
        )
        # Without a lease of this call, that which the task is known to have.
        lease = {**former, **{key: record[key] for key in LEASED if key in record}, **leased}
        machine = task_vars["inventory_hostname"]
        taken = {machine, "localhost", *(name for names in task_vars["groups"].values() for name in names)}
        taken -= set(task_vars["groups"].get(TASKS, ()))
        name, workspace = record["name"], record["workspace"]
        connection = {
            key: self._templar.template(value) for key, value in task_vars.items() if _CONNECTION.fullmatch(key)
        }
        if self._connection.transport != "local":
            connection.setdefault("ansible_host", machine)
        connection.setdefault("ansible_connection", self._connection.transport)
        self._task.args = {
            "name": f"{name}@{workspace}" if name in taken else name,
            "groups": TASKS,
            "task_machine": machine,
            "task_record": record,
            "task_facts": {
                "worktrees": {},
                "database": {},
                **former,
                **{key: record[key] for key in ("name", "workspace", "owner", "branch", "slug", "subdomain")},
                "slot": lease.get("slot"),
                "ports": lease.get("ports", {}),
                "main_ports": lease.get("main_ports", {}),
            },
            **connection,
        }
        said: dict[str, t.Any] = {}
        if file := self._workspace_file(task_vars):
            # Each value is a template still, which the facts of this task will fill.
            said = self._loader.load_from_file(file, trusted_as_template=True, unsafe=True)
            self._task.args["task_facts"]["workspace_file"] = file
        self._task.args = {"workspace_root": record.get("root"), **said, **self._task.args}
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        # A host of Ansible's inventory is nothing that was changed on the machine.
        result["changed"] = False
        return result

    def _workspace_file(self, task_vars: dict[str, t.Any]) -> str:
        lookup = lookup_loader.get("parallel.worktrees.workspace_file", loader=self._loader, templar=self._templar)
        return str(lookup.run([], variables=task_vars)[0])
