# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stdout callback: its pure formatting, and what a person sees of real playbooks."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.parallel.worktrees.plugins.callback.steps import Step, closing_line, duration, reason

COLLECTIONS = next(path for path in sys.path if Path(path, "ansible_collections/parallel/worktrees").is_dir())
PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))
ACT = """
import time
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = dict(self._task.args)
        time.sleep(float(result.pop("sleep", 0)))
        if "crash" in result:
            raise RuntimeError(result["crash"])
        return result
"""


class Stage:
    """Runs plays on hosts of this machine, whose task ``act`` returns its arguments as its result."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "action_plugins").mkdir()
        (folder / "action_plugins/act.py").write_text(ACT)
        unwanted = ("NO_COLOR", "ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR", "ANSIBLE_CONFIG")
        self.env = {name: value for name, value in os.environ.items() if name not in unwanted} | {
            "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
            "ANSIBLE_STDOUT_CALLBACK": "parallel.worktrees.steps",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "TERM": "xterm",
        }

    def command(self, plays: str, *args: str, hosts: str = "a") -> list[str]:
        loaded = [{"hosts": "all", "gather_facts": False, "name": "Provision"} | play for play in yaml.safe_load(plays)]
        (self.folder / "play.yml").write_text(yaml.safe_dump(loaded))
        python = f"ansible_python_interpreter={sys.executable}"
        return [PLAYBOOK, "-i", f"{hosts},", "-c", "local", "-e", python, "play.yml", *args]

    def run(self, plays: str, *args: str, hosts: str = "a", **env: str) -> subprocess.CompletedProcess[str]:
        command = self.command(plays, *args, hosts=hosts)
        return subprocess.run(
            command, cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=60, check=False
        )

    def show(self, plays: str, *args: str, hosts: str = "a", **env: str) -> list[str]:
        return normal(self.run(plays, *args, hosts=hosts, **env).stdout)

    def terminal(self, plays: str, *, hosts: str = "a", interrupt_at: str | None = None, **env: str) -> str:
        """What is written to a terminal, escape sequences and all."""
        master, slave = pty.openpty()
        with subprocess.Popen(
            self.command(plays, hosts=hosts),
            cwd=self.folder,
            env=self.env | env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        ) as process:
            os.close(slave)
            written = b""
            while chunk := read(master):
                written += chunk
                if interrupt_at and interrupt_at.encode() in written:
                    interrupt_at = None
                    time.sleep(0.3)
                    os.killpg(process.pid, signal.SIGINT)
        os.close(master)
        return written.decode()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody holds the other end
        return b""


def normal(text: str) -> list[str]:
    """Lines without times and runs of blanks."""
    return [re.sub(r"(?<=\S) +", " ", re.sub(r"[\d.]+ s\b", "T s", line)) for line in text.splitlines()]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0712, "0.07 s"), (1.94, "1.9 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (3675.5, "61 min 15 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("hosts", "failed", "line"),
    [
        (1, [], "done in 4.2 s"),
        (1, ["a"], "failed after 4.2 s"),
        (30, [], "30 tasks in 4.2 s"),
        (30, ["a", "b"], "2 of 30 tasks failed: a, b"),
    ],
)
def test_closing_line(hosts: int, failed: list[str], line: str) -> None:
    assert closing_line(hosts, failed, 4.2) == line


@pytest.mark.parametrize(
    ("outcomes", "changes", "line"),
    [
        ({"fix-login": "changed"}, 4, "  worktrees  fix-login  0.07 s  4 changes"),
        ({"fix-login": "changed"}, 1, "  worktrees  fix-login  0.07 s  1 change"),
        ({"fix-login": "changed"}, 0, "  worktrees  fix-login  0.07 s  changed"),
        ({"fix-login": "ok"}, 0, "  worktrees  fix-login  0.07 s"),
        ({"fix-login": "skipped"}, 0, "  worktrees  fix-login  0.07 s  skipped"),
        ({"fix-login": "rescued"}, 0, "  worktrees  fix-login  0.07 s  rescued"),
        ({"a": "changed", "b": "ok", "c": "skipped"}, 0, "  worktrees  2 tasks  0.07 s  1 changed"),
        ({"a": "skipped", "b": "ok"}, 0, "  worktrees  b  0.07 s"),
        (
            {"a": "failed", "b": "changed", "c": "failed", "d": "ignored"},
            8,
            "  worktrees  4 tasks  0.07 s  8 changes, 1 ignored: d, 2 failed: a, c",
        ),
    ],
)
def test_step_line(outcomes: dict[str, str], changes: int, line: str) -> None:
    step = Step("worktrees", start=1.0, end=1.07, outcomes=outcomes, changes=changes)
    assert re.sub(r"(?<=\S) {2,}", "  ", step.line()) == line


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ({"msg": "no\nhint: do", "failure": "user", "stderr": "x"}, ["no  [user error]", "hint: do"]),
        ({"msg": "no", "failure": "environment"}, ["no  [environment error]"]),
        ({"msg": "no", "failure": "partial"}, ["no  [partial failure]"]),
        ({"msg": "no"}, ["no"]),
        ({"msg": ""}, ["no reason given"]),
        ({"msg": " \n"}, ["no reason given"]),
        ({}, ["no reason given"]),
        ({"reason": "no such file"}, ["no such file"]),
        ({"msg": "bad", "rc": 2, "stderr": "e1\ne2", "stdout": "o"}, ["bad (rc 2)", "e1", "e2"]),
        ({"msg": "bad", "rc": 2, "stderr": "", "stdout": "o"}, ["bad (rc 2)", "o"]),
        ({"msg": "bad", "stderr": "\n".join("abcdefghijkl")}, ["bad", *"cdefghijkl"]),
        ({"msg": "Task failed: Module failed: boom"}, ["boom"]),
        ({"msg": "Task failed: boom"}, ["boom"]),
        ({"msg": "MODULE FAILURE", "module_stderr": "e1\ne2"}, ["MODULE FAILURE", "e1", "e2"]),
        ({"msg": "s3cret", "_ansible_no_log": True}, ["the reason is hidden by no_log"]),
    ],
)
def test_reason(data: dict[str, t.Any], lines: list[str]) -> None:
    assert reason(data) == lines


STEPS = """
- tasks:
    - {name: Lease, act: {changed: true, actions: [slot 1, port 5001]}}
    - {name: Internal, tags: [quiet], act: {changed: true}}
    - {name: Set, set_fact: {x: 1}}
    - {name: Skipped, act: {}, when: false}
    - {name: Loop, act: {changed: true, summary: "{{ item }} for {{ inventory_hostname }}"}, loop: [1, 2]}
    - {name: Odd, act: {failed: true, msg: it does not matter}, ignore_errors: true}
    - {name: Say, debug: {msg: hello}}
    - {name: Secret, act: {msg: s3cret, actions: [s3cret], summary: s3cret, diff: {before: '', after: s3cret}},
       changed_when: true, no_log: true}
    - {name: Half, act: {msg: "{{ item }}", summary: "{{ item }}", actions: ["{{ item }}"]}, loop: [s3cret, plain],
       no_log: "{{ item == 's3cret' }}", when: half | default(false)}
"""


def test_one_task(stage: Stage) -> None:
    run = stage.run(STEPS)
    assert normal(run.stdout) == [
        "  Lease a T s 2 changes",
        "  Loop a T s changed",
        "  Odd a T s ignored",
        "  Say a T s",
        "    hello",
        "  Secret a T s changed",
        "1 for a",
        "2 for a",
        "",
        "done in T s",
    ]
    assert run.stderr == ""
    assert run.returncode == 0


def test_check_mode_says_what_would_be_done(stage: Stage) -> None:
    lines = stage.show(STEPS, "--check", "--diff", hosts="a,b")
    assert lines[:8] == [
        "dry run: nothing is changed",
        "  Lease 2 tasks T s 4 changes",
        "  a:",
        "    slot 1",
        "    port 5001",
        "  b:",
        "    slot 1",
        "    port 5001",
    ]
    assert lines[-6:] == ["1 for a", "2 for a", "1 for b", "2 for b", "", "2 tasks in T s"]


@pytest.mark.parametrize("verbosity", ["-v", "-vv", "-vvv"])
def test_verbose_shows_what_is_hidden_but_no_secret(stage: Stage, verbosity: str) -> None:
    run = stage.run(STEPS, verbosity, "--diff", "-e", '{"half": true}')
    lines = normal(run.stdout)
    assert "s3cret" not in run.stdout + run.stderr
    assert {"Provision", "  Internal a T s changed", "  Skipped a T s skipped", "    slot 1"} <= set(lines)
    assert "IGNORED a Odd: it does not matter" in lines
    assert "a: 8 ok, 4 changed, 1 skipped, 1 ignored" in lines
    assert ("    {" in run.stdout) == (verbosity != "-v")


def test_diff_lies_under_its_step(stage: Stage) -> None:
    diff = "{before: 'x\n\n', after: 'y\n\n', before_header: /w/.env, after_header: /w/.env}"
    lines = stage.show(f"[tasks: [{{name: Env, act: {{changed: true, diff: [{diff}]}}}}]]", "--diff")
    assert lines == [
        "  Env a T s changed",
        "--- before: /w/.env",
        "+++ after: /w/.env",
        "@@ -1 +1 @@",
        "-x",
        "+y",
        "done in T s",
    ]


FAILURES = r"""
- tasks:
    - name: Worktrees
      act:
        failed: "{{ inventory_hostname == 'b' }}"
        msg: "branch {{ inventory_hostname }} exists\nfile one\nhint: git branch"
        failure: user
      loop: [1, 2]
      loop_control: {label: "repo {{ item }}"}
    - block:
        - include_tasks: inner.yml
      rescue:
        - {name: Second, act: {failed: "{{ inventory_hostname == 'c' }}", msg: gave up}}
    - {name: Hidden, act: {failed: "{{ inventory_hostname == 'd' }}", msg: s3cret}, no_log: true, loop: [1, 2]}
    - {name: Crash, act: {crash: boom}, when: inventory_hostname == 'e'}
    - {name: Program, command: sh -c 'echo wrong >&2; exit 3', when: inventory_hostname == 'f'}
"""


def told(item: str) -> str:
    return f"FAILED b Worktrees ({item}): branch b exists [user error]\n    file one\n    hint: git branch\n"


def test_failures(stage: Stage) -> None:
    (stage.folder / "inner.yml").write_text("[{name: First, act: {failed: true, msg: first reason}}]")
    run = stage.run(FAILURES, hosts="a,b,c,d,e,f")
    text = "\n".join(normal(run.stdout))
    for part in (
        f"{told('repo 1')}{told('repo 2')}  Worktrees 6 tasks T s 1 failed: b\n",
        "\n  First 5 tasks T s 5 rescued: a, c, d, e, f\n",
        "FAILED c Second: gave up\n    before: First: first reason\n",
        "\n  Second 5 tasks T s 1 failed: c\nFAILED d Hidden: the reason is hidden by no_log\n",
        "\nFAILED e Crash: boom\n    hint: ANSIBLE_DISPLAY_TRACEBACK=error shows the traceback\nFAILED f Program: ",
        " (rc 3)\n    wrong\n5 of 6 tasks failed: b, c, d, e, f",
    ):
        assert part in text, text
    assert "first reason" not in text.replace("before: First: first reason", "")
    assert "s3cret" not in text
    assert run.returncode == 2


def test_traceback_on_request(stage: Stage) -> None:
    plays = "[tasks: [{name: Crash, act: {crash: boom}}]]"
    text = stage.run(plays, ANSIBLE_DISPLAY_TRACEBACK="error").stdout
    assert 'raise RuntimeError(result["crash"])' in text
    assert "hint:" not in text


def test_unreachable_and_the_free_strategy(stage: Stage) -> None:
    plays = """
    - strategy: free
      tasks:
        - {name: One, act: {}}
        - {name: Ping, ping: {}, vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1},
           when: inventory_hostname == 'b'}
        - {name: Two, act: {}}
        - {name: Three, act: {failed: "{{ inventory_hostname == 'c' }}", msg: gave up}}
    - name: Admit
      hosts: a
      tasks: [{name: Four, act: {}}]
    """
    lines = stage.show(plays, "-f", "1", hosts="a,b,c")
    [unreachable] = [line for line in lines if line.startswith("UNREACHABLE b Ping: ")]
    lines.remove(unreachable)
    assert [line for line in lines if not line.startswith("    ")] == [
        "  One 3 tasks T s",
        "  Two 2 tasks T s",
        "FAILED c Three: gave up",
        "  Three 2 tasks T s 1 failed: c",
        "  Four a T s",
        "2 of 3 tasks failed: b, c",
    ]


def test_batches_async_and_retries(stage: Stage) -> None:
    plays = """
    - serial: 2
      tasks:
        - {name: Wait, command: 'true', async: 5, poll: 1}
        - name: Retry
          command: sh -c 'test -e $0 || { touch $0; exit 1; }' {{ inventory_hostname }}
          args: {chdir: "{{ playbook_dir }}"}
          register: tried
          until: tried.rc == 0
          retries: 2
          delay: 0
          notify: Handle
      handlers: [{name: Handle, act: {failed: "{{ inventory_hostname == 'c' }}", msg: gave up}}]
    """
    assert stage.show(plays, hosts="a,b,c") == [
        "  Wait 2 tasks T s 2 changed",
        "  Retry 2 tasks T s 2 changed",
        "  Handle 2 tasks T s",
        "  Wait c T s changed",
        "  Retry c T s changed",
        "FAILED c Handle: gave up",
        "1 of 3 tasks failed: c",
    ]


REPORT = """
- {name: On all, tags: [report], tasks: [{name: Quietly, act: {changed: true, warnings: [beware]}},
                                {name: Tell, act: {report: '{"tasks": []}', msg: not so,
                                                   failed: "{{ bad | default(false) }}"}}]}
"""


@pytest.mark.parametrize("args", [[], ["--check", "--diff"]])
def test_report_is_all_there_is(stage: Stage, args: list[str]) -> None:
    run = stage.run(REPORT, *args)
    assert run.stdout == '{"tasks": []}\n'
    assert json.loads(run.stdout) == {"tasks": []}
    assert "beware" in run.stderr


def test_report_fails_on_stderr(stage: Stage) -> None:
    run = stage.run(REPORT, "-e", '{"bad": true}', hosts="a")
    assert "FAILED" not in run.stdout
    assert "FAILED  a  Tell: not so\n" in run.stderr
    assert run.returncode == 2


def test_terminal_shows_the_running_step_in_colour(stage: Stage) -> None:
    written = stage.terminal(
        "[tasks: [{name: Env, act: {changed: true}}, {name: Hidden, tags: [quiet], act: {}}]]", hosts="a,b"
    )
    live, _clear, rest = written.partition("\r\033[K")
    assert live == "  Env" + " " * 31
    assert f"  {'Env':<32}  1 of 2\r\033[K" in rest
    assert "\033[0;33m  Env " in rest
    assert "Hidden" not in written
    plain = stage.terminal("[tasks: [{name: Env, act: {changed: true}}]]", NO_COLOR="1")
    assert "\033[0" not in plain


def test_terminal_counts_only_who_is_left(stage: Stage) -> None:
    plays = (
        "[tasks: [{name: One, act: {failed: \"{{ inventory_hostname == 'b' }}\", msg: gone}}, {name: Two, act: {}}]]"
    )
    written = stage.terminal(plays, hosts="a,b,c")
    assert re.search(r"  One +3 of 3\r", written)
    assert re.findall(r"  Two +\d of (\d)\r", written)[-1] == "2"
    assert not re.search(r"  Two +\d of 3", written)


def test_colour_is_for_terminals(stage: Stage) -> None:
    plays = "[tasks: [{name: Env, act: {failed: true, msg: 'no\n\nhint: do'}}]]"
    assert "\033" not in stage.run(plays).stdout
    assert "\033[1;35m    hint: do\033[0m" in stage.run(plays, ANSIBLE_FORCE_COLOR="1").stdout


def test_interrupt(stage: Stage) -> None:
    plays = "[tasks: [{name: Done, act: {}}, {name: Slow, act: {sleep: 30}}]]"
    written = stage.terminal(plays, interrupt_at="Slow")
    assert re.search(r"Done +a +[\d.]+ s", written)
    assert "interrupted" in written
    assert "Traceback" not in written


def test_the_default_callback_does_as_well(stage: Stage) -> None:
    run = stage.run(STEPS, ANSIBLE_STDOUT_CALLBACK="default")
    assert "PLAY RECAP" in run.stdout
    assert run.returncode == 0


def test_documentation(stage: Stage) -> None:
    command = [str(Path(PLAYBOOK).with_name("ansible-doc")), "-t", "callback", "-j", "parallel.worktrees.steps"]
    shown = subprocess.run(command, env=stage.env, capture_output=True, text=True, timeout=60, check=True).stdout
    doc = json.loads(shown)["parallel.worktrees.steps"]["doc"]
    assert (doc["name"], doc["type"], doc["version_added"]) == ("steps", "stdout", "1.0.0")


TASKS = """
- name: Admit
  tasks:
    - {name: Admit, act: {summary: "{{ missing | default('') }}", msg: not so, failure: user, hint: do,
                          failed: "{{ refused | default(false) }}"}}
    - {name: Host, add_host: {name: "{{ item }}", groups: tasks, task_facts: {name: "{{ item }}"}}, loop: [a, b]}
- hosts: tasks
  tasks:
    - {name: Make, act: {changed: true, msg: "no\\nhint: do", failure: user, hint: do,
                         failed: "{{ inventory_hostname == bad | default('') }}"}}
    - {name: Ready, act: {summary: '{"name": "{{ inventory_hostname }}"}'}}
"""
REFUSAL = {"failed": True, "failure": "user", "hint": "do"}


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({}, {"tasks": [{"name": "a"}, {"name": "b"}]}),
        ({"bad": "a", "task": "a,b"}, {"tasks": [{"name": "a", "msg": "no", **REFUSAL}, {"name": "b"}]}),
        ({"missing": '[{"name": "c"}]'}, {"tasks": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}),
        ({"refused": "true", "task": "a,b"}, {"tasks": [], "msg": "not so", **REFUSAL}),
        ({"refused": "true", "all_tasks": True}, {"tasks": [], "msg": "not so", **REFUSAL}),
        ({"refused": "true", "task": "a"}, {"msg": "not so", **REFUSAL}),
    ],
    ids=["two", "one is refused", "one is absent", "all are refused", "whoever there is", "the only one is refused"],
)
def test_an_answer_in_json_is_one_document(stage: Stage, given: dict[str, t.Any], answer: dict[str, t.Any]) -> None:
    done = stage.run(TASKS, "--check", "-e", json.dumps({"format": "json", **given}), hosts="localhost")
    assert json.loads(done.stdout) == answer
    assert "dry run: nothing is changed" in done.stderr
    assert ("refused" in given) or "Make" in done.stderr
