# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running other programs, and lines of shell that a workspace names; failures quote their last words.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import typing as t

from . import _environment
from ._errors import EnvironmentFailure

LAST_WORDS = 20
SHELL = ("/bin/sh", "-c")

NEXT_LINE = ":\n"
"""Between how a command ended and what it said, where that begins on a line of its own."""


@dataclasses.dataclass(frozen=True)
class Completed:
    """What a program answered; ``stdout`` and ``stderr`` are text with undecodable bytes escaped."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    def ending(self, words: str, between: str = ": ") -> str:
        """How it ended, and what was said last, if anything."""
        ended = f"ended with {self.code}" if self.code >= 0 else f"was ended by signal {-self.code}"
        return between.join(filter(None, (ended, last_words(words))))

    def failure(self, doing: str, *, hint: str | None = None) -> EnvironmentFailure:
        """The error that tells of this run: the command, how it ended, and its last lines."""
        return EnvironmentFailure(
            f"{doing}: '{shlex.join(self.argv)}' {self.ending(self.stderr or self.stdout)}",
            hint=hint,
            command=list(self.argv),
            code=self.code,
        )


def last_words(text: str, lines: int = LAST_WORDS) -> str:
    """The end of a program's output."""
    return "\n".join(text.strip().splitlines()[-lines:])


def run(
    argv: t.Sequence[str],
    *,
    cwd: str | None = None,
    env: t.Mapping[str, str | None] | None = None,
    stdin: bytes | None = None,
    keep: t.Sequence[int] = (),
    apart: bool = False,
    for_task: bool = False,
) -> Completed:
    """Run a program to its end and return what it answered, whatever its exit code.

    :arg env: variables beside the inherited ones; None takes one away.
    :arg keep: file descriptors that the program inherits, such as that of a lock it must outlive us with.
    :arg apart: in a session of its own, so that a signal to all of us (Ctrl-C, a kill of the group) does not reach it.
    :arg for_task: it is a command of a task, or runs one, so it has the caller's locale.
    :raises EnvironmentFailure: the program is not there, or may not be run.
    """
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function # action plugins have no run_command
            list(argv),
            cwd=cwd,
            env=_environment.of_command(env) if for_task else _environment.of_program(env),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            check=False,
            pass_fds=keep,
            start_new_session=apart,
        )
    except FileNotFoundError as error:
        if cwd is not None and not os.path.isdir(cwd):
            raise EnvironmentFailure(f"cannot run '{shlex.join(argv)}': {cwd} is not there") from error
        hint = f"install it, or add its folder to PATH: apt install {os.path.basename(argv[0])}"
        raise EnvironmentFailure(f"{argv[0]} is not on this machine", hint=hint) from error
    except PermissionError as error:
        raise EnvironmentFailure(f"cannot run '{shlex.join(argv)}': {error.strerror}") from error
    return Completed(
        tuple(argv),
        done.returncode,
        done.stdout.decode("utf-8", "surrogateescape"),
        done.stderr.decode("utf-8", "replace"),
    )


def run_line(line: str, **options: t.Any) -> Completed:
    """Run a line of the workspace's own file, or one that its user typed: a shell is what its author expects."""
    return run((*SHELL, line), for_task=True, **options)


def must(argv: t.Sequence[str], *, doing: str, hint: str | None = None, **options: t.Any) -> str:
    """Run a program that has to succeed and return its standard output.

    :arg doing: what for, in words that begin the error message.
    :raises EnvironmentFailure: it did not succeed.
    """
    done = run(argv, **options)
    if not done.ok:
        raise done.failure(doing, hint=hint)
    return done.stdout
