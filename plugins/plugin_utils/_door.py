# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's door of every module: in process where that is the same, else as Ansible does.

Private to this collection: may change without notice.

A module costs 0.4 s of CPU however little it does; the same function called in process costs
milliseconds (tests/benchmark/ measures it). In process is the same when the task's host is this
machine, this user and this Python.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import getpass
import importlib
import multiprocessing
import os
import sys
import typing as t

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

from ..module_utils import _progress
from ..module_utils._door import Operation, answer
from ..module_utils._errors import UserError
from ..module_utils._holder import holder_of
from . import _ideas

# A worker is forked for every step: what is loaded by now is neither collected again nor copied for that.
gc.freeze()


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


class Door(ActionBase):
    """Base of the action plugins; a subclass names the idea behind it.

    :arg idea: the private module in ``module_utils`` that has the operation and its argument spec.
    :arg is_info: they are those that look and touch nothing, of an idea that has both.
    :arg drivers: libraries that it needs, where they are installed. They are slow to import, so that is done once in
        Ansible's main process instead of in every fork.
    """

    operation: t.ClassVar[Operation]
    argument_spec: t.ClassVar[dict[str, t.Any]]

    _supports_check_mode = True
    _supports_async = True

    def __init_subclass__(cls, *, idea: str, is_info: bool = False, drivers: t.Sequence[str] = ()) -> None:
        super().__init_subclass__()
        room = _ideas.idea(idea)
        cls.operation = staticmethod(room.info if is_info else room.operation)
        cls.argument_spec = room.INFO_SPEC if is_info else room.ARGUMENT_SPEC
        for driver in drivers:
            with contextlib.suppress(ImportError):
                importlib.import_module(driver)

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        if "holder" in self.argument_spec:
            self._task.args.setdefault("holder", dataclasses.asdict(holder_of(_run(), _user())))
        checked = ArgumentSpecValidator(self.argument_spec).validate(self._task.args)
        if checked.error_messages:
            hint = f"what it takes: ansible-doc {self._task.action}"
            return UserError("; ".join(checked.error_messages), hint=hint).as_result()
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
        result = answer(
            type(self).operation,
            params,
            check=bool(self._task.check_mode),
            diff=bool(self._task.diff),
        )
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
