# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of every program that is run here: the caller's, without what leads git to another repository, or
a program of PostgreSQL's to another server.

Private to this collection: may change without notice.

A playbook that is started by a git hook or alias inherits variables that name the repository, index and objects of that
git command. Neither git as it is run here nor a command of a task may see them. The variables of PostgreSQL are those
of the caller's own databases: a command of a task may mean them, and nothing else that is run here does.
"""

from __future__ import annotations

import os
import typing as t

from ._errors import UserError

LOCATION = (
    "GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_PREFIX GIT_OBJECT_DIRECTORY GIT_NAMESPACE "
    "GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_IMPLICIT_WORK_TREE GIT_INTERNAL_SUPER_PREFIX GIT_SHALLOW_FILE "
    "GIT_GRAFT_FILE GIT_REPLACE_REF_BASE GIT_NO_REPLACE_OBJECTS GIT_CONFIG GIT_CONFIG_PARAMETERS "
    "GIT_ATTR_SOURCE GIT_QUARANTINE_PATH "
    "GIT_LITERAL_PATHSPECS GIT_GLOB_PATHSPECS GIT_NOGLOB_PATHSPECS GIT_ICASE_PATHSPECS"
).split()
"""What git sets for its hooks and aliases, and what leads commands run in them to another repository or other files
(git rev-parse --local-env-vars, githooks(5), git(1)). GIT_CONFIG_COUNT is not among them: people set it, such as for
the credentials of CI; only its settings of a location are left out."""

POSTGRESQL = "PG"
"""Begins the names of the variables by which libpq and its programs are led elsewhere, or to other settings."""

LOCATION_SETTINGS = ("core.worktree", "core.bare")


def of_program(given: t.Mapping[str, str | None] | None = None) -> dict[str, str]:
    """For a program whose output is read here, which is in the C locale.

    :arg given: variables beside the inherited ones; None takes one away.
    """
    return _merged({**without_postgresql(), "LC_ALL": "C"}, given)


def without_postgresql() -> dict[str, str | None]:
    """What takes the variables of PostgreSQL away."""
    return {name: None for name in os.environ if name.startswith(POSTGRESQL)}


def of_command(given: t.Mapping[str, str | None] | None = None) -> dict[str, str]:
    """For a command that a workspace names or that git runs for its user: in the caller's locale, or else C.UTF-8."""
    return _merged(locale(os.environ), given)


def locale(environ: t.Mapping[str, str]) -> dict[str, str | None]:
    """What is to be set so that text is not taken for ASCII; nothing where the caller has a locale."""
    counts = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "C")
    return {"LC_ALL": "C.UTF-8"} if counts in ("C", "POSIX") else {}


def _merged(ours: t.Mapping[str, str | None], given: t.Mapping[str, str | None] | None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in LOCATION}
    variables = {**inherited, **_settings(inherited), **ours, **(given or {})}
    return {name: value for name, value in variables.items() if value is not None}


def _refuse_unusable(count: str, environ: t.Mapping[str, str]) -> None:
    """
    :raises UserError: git would end at once, whatever it is asked.
    """
    cannot = f"cannot run git with the settings of the environment: GIT_CONFIG_COUNT is {count}"
    hint = "unset GIT_CONFIG_COUNT, or set it to the number of settings, as git-config(1) says under ENVIRONMENT"
    if not (count.isascii() and count.isdecimal()):
        raise UserError(f"{cannot}, which is not a number", hint=hint)
    if missing := next((name for pair in _names(count) for name in pair if name not in environ), None):
        raise UserError(f"{cannot}, but {missing} is not set", hint=hint)


def _names(count: str) -> t.Iterator[tuple[str, str]]:
    return ((f"GIT_CONFIG_KEY_{number}", f"GIT_CONFIG_VALUE_{number}") for number in range(int(count)))


def _settings(environ: t.Mapping[str, str]) -> dict[str, str | None]:
    """Git's settings from variables (git-config(1), ENVIRONMENT), without those that name a location."""
    count = environ.get("GIT_CONFIG_COUNT", "")
    if not count:
        return {}
    _refuse_unusable(count, environ)
    pairs = [(environ.get(key), environ.get(value)) for key, value in _names(count)]
    kept = [pair for pair in pairs if (pair[0] or "").lower() not in LOCATION_SETTINGS]
    if kept == pairs:
        return {}
    changed: dict[str, str | None] = {"GIT_CONFIG_COUNT": str(len(kept))}
    for number, (key, value) in enumerate(_names(count)):
        changed[key], changed[value] = kept[number] if number < len(kept) else (None, None)
    return changed
