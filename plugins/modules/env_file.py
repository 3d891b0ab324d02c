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
  - Takes the env file of the main working tree, places the task's values in it and leaves all else as it is, or
    writes a file whose whole content is given. A file that git has is taken as git has it.
  - With O(shell), writes a file for shells to source in each worktree, and has direnv and mise load it.
  - With O(path), writes one env file by itself, which needs neither a worktree nor git.
  - Values are written such that bash, docker compose, python-dotenv and Node's dotenv read them alike. A value of which
    that cannot be said is refused.
  - All files are checked before the first is written. What somebody else put in the place of O(files[].content) is
    refused, unless git has it. What somebody edited in an env file since stays, apart from the values.
  - The password of the task's database is not given as a value. C(PARALLEL_WORKTREES_DATABASE_PASSWORD) stands for it
    everywhere, and this module puts what O(password_file) has in its place. So it is in no result, diff or log.
  - What is written is noted in git's folder for the worktree, so that its removal can tell it from work, and kept out
    of git in that worktree alone (see the notes) where git neither has nor ignores it. A file that git has is kept out
    of commits there (C(git update-index --skip-worktree)); what somebody edits in it afterwards counts as work.
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
      - The worktrees that O(files) may go to, and that each get the files of O(shell).
      - Required with O(files) and O(shell), and mutually exclusive with O(path).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What O(files[].repo) calls it.
        type: str
        required: true
      path:
        description:
          - Folder of the worktree.
        type: path
        required: true
      source:
        description:
          - The folder that sources start from, mostly the repository's main working tree.
        type: path
        required: true
  files:
    description:
      - The files. One whose O(files[].repo) is none of O(worktrees) is passed over.
      - Mutually exclusive with O(path).
    type: list
    elements: dict
    default: []
    suboptions:
      repo:
        description:
          - Name of one of O(worktrees).
        type: str
        required: true
      path:
        description:
          - The file to write, from the folder of the worktree. A path that leads out of it, as text or through a
            symbolic link, is refused, and so is a file that is itself a symbolic link.
        type: str
        required: true
      source:
        description:
          - The env file to start from, absolute or from the worktree's O(worktrees[].source). It has to be UTF-8. It
            defaults to the same path.
          - Mutually exclusive with O(files[].content).
        type: str
      values:
        description:
          - The values by key. Each occurrence of a key gets its value; keys that the file does not have follow at its
            end.
          - A text or a number is written as it is, a boolean as V(true) or V(false), nothing as the empty text. A
            list or a dictionary is refused.
          - Refused for a JSON, TOML or YAML file, as are O(files[].overrides) and O(files[].patch_ports).
          - A secret in a file that git tracks draws a warning that names the file.
          - Mutually exclusive with O(files[].content).
        type: dict
        default: {}
      overrides:
        description:
          - Values by key that follow at the end of the file, as lines of their own, whatever stands before. Every
            reader takes the last one.
          - Mutually exclusive with O(files[].content).
        type: dict
        default: {}
      patch_ports:
        description:
          - Whether each port of the main tree (O(main_ports)) becomes the task's own (O(ports)), inside URLs too.
          - A number is taken for a port where the key says so (C(DB_PORT)), behind a host of this machine
            (C(http://localhost:3000/api), also C(127.0.0.1), C([::1]), C(*.localhost), C(*.test) and
            C(host.docker.internal)), as C(ADDR=:3000), or as C(port=) of a connection string. Others stay, such as
            C(TIMEOUT=3000), a password C(3000), C(https://api.example.com:3000), and C(DB_PORT=3000) beside
            C(DB_HOST=db.example.com).
          - In a file that somebody has edited in the worktree, ports are left as they are.
          - A port of the main tree that stays where it may well be meant draws a warning that names the key. That is
            in a default (C(${PORT:-3000})), behind a host of which it is not known whose it is
            (C(http://backend:3000)), and in a mapping (C(127.0.0.1:3000:80)).
        type: bool
        default: false
      rewrite_paths:
        description:
          - Whether each absolute path into a main tree, any O(worktrees[].source), becomes that into the worktree.
          - O(files[].path) tells the language. In C(.json), C(.jsonc) and C(.toml), the text of strings is looked at,
            keys as well; in others, the values of an env file. Comments, order and blanks stay. YAML is refused.
          - Paths into C(.git) and into a worktree stay as they are.
        type: bool
        default: false
      content:
        description:
          - The whole text of the file, in place of a source and values.
        type: str
      mode:
        description:
          - Permissions of the file, in octal, such as V('0640').
          - It defaults to V('0600') where the database's password is in it, else to those of the source. With
            O(files[].content) it defaults to V('0600') where that has a password in a URL or a value whose key is
            that of a secret, else to what the umask leaves of V('0666').
        type: str
  ports:
    description:
      - The task's ports by their names, for O(files[].patch_ports).
    type: dict
    default: {}
  main_ports:
    description:
      - The main tree's ports by the same names.
    type: dict
    default: {}
  shell:
    description:
      - Files that load the task's environment in shells, written after O(files).
      - What is written is kept out of git, and noted, as O(files) are. A file that git tracks or somebody else wrote is
        left alone, and named in RV(left).
      - Mutually exclusive with O(path).
    type: dict
    suboptions:
      file:
        description:
          - The file to source, from the folder of the worktree, of mode 0600. C(sh), C(bash) and C(zsh) take it.
          - It also puts the guard of shared dependencies that M(parallel.worktrees.git_worktree) makes first on the
            E(PATH).
        type: str
        default: .task.env
      loaders:
        description:
          - What loads O(shell.file) by itself. With V(direnv), a block in C(.envrc); with V(mise), the file
            C(mise.local.toml). Neither loads anything before its user has allowed it, with C(direnv allow) or
            C(mise trust).
        type: list
        elements: str
        choices:
          - direnv
          - mise
        default: []
      variables:
        description:
          - The environment variables. A variable that is V(null) is not set. Where an env file of the worktree has the
            same name, its value counts.
        type: dict
        default: {}
  path:
    description:
      - An env file to write by itself. The folders above it are made. A symbolic link or a folder in its place is
        refused.
      - What is in it already stays, but for O(values). It is neither noted nor kept out of git.
    type: path
  values:
    description:
      - The values for O(path), by key, as in O(files[].values).
    type: dict
    default: {}
  mode:
    description:
      - Permissions of O(path), in octal, such as V('0640').
      - It defaults to V('0600') where a secret is in it, as in O(files[].mode), else to those that the file has, or to
        what the umask leaves of V('0666').
    type: str
  password_file:
    description:
      - The file that keeps the password of the task's database.
    type: path
notes:
  - In diffs, the value of a key that sounds like a secret (C(PASSWORD), C(TOKEN) and so on) and the password in a URL
    are masked. O(files) as it was given appears with C(-vvv), so set C(no_log) on the task if it has secrets of your
    own.
seealso:
  - module: parallel.worktrees.git_worktree
  - module: parallel.worktrees.task_exec
"""

EXAMPLES = r"""
- name: The env file of the main working tree, with the task's own values
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

- name: Ports of the task in place of the main tree's, and paths too
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

- name: A file of which the task writes all
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

- name: The environment of the task in every shell, loaded by direnv
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

- name: One env file by itself
  parallel.worktrees.env_file:
    path: /srv/shop/compose.env
    values:
      COMPOSE_PROJECT_NAME: shop
      PORT: 8001
"""

RETURN = r"""
actions:
  description: What was written, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - write /srv/shop/backend/.worktrees/fix-login/.env
files:
  description: The files that are as this call wants them, whether or not they had to be written.
  returned: success
  type: list
  elements: str
  sample:
    - /srv/shop/backend/.worktrees/fix-login/.env
left:
  description: The files of O(shell) that were left alone, and why, a line each.
  returned: success
  type: list
  elements: str
  sample:
    - "/srv/shop/backend/.worktrees/fix-login/.task.env was left alone: git tracks it"
summary:
  description: RV(left) for people; V(none) where nothing was left alone.
  returned: success
  type: str
failure:
  description:
    - V(user) for a path that leads out of the worktree, a place where something is that this collection did not
      write, a key, value, variable or mode that cannot be written, two ports of the main tree with one number, or a
      call that has both O(path) and O(worktrees), or neither.
    - V(environment) for a source that is missing, unreadable, not UTF-8 or not the JSON or TOML that its suffix says,
      or a password file that may not be read.
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
