# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of the inventory a playbook works on, by the variable that names them.

Private to this collection: may change without notice.

Ansible runs a play whose pattern matches no host on nothing and calls that a success; and a pattern cannot use
variables of hosts, so that what ``group_vars`` says would be ignored.
"""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager

from ..module_utils._errors import UserError
from ..module_utils._options import meant

TASKS = "parallel_worktrees_tasks"
"""The group of the hosts that stand for tasks."""
DEFAULTS = {"workspace_machine": "localhost", "db_host": "db_hosts"}

if t.TYPE_CHECKING:
    from ansible.parsing.dataloader import DataLoader


class NotYet(Exception):
    """Before its first play has run on a host, Ansible tells nothing of the variables of hosts."""


def machines(
    name: str, variables: t.Mapping[str, t.Any], *, loader: DataLoader, template: t.Callable[[t.Any], t.Any]
) -> list[str]:
    """The hosts that a variable names.

    :arg name: one of ``DEFAULTS``.
    :arg variables: those of a play, with Ansible's ``groups`` and ``hostvars``.
    :raises UserError: the inventory has no such host, or says the variable where it does not count.
    :raises NotYet: it cannot be told.
    """
    groups: dict[str, list[str]] = variables["groups"]
    pattern = str(
        template(variables.get(name)) or _of_inventory(name, groups, variables.get("hostvars")) or DEFAULTS[name]
    )
    inventory = InventoryManager(loader, parse=False)
    for group, hosts in groups.items():
        inventory.add_group(group)
        for host in hosts:
            inventory.add_host(host, group=group)
    try:
        found = [host.name for host in inventory.get_hosts(pattern=pattern)]
    except AnsibleError:  # the setting host_pattern_mismatch
        found = []
    if not found:
        raise _missing(name, pattern, sorted({host for hosts in groups.values() for host in hosts}))
    return found


def _missing(name: str, pattern: str, known: list[str]) -> UserError:
    if pattern == DEFAULTS[name]:
        words, example = f"{name} is not given, and the inventory does not have {pattern}", "HOST"
    else:
        words, example = f"{name} is {pattern}, which the inventory does not have", pattern
    hint = f"give the inventory that has it: -i inventory -e {name}={example}"
    return UserError(
        words + meant(pattern, known), hint=f"choose from: {', '.join(known)}; or {hint}" if known else hint
    )


def _of_inventory(name: str, groups: t.Mapping[str, list[str]], hostvars: t.Mapping[str, t.Any] | None) -> str | None:
    """What the inventory says for all hosts, this machine among them.

    :raises UserError: it says so for some hosts only, and none of them is known to be meant.
    """
    if not any(groups.values()):
        return None
    if hostvars is None:
        raise NotYet
    if value := hostvars["localhost"].get(name):
        return str(value)
    said = {host: value for host in groups.get("all", ()) if (value := hostvars[host].get(name))}
    if said:
        value = next(iter(said.values()))
        raise UserError(
            f"{name} is said for {', '.join(said)} only, and counts for the whole run: which hosts it has is decided "
            "before any of them is looked at",
            hint=f"say it for all (group_vars/all.yml), or on the command line: -e {name}={value}",
        )
    return None
