#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: port_lease
short_description: Lease slots and the ports that follow from them
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Gives each owner a slot, which is a number, and for each named port the number C(base + slot * stride).
  - A slot is unique in its workspace, and a port on the machine, because every workspace has its leases in the same
    registry. Either all owners get one or none.
  - A slot is passed over if one of its ports is leased to anybody, or if any process listens on it, on any address.
  - An owner that has a lease keeps it, slot and ports, whatever O(ports), O(slots) and O(slot) say by now. Give it back
    first to get another.
  - A lease may end by itself (O(expires_after)). One that has ended is as good as released; each call for its owner
    renews it. Leases end when somebody needs a slot, of whichever workspace.
  - Nothing but the registry is touched, so this module can be used for ports alone, without anything else of this
    collection.
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
      - The owners that get a lease, or release it. An owner is mostly the name of a task.
    type: list
    elements: str
    required: true
  state:
    description:
      - With V(present), each owner has a lease. With V(absent), none has.
      - With V(renewed), those that there are last from now on; an owner that has none, as its time was up, is refused.
    type: str
    choices:
      - present
      - renewed
      - absent
    default: present
  ports:
    description:
      - The ports of a lease. A key is a name of yours, a value a dictionary with C(base) (a whole number), C(stride)
        (a whole number, V(1) where it is left out) and C(main) (the port that the main tree uses, C(base) where it is
        left out).
      - A port of C(slots.first) or C(slots.last) outside of 1 to 65535 is refused.
      - Without ports, a lease is a slot only.
    type: dict
    default: {}
  slots:
    description:
      - Which slots there are, and the order in which they are tried.
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
          - With V(hash), the slot that follows from the owner's name (SHA-256 modulo the number of slots) or, where
            that is not free, the next one that is. The same name always asks for the same slot.
          - With V(fixed), the one that O(slot) names.
        type: str
        choices:
          - lowest
          - hash
          - fixed
        default: lowest
  slot:
    description:
      - The very slot to lease, whichever the strategy. Refused where it is not free.
      - Required with O(slots.strategy=fixed), unless the owner has a lease.
    type: int
  expires_after:
    description:
      - Seconds after which a lease ends, unless it is used before. A call for an owner that has a lease is such a use.
      - Left out, a new lease does not end, and one that there is lasts as long again as it did.
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

- name: Tell the port of the database
  ansible.builtin.debug:
    msg: "{{ given.leases[0].ports.database }}"

- name: Fifteen slots, each name asking for its own
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

- name: A port for an hour, for a script that wants nothing else of this collection
  parallel.worktrees.port_lease:
    workspace: previews
    owners:
      - pr-17
    ports:
      http:
        base: 8000
    expires_after: 3600

- name: Give them back
  parallel.worktrees.port_lease:
    workspace: shop
    owners:
      - fix-login
    state: absent
"""

RETURN = r"""
actions:
  description: What was leased, released and passed over, or would be in check mode.
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
      description: Its owner, as in O(owners).
      type: str
      sample: fix-login
    slot:
      description: The slot.
      type: int
      sample: 2
    ports:
      description: The number of each port, by its name.
      type: dict
      sample:
        database: 15434
        web: 8020
    passed_over:
      description:
        - The slots that were wanted first and not free when it was leased. It is kept with the lease.
        - With strategy V(lowest), slots that other owners of the workspace hold are not told.
      type: list
      elements: dict
      contains:
        slot:
          description: The slot.
          type: int
          sample: 1
        reason:
          description: Why it was passed over.
          type: str
          sample: port 15433 (database) is taken by a process that is not ours
    main_ports:
      description: The main tree's number of each port, by its name.
      type: dict
      sample:
        database: 15432
        web: 8000
    expires:
      description: When it ends, in seconds since the epoch; V(none) for one that does not.
      type: float
      sample: 1790000000.5
summary:
  description:
    - For people, the slots that this call passed over and why, and the leases that had ended, a line each; V(none)
      where there are none.
  returned: success
  type: str
  sample: "fix-login: slot 1 was passed over: port 15433 (database) is taken by a process that is not ours"
holders:
  description: Who holds the slots of the workspace, a line each.
  returned: when no slot is free
  type: list
  elements: str
  sample:
    - "1: fix-login"
failure:
  description:
    - V(user) if no slot is free, O(slot) is none of the slots or not free, or O(ports), O(slots) or O(expires_after)
      make no sense.
    - V(environment) for a registry that is damaged, lost, read-only, on a full disk, locked for over 60 seconds, or of
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
