# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets: one file of mode 0600 each, and a placeholder that stands for them everywhere else.

Private to this collection: may change without notice.

A templated value says ``{{ task_facts.database.password }}`` and gets the placeholder; the module
that writes the value puts the secret in its place, on the machine where the secret lives. So no
secret is ever in Ansible's variables, results, logs, or the arguments of a process.
"""

from __future__ import annotations

import os
import secrets
import typing as t

from . import _files
from ._errors import EnvironmentFailure

DATABASE_PASSWORD = "PARALLEL_WORKTREES_DATABASE_PASSWORD"  # noqa: S105 - a placeholder
"""Stands for the password of the task's database; letters and underscores, so it survives URLs and quoting."""

MASK = "********"


def ensure(path: str) -> str:
    """The secret kept in a file, generated (128 bits, hexadecimal) where there is none."""
    try:
        return read(path)
    except FileNotFoundError:
        secret = secrets.token_hex(16)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    _files.write(path, secret.encode() + b"\n", mode=0o600)
    return secret


def read(path: str) -> str:
    """The secret kept in a file.

    :raises FileNotFoundError: there is no such file.
    :raises EnvironmentFailure: the file may not be read, or is empty.
    """
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.read().strip()
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise EnvironmentFailure(f"the password file {path} may not be read by this user") from error
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is no text"
        raise EnvironmentFailure(f"the password file {path} cannot be read: {words}") from None
    if not secret:
        raise EnvironmentFailure(f"the password file {path} is empty", hint=f"remove it: rm {path}")
    return secret


def reveal(text: str, known: t.Mapping[str, str]) -> str:
    """Put secrets in the place of their placeholders."""
    for placeholder, secret in known.items():
        text = text.replace(placeholder, secret)
    return text


def mask(text: str, known: t.Mapping[str, str]) -> str:
    """Hide secrets and their placeholders."""
    for placeholder, secret in known.items():
        text = text.replace(placeholder, MASK).replace(secret, MASK)
    return text
