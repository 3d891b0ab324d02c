#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_pool
short_description: Create the file system for the branches of databases
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Creates a ZFS pool with a dataset, or a Btrfs or XFS file system, on devices or on a file. Mounts it, also at each
    boot of the machine, and sets properties that suit PostgreSQL.
  - The module marks what it creates, a dataset with the property C(parallel.worktrees:pool), a file system with the
    label C(parallel-wt). A pool, dataset or file system without this mark is refused and never adopted. A device that
    is in use, or whose beginning or end is not empty, is refused too. So is a mount point that is not empty.
  - This module never removes, enlarges or moves a pool. Use the programs of the file system for that.
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
      - The file system. ZFS takes snapshots of a running database and has a quota for each branch. Btrfs takes the same
        snapshots, without quotas. XFS copies the files of a stopped server with shared blocks.
    type: str
    choices:
      - zfs
      - btrfs
      - xfs
    required: true
  dataset:
    description:
      - With O(store=zfs), the dataset that contains all datasets of this collection, with the name of its pool, such as
        V(tank/parallel-worktrees).
      - Required with O(store=zfs).
    type: str
  root:
    description:
      - The mount point. If the folder exists, it must be empty.
    type: path
    default: /srv/parallel-worktrees
  devices:
    description:
      - The devices on which to create the pool, if it does not exist. XFS takes a single device. For ZFS, the list may
        contain words such as V(mirror) and V(raidz), as C(zpool create) takes them.
      - To create a dataset in an existing ZFS pool, set neither this option nor O(file).
    type: list
    elements: str
    default: []
  file:
    description:
      - The file on which to create the pool, instead of O(devices). The file is sparse, so it takes only the space that
        is really used.
      - Required without O(devices), except for ZFS.
    type: path
  size:
    description:
      - The size of a new file, such as V(20G). An existing file keeps its size.
      - Required with O(file).
    type: str
  properties:
    description:
      - With O(store=zfs), further properties of the dataset, such as V(quota), or other values for the default
        properties.
      - The defaults are C(atime=off), so that reading does not write; C(compression=lz4), which costs less than the
        reading that it saves; C(recordsize=16K), two pages of PostgreSQL, since V(8K) compresses worse and V(128K)
        rewrites sixteen pages for a single page; C(xattr=sa) and C(acltype=off), since extended attributes and ACLs are
        not used; and C(exec=off), C(setuid=off) and C(devices=off), since the dataset contains only data.
      - With zfs-fuse, the defaults are C(compression=on) and C(xattr=off) instead.
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
- name: Create a ZFS pool on two mirrored disks
  parallel.worktrees.db_pool:
    store: zfs
    dataset: tank/parallel-worktrees
    devices: [mirror, /dev/disk/by-id/nvme-one, /dev/disk/by-id/nvme-two]

- name: Create a dataset in an existing pool
  parallel.worktrees.db_pool:
    store: zfs
    dataset: tank/parallel-worktrees
    properties:
      quota: 2T

- name: Create an XFS file system on a file
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
      description: The file system of the pool.
      type: str
    dataset:
      description: The dataset with ZFS; otherwise empty.
      type: str
    root:
      description: The mount point.
      type: str
    places:
      description: The devices or the file, as given.
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
