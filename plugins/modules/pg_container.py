#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_container
short_description: Give a task a PostgreSQL in a Docker container of its own
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Makes a container, starts it, and waits until its database answers a query at its published address.
  - What an image does at its first start takes over a second. It is done once and kept as a I(prepared image) named
    C(parallel-worktrees-prepared), so that a container starts from a data directory that is there already.
  - A container that belongs to someone else is neither used nor removed.
  - The password is generated where O(password_file) does not exist. It is sent to the server as a SCRAM verifier only,
    and appears in no result, log, label, variable or argument.
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
  name:
    description:
      - Name of the container.
      - The server tells it too, as C(current_setting('parallel_worktrees.database')).
    type: str
    required: true
  owner:
    description:
      - To whom the container belongs, kept as a label.
      - A container of this name with another owner, or none, is refused.
    type: str
    required: true
  state:
    description:
      - With V(present), the container is there and runs. One that was stopped is started with its data. One that was
        made with other parameters is refused, because its data would be lost.
      - With V(absent), the container is not there, nor are its data and its O(password_file). The prepared image stays.
    type: str
    choices:
      - present
      - absent
    default: present
  wait:
    description:
      - Whether to wait until the database answers.
      - With V(false) the container is started only. Its database cannot be used before a call that waits, since that
        sets the password.
    type: bool
    default: true
  timeout:
    description:
      - How many seconds the database may take to answer.
    type: float
    default: 120
  image:
    description:
      - The image to run. It takes the variables of the official C(postgres) image.
      - Required with O(state=present).
    type: str
  pull:
    description:
      - Whether to pull an image that Docker does not have.
    type: str
    choices:
      - missing
      - never
    default: missing
  address:
    description:
      - The address of this machine on which the database is published.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The port of this machine on which the database is published.
      - Required with O(state=present).
    type: int
  user:
    description:
      - Name of the superuser.
    type: str
    default: postgres
  database:
    description:
      - Name of the database. It defaults to O(user).
    type: str
  password_file:
    description:
      - The file that keeps the password of O(user), of mode 0600.
      - Required with O(state=present).
    type: path
  settings:
    description:
      - Settings of the server, added to V(fsync=off), V(synchronous_commit=off) and V(full_page_writes=off). These suit
        a database that can be thrown away; a crash of the machine may lose it.
      - Everybody who may list processes can read them.
    type: dict
    default: {}
  memory:
    description:
      - How much memory the container may use, such as V(512m). There is no limit where it is not given.
    type: str
  shm_size:
    description:
      - Size of the container's shared memory.
    type: str
    default: 256m
  prepared:
    description:
      - Whether to start from a prepared image.
      - An image that does not take another C(PGDATA) is started as it is, with a warning, for each container then does
        the first start of the image, which takes seconds more.
      - Give V(false) for a first start that must happen anew for each container.
    type: bool
    default: true
  volume:
    description:
      - Name of a Docker volume for the data, which then outlive the container. It is made where it is not there.
      - What is kept is to survive a crash, so the settings that give up durability are not added then, and there is no
        prepared image.
    type: str
  environment:
    description:
      - Variables for the image's first start, such as C(POSTGRES_INITDB_ARGS).
      - Everybody who may use Docker can read them.
    type: dict
    default: {}
  docker_host:
    description:
      - URL of the Docker daemon, which runs on the machine of this task. It defaults to the environment variable
        E(DOCKER_HOST), or Docker's usual socket.
    type: str
requirements:
  - docker >= 5.0 (Python)
  - psycopg2 (Python)
seealso:
  - module: community.docker.docker_container
"""

EXAMPLES = r"""
- name: Give the task its database
  parallel.worktrees.pg_container:
    name: postgres_bautista_testing_fix-login
    owner: bautista/fix-login
    image: postgres:16
    port: 65433
    database: bautista
    password_file: "{{ ansible_facts.env.HOME }}/.local/state/parallel-worktrees/bautista/fix-login.password"
  register: made

- name: Start it, and come back for it when the worktrees are there
  parallel.worktrees.pg_container:
    name: postgres_bautista_testing_fix-login
    owner: bautista/fix-login
    image: postgres:16
    port: 65433
    password_file: /srv/passwords/fix-login
    wait: false

- name: Take it back
  parallel.worktrees.pg_container:
    name: postgres_bautista_testing_fix-login
    owner: bautista/fix-login
    password_file: /srv/passwords/fix-login
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample:
    - create and start container postgres_bautista_testing_fix-login
    - set the password of user postgres
container:
  description: The container.
  returned: success and O(state=present)
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    id:
      description: Its id; V(none) in check mode where it is not there yet.
      type: str
    image:
      description: The image it was asked to run.
      type: str
    port:
      description: The port of this machine on which it is published.
      type: int
    running:
      description: Whether it runs.
      type: bool
database:
  description: How to reach the database, with a placeholder in the place of the password.
  returned: success and O(state=present)
  type: dict
  contains:
    backend:
      description: Always V(container).
      type: str
    container:
      description: Name of the container.
      type: str
    host:
      description: Address of the server.
      type: str
    port:
      description: Port of the server.
      type: int
    user:
      description: Name of the superuser.
      type: str
    name:
      description: Name of the database.
      type: str
    password:
      description: What stands for the password in values that other modules of this collection write.
      type: str
    password_file:
      description: The file that has the password.
      type: str
    url:
      description: All of it as a URL.
      type: str
failure:
  description:
    - V(user) if what was asked cannot be done as asked, for example because the container is another owner's.
    - V(environment) if Docker, the image or the database did not do its part.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._containers import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
