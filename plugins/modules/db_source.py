#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_source
short_description: Replicate a database to a DB host and keep goldens of it
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Runs on a DB host, which the playbook C(parallel.worktrees.db_host) sets up. It adds a source to the host, which is
    either a standby that follows a primary by streaming replication, or a dump. From the source it makes goldens, from
    which the module M(parallel.worktrees.pg_branch) makes branches.
  - A golden is made in a new volume, from a snapshot of the standby or by restoring the dump, on a server that only
    root can reach. It is promoted, its replication slots, subscriptions, user mappings and all other databases are
    removed, it is masked, it gets one role that owns all objects in the database, and its server is shut down cleanly.
    No role that was copied with the data can log in, and no password is copied.
  - A golden that branches depend on is never removed. If a step fails, the existing goldens and branches stay
    unchanged.
  - A source whose C(pg_wal) is a symbolic link, or that has tablespaces, is refused, because a copy would write to the
    files of the original. A primary with C(full_page_writes) or C(fsync) off is refused too. So is a pool with less
    free space than C(db_host_reserve).
  - The next run removes what a killed run has left. Runs for the same source wait for each other. They do not block
    branches.
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
      - O(refresh=true) makes a new golden at each call.
options:
  name:
    description:
      - Name of the source. The host file describes it, as in the variable C(db_host_sources) of the role C(db_host),
        with the following keys.
      - C(kind) is V(standby) or V(dump). C(database) is the database that branches provide. C(admin) is a superuser of
        it, by default V(postgres).
      - A standby has C(host), C(port), C(user) and C(password_file) of the primary, whose user needs only the attribute
        C(REPLICATION). It also has C(slot), the replication slot that is created on the primary. Without a slot, a
        standby that was off for a long time must be copied again. A slot keeps WAL on the primary while the standby is
        off, so set C(max_slot_wal_keep_size) on the primary.
      - A standby also has C(sslmode), the encryption of its connection to the primary, with the values of libpq, and
        C(sslrootcert), the file with the trusted root certificates. V(verify-full) verifies that the certificate of the
        primary is for C(host). C(sslmode) defaults to V(prefer), which encrypts if the primary supports it, and
        verifies nothing. The system user that runs standbys must be able to read C(sslrootcert).
      - If the collation versions of a standby and its primary differ, as between releases of a distribution, this is
        reported as a problem of the source.
      - A dump has C(dump), the output of C(pg_dump), and C(extensions), the extensions to create before the restore. It
        is restored again when its content has changed.
      - Both can have C(mask), an SQL file that runs as superuser before any branch can be made. When the content of the
        mask changes, a new golden is made, and no branch is made from the older goldens.
      - Both can have C(mask_verify), a query as SQL text. If it returns a row after the mask, the new golden is
        refused. Both can have C(exclude_kinds), the kinds of objects that are removed from a golden, which are
        V(comment) and V(large object). With a mask, C(exclude_kinds) defaults to both kinds, since a mask of tables
        does not cover them. Without a mask, it defaults to none.
      - Both can have C(settings), the settings of the servers, such as C(shared_preload_libraries); C(every), how often
        a golden is made (by default V(1h)); C(keep), how many goldens are kept (by default V(3)); C(keep_age), how long
        they are kept at most; and C(expire), when branches expire.
    type: str
    required: true
  state:
    description:
      - With V(present), the standby runs with the settings of the host file, and a golden exists.
      - With V(absent), the goldens, the standby and its slot on the primary are removed. This is refused while branches
        depend on a golden.
    type: str
    choices:
      - present
      - absent
    default: present
  refresh:
    description:
      - Make a new golden even if a golden exists, and then remove the goldens that are no longer kept.
    type: bool
    default: false
  force:
    description:
      - With O(state=absent), remove the standby even if the slot on its primary cannot be dropped.
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
- name: Follow the primary, and make the first golden
  parallel.worktrees.db_source:
    name: app
  become: true

- name: Make a new golden now
  parallel.worktrees.db_source:
    name: app
    refresh: true
  become: true

- name: Remove the source, with the slot on the primary
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
  description: The state of the source, as M(parallel.worktrees.db_source_info) reports it; null with O(state=absent).
  returned: success
  type: dict
failure:
  description:
    - V(user) if the request is refused, for example because branches depend on a golden.
    - V(environment) if an operation on the machine fails, for example because the primary refuses the connection, the
      pool is nearly full, or the mask failed.
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
