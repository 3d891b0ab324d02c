#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: port_lease
short_description: Lease slots and the ports that are computed from them
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Leases a slot, which is a number, to each owner. Each named port gets the number C(base + slot * stride).
  - A slot is unique in its workspace, and a port is unique on the machine, because all workspaces use the same
    registry. Either all owners get a lease or none.
  - A slot is skipped if one of its ports is already leased, or if a process listens on it, on any address.
  - An owner that has a lease keeps its slot and ports, even if O(ports), O(slots) and O(slot) have changed. To get
    another lease, release the old lease first.
  - A lease may expire (O(expires_after)). An expired lease counts as released. Each call for its owner renews the
    lease. Expired leases are removed when any workspace needs a slot.
  - The module changes only the registry, so you can use it for ports alone, without the rest of this collection.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  registry:
    description:
      - The registry file. It is created if it does not exist.
      - It defaults to C(parallel-worktrees/registry.sqlite3) in E(XDG_STATE_HOME), or in C(~/.local/state) if that
        variable is not set.
    type: path
  workspace:
    description:
      - Name of the workspace that the owners belong to.
    type: str
    required: true
  owners:
    description:
      - The owners whose leases are made or released. An owner is usually the name of a task.
    type: list
    elements: str
    required: true
  state:
    description:
      - With V(present), each owner has a lease. With V(absent), no owner has a lease.
      - With V(renewed), the duration of existing leases starts again. An owner without a lease, for example because it
        has expired, is refused.
    type: str
    choices:
      - present
      - renewed
      - absent
    default: present
  ports:
    description:
      - The ports of a lease. Each key is a name of your choice. Each value is a dictionary with C(base) (an integer),
        C(stride) (an integer, by default V(1)) and C(main) (the port that the main working tree uses, by default
        C(base)).
      - The call is refused if a port of O(slots.first) or O(slots.last) is outside the range from 1 to 65535.
      - Without ports, a lease has only a slot.
    type: dict
    default: {}
  slots:
    description:
      - The range of the slots, and the order in which they are tried.
    type: dict
    default: {}
    suboptions:
      first:
        description:
          - The lowest slot, 0 or more.
        type: int
        default: 1
      last:
        description:
          - The highest slot.
        type: int
        default: 99
      strategy:
        description:
          - With V(lowest), the lowest free slot.
          - With V(hash), the slot that is computed from the owner's name (SHA-256 modulo the number of slots) or, if it
            is not free, the next free slot. The search for a name always starts at the same slot.
          - With V(fixed), the slot in O(slot).
        type: str
        choices:
          - lowest
          - hash
          - fixed
        default: lowest
  slot:
    description:
      - The slot to lease, with any strategy. The call is refused if the slot is not free.
      - Required with O(slots.strategy=fixed), unless the owner already has a lease.
    type: int
  expires_after:
    description:
      - Number of seconds after which a lease ends, unless it is used before. A call for an owner that has a lease is
        such a use.
      - If it is not set, a new lease does not end, and an existing lease is renewed for the same duration as before.
      - Setting the clock of the machine forwards or backwards does not change this time.
    type: int
seealso:
  - module: parallel.worktrees.task_record
"""

EXAMPLES = r"""
- name: Lease the lowest free slot, and with slot 1 the ports 15433 and 8010
  parallel.worktrees.port_lease:
    workspace: shop
    owners:
      - fix-login
    ports:
      database:
        base: 15432
      web:
        base: 8000
        stride: 10
  register: given

- name: Print the port of the database
  ansible.builtin.debug:
    msg: "{{ given.leases[0].ports.database }}"

- name: Lease a slot that is computed from the name, from fifteen slots
  parallel.worktrees.port_lease:
    workspace: adw
    owners:
      - a1b2c3d4
    ports:
      backend:
        base: 9100
      frontend:
        base: 9200
    slots:
      first: 0
      last: 14
      strategy: hash

- name: Lease a port for an hour, for a script that uses nothing else of this collection
  parallel.worktrees.port_lease:
    workspace: previews
    owners:
      - pr-17
    ports:
      http:
        base: 8000
    expires_after: 3600

- name: Release the slot and the ports
  parallel.worktrees.port_lease:
    workspace: shop
    owners:
      - fix-login
    state: absent
"""

RETURN = r"""
actions:
  description: What was leased, released and skipped, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - "fix-login: slot 1 was passed over: port 15433 (database) is taken by a process that is not ours"
    - lease slot 2 to fix-login
leases:
  description: The lease of each owner, in the order of O(owners); empty with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    owner:
      description: The owner, as in O(owners).
      type: str
      sample: fix-login
    slot:
      description: The slot.
      type: int
      sample: 2
    ports:
      description: The number of each port, by name.
      type: dict
      sample:
        database: 15434
        web: 8020
    passed_over:
      description:
        - The slots that were tried first but were not free when the slot was leased. This list is stored with the
          lease.
        - With strategy V(lowest), slots that other owners of the workspace hold are not listed.
      type: list
      elements: dict
      contains:
        slot:
          description: The slot.
          type: int
          sample: 1
        reason:
          description: Why the slot was skipped.
          type: str
          sample: port 15433 (database) is taken by a process that is not ours
    main_ports:
      description: The number of each port in the main working tree, by name.
      type: dict
      sample:
        database: 15432
        web: 8000
    expires:
      description: When the lease ends, in seconds since the epoch; V(none) if it does not end.
      type: float
      sample: 1790000000.5
summary:
  description:
    - A text for people, with one line for each slot that this call skipped, with the reason, and for each lease that
      had expired; V(none) if there are none.
  returned: success
  type: str
  sample: "fix-login: slot 1 was passed over: port 15433 (database) is taken by a process that is not ours"
holders:
  description: The owners that hold the slots of the workspace, one line each.
  returned: if no slot is free
  type: list
  elements: str
  sample:
    - "1: fix-login"
failure:
  description:
    - V(user) if no slot is free, O(slot) is outside the range of O(slots) or not free, or O(ports), O(slots) or
      O(expires_after) are invalid.
    - V(environment) for a registry that is damaged, lost, read-only, on a full disk, locked for over 60 seconds, or has
      a newer version.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "tear one down: ansible-playbook parallel.worktrees.teardown -e task=NAME"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._leases import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
