# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running other programs: lists of arguments, the C locale, and failures that quote their last words.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import typing as t

from ._errors import EnvironmentFailure

LAST_WORDS = 20

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
) -> Completed:
    """Run a program to its end and return what it answered, whatever its exit code.

    :arg env: variables beside the inherited ones; None takes one away.
    :arg keep: file descriptors that the program inherits, such as that of a lock it must outlive us with.
    :arg apart: in a session of its own, so that a signal to all of us (Ctrl-C, a kill of the group) does not reach it.
    :raises EnvironmentFailure: the program is not there, or may not be run.
    """
    variables = {**os.environ, "LC_ALL": "C", **(env or {})}
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function # action plugins have no run_command
            list(argv),
            cwd=cwd,
            env={name: value for name, value in variables.items() if value is not None},
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


def must(argv: t.Sequence[str], *, doing: str, hint: str | None = None, **options: t.Any) -> str:
    """Run a program that has to succeed and return its standard output.

    :arg doing: what for, in words that begin the error message.
    :raises EnvironmentFailure: it did not succeed.
    """
    done = run(argv, **options)
    if not done.ok:
        raise done.failure(doing, hint=hint)
    return done.stdout
