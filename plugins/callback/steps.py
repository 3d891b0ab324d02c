# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Screen output for people who provision: a line per step, then what they need to know."""

from __future__ import annotations

DOCUMENTATION = r"""
name: steps
type: stdout
short_description: Print each step on one line with its time, then a short summary
version_added: 1.0.0
author: parallel.worktrees contributors (@parallel-worktrees)
description:
  - Prints each Ansible task as one line with its time, for any number of hosts, and names the hosts that failed. On a
    terminal, the line of the running step is updated. Elsewhere, the line is printed when the step has ended.
  - Without C(-v), the callback does not print skipped steps, steps with the tag C(quiet), and steps that only control
    the playbook, such as C(set_fact), C(add_host), C(assert) or an include.
  - The result of an Ansible task may contain RV(ignore:summary), which is printed after the steps in the order of the
    hosts, RV(ignore:report), which is printed after the steps unchanged, and RV(ignore:actions), a list of what was
    done, which is printed in check mode and with C(-v).
  - A play with the tag C(report) prints no steps, and prints its failures on standard error. A playbook that has only
    such plays prints only its reports, so that you can pipe them into another program.
  - With the variable C(format=json), standard output has only the answer, which is one JSON document. All other lines
    are printed on standard error. For a call with one task, the answer is the object of that task. For a call with
    several tasks (C(task=a,b), C(count), C(all_tasks)), it is a dictionary whose C(tasks) is a list of these objects. A
    task that was refused or has failed is also in the list, with C(failed), C(failure), C(msg) and C(hint). If the
    whole call was refused, the dictionary itself has these keys.
  - For a failure, only its message is printed. C(-v) adds hidden steps, rescued and ignored failures and the play
    recap. C(-vv) adds the results of Ansible tasks. The setting E(ANSIBLE_DISPLAY_TRACEBACK) adds tracebacks.
requirements:
  - The configuration must set this plugin as the stdout callback.
extends_documentation_fragment:
  - ansible.builtin.result_format_callback
"""

import collections.abc as c
import dataclasses
import re
import shutil
import sys
import textwrap
import time
import typing as t

from ansible import constants as C
from ansible import context
from ansible.plugins.callback import CallbackBase

from ..plugin_utils._answer import Answer, names_several
from ..plugin_utils._typed import Typed

if t.TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.inventory.host import Host
    from ansible.playbook import Playbook
    from ansible.playbook.play import Play
    from ansible.playbook.task import Task

QUIET_ACTIONS = {"add_host", "assert", "group_by", "include_role", "include_tasks", "include_vars", "meta", "pause"}
QUIET_ACTIONS |= {"set_fact", "set_stats", "validate_argument_spec"}
QUIET = "quiet"
"""The tag of an Ansible task that is not shown."""
REPORT = "report"
"""The tag of a play that shows its report alone."""
FAILURES = {"user": "  [user error]", "environment": "  [environment error]", "partial": "  [partial failure]"}
CRASH = re.compile(r"Task failed: (Module failed: )?")


@dataclasses.dataclass
class Step:
    """One Ansible task over all its hosts."""

    name: str
    is_quiet: bool = False
    start: float = dataclasses.field(default_factory=time.monotonic)
    end: float = 0.0
    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    changes: int = 0
    details: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def hosts(self, *outcomes: str) -> list[str]:
        return [host for host, outcome in self.outcomes.items() if outcome in outcomes]

    def tell(self, host: str, details: list[str]) -> None:
        if details:
            self.details.setdefault(host, []).append(indent("\n".join(details)))

    @property
    def ran(self) -> list[str]:
        return self.hosts("ok", "changed", "ignored", "rescued", "failed")

    def line(self) -> str:
        hosts = self.ran or list(self.outcomes)
        is_one = len(hosts) == 1
        notes = [] if self.ran else ["skipped"]
        if self.changes:
            notes.append(f"{self.changes} change{'s' * (self.changes > 1)}")
        elif changed := self.hosts("changed"):
            notes.append("changed" if is_one else f"{len(changed)} changed")
        notes += [
            outcome if is_one else f"{len(named)} {outcome}: {', '.join(named)}"
            for outcome in ("ignored", "rescued", "failed")
            if (named := self.hosts(outcome))
        ]
        who = hosts[0] if is_one else f"{len(hosts)} tasks"
        return (
            f"  {self.name:<32}  {who:<16}  {duration(max(0.0, self.end - self.start)):>8}  {', '.join(notes)}".rstrip()
        )


def duration(seconds: float) -> str:
    """A time with as many digits as one cares for."""
    if seconds < 60:
        return f"{seconds:.{2 if seconds < 1 else 1}f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def closing_line(hosts: int, failed: list[str], seconds: float) -> str:
    """The last line of a run."""
    if hosts == 1:
        return f"{'failed after' if failed else 'done in'} {duration(seconds)}"
    if failed:
        return f"{len(failed)} of {hosts} tasks failed: {', '.join(failed)}"
    return f"{hosts} tasks in {duration(seconds)}"


def reason(data: c.Mapping[str, t.Any]) -> list[str]:
    """Why a task failed: the message's lines, and where Ansible gives only a code, the program's last words."""
    if data.get("_ansible_no_log"):
        return ["the reason is hidden by no_log"]
    message = CRASH.sub("", str(data.get("msg") or data.get("reason") or ""))
    first, *rest = message.strip().splitlines() or ["no reason given"]
    if data.get("failure") in FAILURES:
        return [first + FAILURES[data["failure"]], *rest]
    if "rc" in data:
        first += f" (rc {data['rc']})"
    streams = (str(data.get(key, "")) for key in ("stderr", "stdout", "module_stderr", "module_stdout"))
    return [first, *rest, *next(filter(None, streams), "").splitlines()[-10:]]


def indent(text: str) -> str:
    return textwrap.indent(text.rstrip("\n"), "    ")


def task_of(host: Host) -> str | None:
    """The name of the task that a host stands for."""
    facts = host.get_vars().get("task_facts")
    return str(facts["name"]) if isinstance(facts, c.Mapping) else None


def action_of(task: Task) -> str:
    """The module of a task, without its collection."""
    return task.action.rpartition(".")[2]


def is_in(task: Task, *sections: str) -> bool:
    """Whether the task lies in such a section of a block that has a rescue section."""
    # A block lists an imported role by its blocks, which lie below the import on the way up: hence all that was passed.
    passed, block = {task._uuid}, task._parent
    while block:
        if getattr(block, "rescue", None):
            members = (member for section in sections for member in getattr(block, section))
            if any(member._uuid in passed for member in members):
                return True
        passed.add(block._uuid)
        block = block._parent
    return False


class CallbackModule(CallbackBase):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "parallel.worktrees.steps"

    def __init__(self) -> None:
        super().__init__()
        # With -v others print too, and would tear a live line apart.
        self._is_live = sys.stdout.isatty() and not self._display.verbosity
        self._typed = Typed(context.CLIARGS)
        self._live_line = ""
        self._reset()

    def _reset(self) -> None:
        self._start = time.monotonic()
        self._has_spoken = self._is_report = self._is_free = self._is_json = self._is_several = False
        self._steps: dict[str, Step] = {}
        self._plays: dict[str, dict[str, None]] = {}  # the hosts of each play, in order
        self._hosts: dict[str, None] = {}  # those of the current one
        self._gone: set[str] = set()
        self._items: dict[tuple[str, str], list[CallbackTaskResult]] = {}  # failures of a loop that still runs
        self._texts: list[tuple[str, str, str]] = []
        self._answer = Answer()
        self._rescued: dict[str, list[tuple[str, str]]] = {}

    # What Ansible tells

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        self._reset()

    def v2_playbook_on_play_start(self, play: Play) -> None:
        self._finish(self._steps)
        name = play.get_name().strip()
        self._is_report = REPORT in play.tags
        given = play.get_variable_manager().extra_vars
        self._is_json = given.get("format") == "json"
        self._is_several = names_several(given)
        self._is_free = play.strategy.rpartition(".")[2] == "free"
        self._hosts = self._plays.setdefault(play._uuid, {})
        if self._display.verbosity:
            self._say(name)

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool = False) -> None:
        # The free strategy begins a step on every host before it tells the first result of any.
        self._finish(
            uuid
            for uuid, step in self._steps.items()
            if not self._is_free or self._hosts.keys() <= step.outcomes.keys() | self._gone
        )
        self._show(self._step(task))

    v2_playbook_on_handler_task_start = v2_playbook_on_task_start

    def v2_runner_on_start(self, host: Host, task: Task) -> None:
        self._hosts[host.get_name()] = None
        self._show(self._step(task))

    def v2_runner_retry(self, result: CallbackTaskResult) -> None:
        self._show(self._step(result.task), f"  try {result.result['attempts']} of {result.result['retries']} failed")

    def v2_on_file_diff(self, result: CallbackTaskResult) -> None:
        for part in self._parts(result):
            step = self._step(result.task)
            if step.is_quiet and not self._display.verbosity:
                continue
            if part.get("diff") and part.get("changed") and (diff := self._get_diff(part["diff"])):
                step.details.setdefault(result.host.get_name(), []).append(diff.rstrip("\n"))

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        if result.result.get("warnings") or result.result.get("deprecations"):
            self._clear()
            self._handle_warnings(result.result)

    v2_runner_item_on_skipped = v2_runner_item_on_ok

    def v2_runner_item_on_failed(self, result: CallbackTaskResult) -> None:
        self.v2_runner_item_on_ok(result)
        self._items.setdefault((result.task._uuid, result.host.get_name()), []).append(result)

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        self._record(result, "changed" if result.is_changed() else "ok")

    def v2_runner_on_skipped(self, result: CallbackTaskResult) -> None:
        self._record(result, "skipped")

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        outcome = "ignored" if result.task.ignore_unreachable else "failed"
        self._tell("UNREACHABLE" if outcome == "failed" else "IGNORED", result)
        self._record(result, outcome)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        outcome = "ignored" if ignore_errors else "rescued" if is_in(result.task, "block") else "failed"
        for failed in self._items.pop((result.task._uuid, result.host.get_name()), [result]):
            self._tell(outcome.upper(), failed)
        self._record(result, outcome)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        self._finish(self._steps)
        self._is_report = False
        hosts = list(dict.fromkeys(host for play in self._plays.values() for host in play))
        texts = sorted(self._texts, key=lambda text: hosts.index(text[0]))
        if self._is_json and (answer := self._answer.text(hosts, is_several=self._is_several)):
            self._display.display(answer)
        for _host, key, text in texts:
            if key == "report":
                self._display.display(text)
        summaries = [text.rstrip("\n") for _host, key, text in texts if key == "summary"]
        for text in summaries:
            self._say(f"\n{text}" if "\n" in text else text)
        if summaries and self._has_spoken:
            self._say("")
        for host in stats.processed if self._display.verbosity else ():
            counts = (f"{count} {what}" for what, count in stats.summarize(host).items() if count)
            self._say(f"{host}: {', '.join(counts)}")
        if self._has_spoken:
            failed = [host for host in hosts if stats.failures.get(host) or stats.dark.get(host)]
            # The play with most hosts is the one whose hosts are the tasks of the call.
            tasks = max(reversed(self._plays.values()), key=len) if self._plays else ()
            line = closing_line(len({*tasks, *failed}), failed, time.monotonic() - self._start)
            self._say(line, C.COLOR_ERROR if failed else C.COLOR_OK)

    # What is kept of it

    def _step(self, task: Task) -> Step:
        if task._uuid not in self._steps:
            action = action_of(task)
            told = (task.name or action).strip()
            self._steps[task._uuid] = Step(told, is_quiet=action in QUIET_ACTIONS or QUIET in task.tags)
        return self._steps[task._uuid]

    def _parts(self, result: CallbackTaskResult) -> list[dict[str, t.Any]]:
        """The results of a loop's items, or the one result.

        What no_log hides, Ansible has emptied by now.
        """
        items = result.result.get("results") if result.task.loop else None
        parts = items if isinstance(items, list) else [result.result]
        return [part for part in parts if isinstance(part, dict)]

    def _record(self, result: CallbackTaskResult, outcome: str) -> None:
        host, step, verbosity = result.host.get_name(), self._step(result.task), self._display.verbosity
        self.v2_runner_item_on_ok(result)
        step.outcomes[host] = outcome
        step.end = time.monotonic()
        if outcome == "failed":
            self._gone.add(host)
        for part in self._parts(result):
            told = [(key, part[key]) for key in ("summary", "report") if isinstance(part.get(key), str)]
            for key, text in told:
                if not (self._is_json and self._answer.take(host, text, is_task=task_of(result.host) is not None)):
                    self._texts.append((host, key, self._typed.commands(text)))
            details: list[str] = []
            if isinstance(actions := part.get("actions"), list):
                step.changes += len(actions)
                if verbosity or (context.CLIARGS.get("check") and not step.is_quiet):
                    details += map(str, actions)
            if action_of(result.task) == "debug" and outcome == "ok":
                self._clean_results(part, result.task.action)
                details.append(part["msg"] if isinstance(part.get("msg"), str) else self._dump_results(part))
            step.tell(host, details)
        if verbosity > 1:
            step.tell(host, [self._dump_results(result.result)])
        self._show(step)

    # What is written where

    def _tell(self, word: str, result: CallbackTaskResult) -> None:
        host, data = result.host.get_name(), result.result
        where = self._step(result.task).name
        if "ansible_loop_var" in data:
            where += f" ({self._get_item_label(data)})"
        first, *rest = map(self._typed.commands, reason(data))
        if word == "RESCUED":
            self._rescued.setdefault(host, []).append((where, first))
        if word in ("FAILED", "UNREACHABLE"):
            self._answer.fail(host, task_of(result.host), data)
        if word in ("RESCUED", "IGNORED") and not self._display.verbosity:
            return
        if is_in(result.task, "rescue", "always"):
            # This may be a failure with words of its own: then tell what it all began with.
            rest += [f"before: {place}: {why}" for place, why in self._rescued.pop(host, []) if why not in first]
        if word != "UNREACHABLE" and CRASH.match(str(data.get("msg"))):
            lines = str(data.get("exception")).splitlines()
            is_traceback = len(lines) > 1  # else Ansible's words for having none
            rest += lines if is_traceback else ["hint: ANSIBLE_DISPLAY_TRACEBACK=error shows the traceback"]
        self._say(f"{word}  {host}  {where}: {first}", C.COLOR_SKIP if word == "IGNORED" else C.COLOR_ERROR)
        for line in rest:
            self._say(indent(line), C.COLOR_WARN if line.startswith("hint:") else None)

    def _finish(self, uuids: c.Iterable[str]) -> None:
        for step in [self._steps.pop(uuid) for uuid in list(uuids)]:
            self._clear()
            step.outcomes = {host: step.outcomes[host] for host in self._hosts if host in step.outcomes}
            is_notable = not self._is_report and (step.details or (step.ran and not step.is_quiet))
            if not step.outcomes or not (is_notable or self._display.verbosity):
                continue
            failed, changed = step.hosts("failed"), step.changes or step.hosts("changed")
            if not failed or len(step.ran) > 1:  # of one that failed, FAILED has said it all
                self._say(step.line(), C.COLOR_ERROR if failed else C.COLOR_CHANGED if changed else C.COLOR_OK)
            for host in filter(step.details.get, step.outcomes):
                self._say("\n".join([f"  {host}:"] * (len(step.outcomes) > 1) + step.details[host]))

    def _show(self, step: Step, note: str = "") -> None:
        if not self._is_live or step.is_quiet or self._is_report:
            return
        hosts = self._hosts.keys() - self._gone | step.outcomes.keys()
        who = f"{len(step.outcomes)} of {len(hosts)}" if len(hosts) > 1 else "".join(hosts)
        line = f"  {step.name:<32}  {who}{note}"[: shutil.get_terminal_size().columns - 1]
        if line != self._live_line:
            self._clear()
            self._live_line = line
            self._display.display(line, screen_only=True, newline=False)
            sys.stdout.flush()

    def _clear(self) -> None:
        if self._live_line:
            self._live_line = ""
            self._display.display("\r\033[K", screen_only=True, newline=False)
            sys.stdout.flush()

    def _say(self, text: str, color: str | None = None) -> None:
        self._clear()
        if not self._is_report and not self._has_spoken:
            self._has_spoken = True
            if context.CLIARGS.get("check"):
                self._display.display("dry run: nothing is changed", color=C.COLOR_HIGHLIGHT, stderr=self._is_json)
        self._display.display(text, color=color, stderr=self._is_report or self._is_json)
        sys.stdout.flush()
