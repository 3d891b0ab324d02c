# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of this collection in Ansible's own process where that is the same, else as Ansible does.

Private to this collection: may change without notice.

``meta/runtime.yml`` names this action plugin for every module. A module that is sent to a host costs 0.4 s of CPU
however little it does; its operation called in process costs milliseconds (tests/benchmark/ measures it). In process is
the same when the task's host is this machine, this user and this Python.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import multiprocessing
import os
import sys
import typing as t

from ansible import constants as C
from ansible.executor.module_common import _apply_action_arg_defaults
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

from ..module_utils import _progress
from ..module_utils._arguments import validated
from ..module_utils._door import answer
from ..module_utils._errors import UserError
from ..module_utils._holder import holder_of
from ..plugin_utils import _loading

COLLECTION = "parallel.worktrees"


def _user() -> str:
    """The name of this user, or the number where it has none (in a container)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _run() -> int:
    """The process of the run itself, by which is known who is at work on a task: the one that forked this worker.

    The parent as the kernel has it is another, once the run was killed and its worker is not gone yet.
    """
    parent = multiprocessing.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


class ActionModule(ActionBase):
    """Calls the operation of the module that the Ansible task names, or sends the module to the host."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        name = self._task.action.rpartition(".")[2]
        module = _loading.load(name)
        # Ansible has applied the defaults of this action plugin, which are not those of the module.
        self._task.args = _apply_action_arg_defaults(f"{COLLECTION}.{name}", self._task, self._task.args, self._templar)
        if "holder" in module.ARGUMENT_SPEC:
            self._task.args.setdefault("holder", dataclasses.asdict(holder_of(_run(), _user())))
        try:
            checked = validated(name, module.ARGUMENT_SPEC, self._task.args)
        except UserError as error:
            return error.as_result()
        if not self._is_in_process(task_vars):
            if self._connection.transport == "local":
                # A relative path starts where the run was started; Ansible would have it start at the playbook.
                self._loader.set_basedir(os.getcwd())
            sent = self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)
            return t.cast("dict[str, t.Any]", sent)
        params = checked.validated_parameters
        _progress.tell_to(
            lambda line: self._display.display(f"  {task_vars['inventory_hostname']}: {line}", stderr=True)
        )
        # A database that is only begun starts its server in a process of its own, while there are no threads.
        is_begun = params.get("wait") is False
        with contextlib.nullcontext() if is_begun else _progress.told(lambda: str(self._task.name)):
            result = answer(module.operation, params, check=bool(self._task.check_mode), diff=bool(self._task.diff))
        for stream in {"stdout", "stderr"} & result.keys():  # before ansible-core 2.21 only modules are given these
            result[f"{stream}_lines"] = str(result[stream]).splitlines()
        if getattr(C, "INJECT_INVOCATION", True):  # before ansible-core 2.21 every module tells it
            result["invocation"] = {"module_args": params}
        return t.cast("dict[str, t.Any]", remove_values(result, checked._no_log_values))  # noqa: SLF001

    def _is_in_process(self, task_vars: dict[str, t.Any]) -> bool:
        if self._connection.transport != "local" or self._connection.become is not None:
            return False
        if self._task.async_val or any(self._task.environment or []):
            return False
        interpreter = self._templar.template(task_vars.get("ansible_python_interpreter"))
        return interpreter in (sys.executable, task_vars.get("ansible_playbook_python"))
