#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: env_file
short_description: Write the env files, shell files and generated files of a task
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Copies the env file of the main working tree and sets the task's values in the copy, without other changes; or
    writes a file with a given content. For a file that git tracks, the content in git is used.
  - With O(shell), writes a file for shells to source in each worktree, and configures direnv and mise to load it.
  - With O(path), writes a single env file, without a worktree and without git.
  - Values are written so that bash, docker compose, python-dotenv and Node's dotenv all read the same value. A value
    for which this is not possible is refused.
  - All files are checked before the first is written. If another file is in the place of a file with
    O(files[].content), the call is refused, unless git tracks that file. Edits by hand in an env file are kept, except
    to the values.
  - Do not set the password of the task's database as a value. Use the placeholder
    C(PARALLEL_WORKTREES_DATABASE_PASSWORD), which this module replaces with the content of O(password_file). So the
    password is in no result, diff or log.
  - The written files are recorded in git's folder for the worktree, so that the removal of the worktree does not count
    them as work. Git ignores them in that worktree only (see the notes), unless it tracks or ignores them already.
    Changes of this module to a file that git tracks are kept out of commits in the worktree (C(git update-index
    --skip-worktree)). Later edits by hand in such a file count as work.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.excluded
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  worktrees:
    description:
      - The worktrees for O(files). Each worktree also gets the files of O(shell).
      - Required without O(path), and mutually exclusive with it. With an empty list, nothing is written.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the worktree in O(files[].repo).
        type: str
        required: true
      path:
        description:
          - Folder of the worktree.
        type: path
        required: true
      source:
        description:
          - The folder that sources are relative to, usually the main working tree of the repository.
        type: path
        required: true
  files:
    description:
      - The files. A file whose O(files[].repo) is not in O(worktrees) is skipped.
      - Mutually exclusive with O(path).
    type: list
    elements: dict
    default: []
    suboptions:
      repo:
        description:
          - Name of an entry of O(worktrees).
        type: str
        required: true
      path:
        description:
          - The file to write, relative to the folder of the worktree. A path that leads out of the worktree, as text or
            through a symbolic link, is refused, and so is a file that is itself a symbolic link.
        type: str
        required: true
      source:
        description:
          - The env file to copy, absolute or relative to O(worktrees[].source) of the worktree. It must be UTF-8. It
            defaults to O(files[].path).
          - Mutually exclusive with O(files[].content).
        type: str
      values:
        description:
          - The values by key. Each occurrence of a key gets its value; keys that are not in the file are added at its
            end.
          - A string or a number is written unchanged, a boolean as V(true) or V(false), and null as an empty string. A
            list or a dictionary is refused.
          - This option, O(files[].overrides) and O(files[].patch_ports) are refused for a JSON, TOML or YAML file.
          - A secret in a file that git tracks causes a warning that names the file.
          - Mutually exclusive with O(files[].content).
        type: dict
        default: {}
      overrides:
        description:
          - Values by key that are added as lines at the end of the file, even if the file already has the key. Every
            reader uses the last line of a key.
          - Mutually exclusive with O(files[].content).
        type: dict
        default: {}
      patch_ports:
        description:
          - Whether to replace each port of the main working tree (O(main_ports)) with the port of the task (O(ports)),
            inside URLs too.
          - A number counts as a port if its key says so (C(DB_PORT)), after a host name of this machine
            (C(http://localhost:3000/api), also C(127.0.0.1), C([::1]), C(*.localhost), C(*.test) and
            C(host.docker.internal)), in the form C(ADDR=:3000), or as C(port=) in a connection string. Other numbers
            are not changed, such as C(TIMEOUT=3000), a password C(3000), C(https://api.example.com:3000), and
            C(DB_PORT=3000) together with C(DB_HOST=db.example.com).
          - In a file that was edited by hand in the worktree, ports are not changed.
          - A number that is probably a port of the main working tree, but is not changed, causes a warning that names
            the key. This applies to a default (C(${PORT:-3000})), to a number after a host name that may be another
            machine (C(http://backend:3000)), and to a port mapping (C(127.0.0.1:3000:80)).
        type: bool
        default: false
      rewrite_paths:
        description:
          - Whether to replace each absolute path into a main working tree, that is, into any O(worktrees[].source),
            with the path into its worktree.
          - The suffix of O(files[].path) selects the language. In C(.json), C(.jsonc) and C(.toml), paths are replaced
            in strings and keys; in other files, in the values of an env file. Comments, order and white space are not
            changed. YAML is refused.
          - Paths into C(.git) and into a worktree are not changed.
        type: bool
        default: false
      content:
        description:
          - The whole text of the file, instead of a source and values.
        type: str
      mode:
        description:
          - Permissions of the file, in octal, such as V('0640').
          - It defaults to V('0600') if the file contains the password of the database, otherwise to the permissions of
            the source. With O(files[].content), it defaults to V('0600') if the content has a password in a URL or a
            value whose key is the key of a secret, otherwise to V('0666') minus the umask.
        type: str
  ports:
    description:
      - The ports of the task, by name, for O(files[].patch_ports).
    type: dict
    default: {}
  main_ports:
    description:
      - The ports of the main working tree, by the same names.
    type: dict
    default: {}
  shell:
    description:
      - Files that load the environment of the task in shells. They are written after O(files).
      - As for O(files), git ignores the written files, and they are recorded. A file that git tracks, or that this
        module did not write, is not changed, and is named in RV(left).
      - Mutually exclusive with O(path).
    type: dict
    suboptions:
      file:
        description:
          - The file to source, relative to the folder of the worktree, with mode 0600. It works in C(sh), C(bash) and
            C(zsh).
          - If M(parallel.worktrees.git_worktree) has placed a guard of shared dependencies, the file also puts this
            guard first on the E(PATH).
        type: str
        default: .task.env
      loaders:
        description:
          - The programs that load O(shell.file) automatically. V(direnv) needs a block in C(.envrc), and V(mise) the
            file C(mise.local.toml), which this module writes. Neither program loads anything before its user allows it
            with C(direnv allow) or C(mise trust).
        type: list
        elements: str
        choices:
          - direnv
          - mise
        default: []
      variables:
        description:
          - The environment variables. A variable with the value V(null) is not set. If an env file of the worktree sets
            the same variable, the value in the env file is used.
        type: dict
        default: {}
  path:
    description:
      - A single env file to write. Missing parent folders are created. A symbolic link or a folder in its place is
        refused.
      - The present content of the file is kept, except for O(values). The file is not recorded, and the module does not
        make git ignore it.
    type: path
  values:
    description:
      - The values for O(path), by key, as in O(files[].values).
    type: dict
    default: {}
  mode:
    description:
      - Permissions of O(path), in octal, such as V('0640').
      - It defaults to V('0600') if the file contains a secret, as in O(files[].mode). Otherwise it defaults to the
        permissions of the existing file or, for a new file, to V('0666') minus the umask.
    type: str
  password_file:
    description:
      - The file that contains the password of the task's database.
    type: path
notes:
  - In diffs, passwords in URLs are masked, and so are values whose key suggests a secret (C(PASSWORD), C(TOKEN) and so
    on). With C(-vvv), Ansible prints O(files) as given, so set C(no_log) on the Ansible task if the values contain your
    own secrets.
seealso:
  - module: parallel.worktrees.git_worktree
  - module: parallel.worktrees.task_exec
"""

EXAMPLES = r"""
- name: Write the env file of the main working tree with the task's own values
  parallel.worktrees.env_file:
    worktrees:
      - name: backend
        path: "{{ workspace_root }}/backend/.worktrees/fix-login"
        source: "{{ workspace_root }}/backend"
    files:
      - repo: backend
        path: .env
        values:
          DB_PORT: 15433
          DEBUG: true
          DATABASE_URL: postgresql://postgres:PARALLEL_WORKTREES_DATABASE_PASSWORD@127.0.0.1:15433/postgres
    password_file: "{{ workspace_root }}/secrets/database"

- name: Replace the ports and the paths of the main working tree
  parallel.worktrees.env_file:
    worktrees:
      - name: app
        path: "{{ workspace_root }}/app/.worktrees/fix-login"
        source: "{{ workspace_root }}/app"
    files:
      - repo: app
        path: .env
        patch_ports: true
        overrides:
          FRONTEND_PORT: 3100
      - repo: app
        path: .mcp.json
        rewrite_paths: true
    ports:
      frontend: 3100
      backend: 5100
    main_ports:
      frontend: 3000
      backend: 5000

- name: Write a file with a given content
  parallel.worktrees.env_file:
    worktrees:
      - name: backend
        path: "{{ workspace_root }}/backend/.worktrees/fix-login"
        source: "{{ workspace_root }}/backend"
    files:
      - repo: backend
        path: .ports.env
        content: |
          BACKEND_PORT=9101
          FRONTEND_PORT=9201

- name: Load the environment of the task in every shell, with direnv
  parallel.worktrees.env_file:
    worktrees:
      - name: backend
        path: "{{ workspace_root }}/backend/.worktrees/fix-login"
        source: "{{ workspace_root }}/backend"
    shell:
      loaders: [direnv]
      variables:
        TASK_NAME: fix-login
        PORT: 8001

- name: Write a single env file
  parallel.worktrees.env_file:
    path: /srv/shop/compose.env
    values:
      COMPOSE_PROJECT_NAME: shop
      PORT: 8001
"""

RETURN = r"""
actions:
  description: What was written, or would be written in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - write /srv/shop/backend/.worktrees/fix-login/.env
files:
  description: The files that have the requested content, whether or not they had to be written.
  returned: success
  type: list
  elements: str
  sample:
    - /srv/shop/backend/.worktrees/fix-login/.env
left:
  description: The files of O(shell) that were not changed, one line each, with the reason.
  returned: success
  type: list
  elements: str
  sample:
    - "/srv/shop/backend/.worktrees/fix-login/.task.env was left alone: git tracks it"
summary:
  description: RV(left) as a text for people; V(none) if RV(left) is empty.
  returned: success
  type: str
failure:
  description:
    - V(user) for a path that leads out of the worktree, a file in the way that this collection did not write, an
      invalid key, value, variable or mode, two ports of the main working tree with the same number, or a call that has
      both O(path) and O(worktrees), or neither.
    - V(environment) for a source that is missing, unreadable, not UTF-8, or not valid JSON or TOML according to its
      suffix, or for a password file that cannot be read.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "make it in the main tree: /srv/shop/backend/.env"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._env_files import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
