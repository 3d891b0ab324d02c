#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_pool
short_description: Make the file system that branches of databases lie on
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Makes a ZFS pool with a dataset, or a file system of Btrfs or of XFS, on devices or on a file of a size; mounts it,
    also at each start of the machine; and gives it the properties that suit PostgreSQL.
  - What is ours says so itself, the dataset by the property C(parallel.worktrees:pool), a file system by its label
    C(parallel-wt). A pool, dataset or file system that does not say so is refused and never adopted, and so is a device
    that is in use, or whose beginning or end is not empty, and a mount point with something in it.
  - A pool is never removed, made larger or moved by this module. That is done with the file system's own programs.
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
  store:
    description:
      - The file system. ZFS takes a snapshot of a database that is at work and has a quota for each branch. Btrfs
        takes the same snapshots and has no quota here. XFS copies a stopped server's files, sharing their blocks.
    type: str
    choices:
      - zfs
      - btrfs
      - xfs
    required: true
  dataset:
    description:
      - With O(store=zfs), the dataset that all of ours lie in, with the name of its pool, such as
        V(tank/parallel-worktrees).
      - Required with O(store=zfs).
    type: str
  root:
    description:
      - Where it is mounted. The folder may be there, and has to be empty.
    type: path
    default: /srv/parallel-worktrees
  devices:
    description:
      - The devices to make it on, where it is not there yet. XFS takes one of them. For ZFS, words such as V(mirror)
        and V(raidz) may stand between them as C(zpool create) has it.
      - Where a ZFS pool is there already, give neither these nor O(file) to have a dataset in it.
    type: list
    elements: str
    default: []
  file:
    description:
      - The file to make it on, in the place of O(devices). It is sparse, so it takes what is really used.
      - Required without O(devices), but for ZFS.
    type: path
  size:
    description:
      - How large the file is made, such as V(20G). One that is there keeps its size.
      - Required with O(file).
    type: str
  properties:
    description:
      - With O(store=zfs), further properties of the dataset, such as V(quota), or others in the place of those that it
        has.
      - C(atime=off), since reading shall write nothing. C(compression=lz4), which costs less than the reading that it
        saves. C(recordsize=16K), two of PostgreSQL's pages, since V(8K) compresses worse and V(128K) rewrites sixteen
        pages for one. C(xattr=sa) and C(acltype=off), as nobody uses them. C(exec=off), C(setuid=off) and
        C(devices=off), since only data lie there.
      - Under zfs-fuse it is C(compression=on) and C(xattr=off).
      - Btrfs and XFS are mounted with C(noatime), C(noexec), C(nosuid) and C(nodev).
    type: dict
    default: {}
requirements:
  - ZFS (OpenZFS, or zfs-fuse), btrfs-progs or xfsprogs
  - root
seealso:
  - module: parallel.worktrees.db_code
"""

EXAMPLES = r"""
- name: A pool of ZFS on two disks, one the mirror of the other
  parallel.worktrees.db_pool:
    store: zfs
    dataset: tank/parallel-worktrees
    devices: [mirror, /dev/disk/by-id/nvme-one, /dev/disk/by-id/nvme-two]

- name: A dataset in a pool that is there
  parallel.worktrees.db_pool:
    store: zfs
    dataset: tank/parallel-worktrees
    properties:
      quota: 2T

- name: XFS on a file, where there is no disk to spare
  parallel.worktrees.db_pool:
    store: xfs
    file: /var/lib/parallel-worktrees.pool
    size: 100G
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample:
    - create pool tank on /dev/vdb
    - create dataset tank/parallel-worktrees, mounted at /srv/parallel-worktrees
pool:
  description: The pool.
  returned: success
  type: dict
  contains:
    store:
      description: Its file system.
      type: str
    dataset:
      description: With ZFS, the dataset; else nothing.
      type: str
    root:
      description: Where it is mounted.
      type: str
    places:
      description: The devices, or the file, that were given.
      type: list
      elements: str
failure:
  description:
    - V(user) if the request is refused, for example because a device is not empty.
    - V(environment) if an operation on the machine fails, for example because a program is not installed.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._db_pool import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
