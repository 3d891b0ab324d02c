#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_source
short_description: Have a DB host follow a database, and keep goldens of it
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Runs on a DB host, which the playbook C(parallel.worktrees.db_host) sets up. It gives the host a source, which is
    either a standby that follows a primary by streaming, or a dump; and it makes goldens of the source, which
    the module C(pg_branch) makes branches of.
  - A golden is made beside what there is, from a snapshot of the standby or by restoring the dump, on a server that
    only root reaches. It leaves its primary for good, loses replication slots, subscriptions, user mappings and all
    other databases, is masked, gets one role that owns all that is in the database, and is shut down in good order.
    No role that came with the data can log in, and no password comes with it.
  - A golden on which branches stand is never removed. Where anything fails, the goldens and branches that there are
    stay as they are.
  - A source whose log is a link, or that has tablespaces, is refused, for a copy would write to what it is a copy of.
    So is a primary with C(full_page_writes) or C(fsync) off, and a pool with less free than C(db_host_reserve).
  - What a killed run has left is removed by the next one. Runs for one source wait for each other; branches are not
    held up by them.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - O(refresh=true) makes a new golden each time.
options:
  name:
    description:
      - Name of the source. It is described in the host file, as C(db_host_sources) of the role
        C(db_host) has it.
      - C(kind) is V(standby) or V(dump), C(database) the one that branches are made for, and C(admin) a superuser of
        it, V(postgres) if not given.
      - A standby has C(host), C(port), C(user) and C(password_file) of the primary, whose user needs the attribute
        C(REPLICATION) and nothing else; and C(slot), the replication slot that is made there, without which a standby
        that was off for long has to be copied anew. A slot keeps log on the primary while the standby is off, so set
        C(max_slot_wal_keep_size) there.
      - A standby also has C(sslmode), how its connection to the primary is encrypted, as libpq has it, and
        C(sslrootcert), the file with the certificates that may have signed the primary's. V(verify-full) verifies that
        it is the C(host). If not given, C(sslmode) is V(prefer), which encrypts where the primary can, and verifies
        nothing. The user of standbys has to be able to read C(sslrootcert).
      - A standby whose collations have other versions than its primary's, as between releases of a distribution, is
        reported among the problems of the source.
      - A dump has C(dump), what pg_dump has written, and C(extensions) to create before it is restored. It is restored
        anew when it has changed.
      - Both can have C(mask), a file of SQL that runs as superuser before any branch can be made. When it is another
        one, a golden is made anew, and no branch is made of those that are there.
      - Both can have C(mask_verify), a query, as SQL text, that must return no row then, otherwise there is no new
        golden; and C(exclude_kinds), the kinds of objects that a golden does not have, V(comment) and V(large object).
        It is both with a mask if not given, for a mask of tables does not reach them, and none without.
      - Both can have C(settings) of the servers, such as C(shared_preload_libraries); C(every), C(keep) and
        C(keep_age), how often a golden is made (V(1h) if not given), how many stay (V(3)) and how long at most; and
        C(expire) of the branches.
    type: str
    required: true
  state:
    description:
      - With V(present), the standby runs with the settings that are told, and there is a golden.
      - With V(absent), the goldens, the standby and its slot on the primary are gone. It is refused while branches
        stand on a golden.
    type: str
    choices:
      - present
      - absent
    default: present
  refresh:
    description:
      - Make a new golden even where there is one, and then remove those that are no longer kept.
    type: bool
    default: false
  force:
    description:
      - With O(state=absent), remove the standby although its primary cannot be asked to drop the slot.
    type: bool
    default: false
  host_file:
    description:
      - The host file, which the role C(db_host) writes.
    type: path
    default: /etc/parallel-worktrees/db_host.json
requirements:
  - A DB host
  - psycopg2 (Python)
  - root
seealso:
  - module: parallel.worktrees.db_source_info
"""

EXAMPLES = r"""
- name: Follow the primary, and have a golden of it
  parallel.worktrees.db_source:
    name: app
  become: true

- name: Make a new golden now
  parallel.worktrees.db_source:
    name: app
    refresh: true
  become: true

- name: Take all of it away, with the slot on the primary
  parallel.worktrees.db_source:
    name: app
    state: absent
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample:
    - copy the primary of source app from db.example.com:5432
    - start the standby of source app
    - make a golden of source app
source:
  description: How the source stands, as M(parallel.worktrees.db_source_info) tells it; null with O(state=absent).
  returned: success
  type: dict
failure:
  description:
    - V(user) if the request is refused, for example because branches stand on a golden.
    - V(environment) if an operation on the machine fails, for example because the primary lets nobody in, the pool is
      nearly full, or the masking failed.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._sources import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
