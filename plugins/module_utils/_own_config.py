# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of git that count in one worktree alone.

Private to this collection: may change without notice.

Ours lie in a file beside the worktree's ``config.worktree``, which includes it last: what somebody set there stays as
it is, and counts again without ours. It includes it by its bare name, since ``git worktree add``, run in a worktree,
gives the new one a copy of ``config.worktree``, where that name leads to nothing.

Git reads ``config.worktree`` where ``extensions.worktreeConfig`` is set (git-worktree(1), CONFIGURATION FILE). Where it
was not, it is set and stays: without a ``config.worktree`` it means nothing, and it cannot be removed safely. Nobody
notes who else relies on it by now, and whoever writes a ``config.worktree`` just after we have looked for any, as git
sparse-checkout does, would lose his settings without a word, since git has no lock on both files.

The caller holds the repository's lock.
"""

from __future__ import annotations

import os

from . import _files, _git_files
from ._git import Repository

FILE_NAME = "parallel-worktrees.config"
INCLUDE = f"[include]\n\tpath = {FILE_NAME}\n"


def holds(admin: str, name: str, value: str) -> bool:
    """Whether a setting of ``core`` counts in the worktree that has this private folder."""
    return _settings(admin).get(name) == _line(name, value) and _is_included(admin)


def put(repository: Repository, admin: str, name: str, value: str) -> None:
    """Set it. What it names is there by now, so that wherever a run is killed, what counts is whole."""
    settings = _settings(admin)
    if settings.get(name) != _line(name, value):
        _write(admin, {**settings, name: _line(name, value)})
    allow(repository)
    if not _is_included(admin):
        _take_out(repository, admin)
        theirs = _files.read(_config(admin))
        gap = "" if theirs.endswith("\n") or not theirs else "\n"
        _files.rewrite(_config(admin), theirs + gap + INCLUDE)


def take(repository: Repository, admin: str, name: str) -> None:
    """Take it back, and with the last of them what is left of ours."""
    settings = _settings(admin)
    settings.pop(name, None)
    if settings:
        _write(admin, settings)
        return
    _files.remove(os.path.join(admin, FILE_NAME))
    _take_out(repository, admin)
    if _files.read(_config(admin)):
        _files.sweep(_config(admin))
    else:
        _files.remove(_config(admin))


def given(repository: Repository, admin: str, name: str) -> str | None:
    """What somebody else set for the worktree alone, such as ``core.hooksPath``."""
    if name.rpartition(".")[2].lower() not in _files.read(_config(admin)).lower():
        return None
    # The file is asked, not the scope: git refuses that where no worktree has a configuration of its own.
    return repository.git("config", "--file", _config(admin), "--get", name).stdout.rstrip("\n") or None


def _config(admin: str) -> str:
    return os.path.join(admin, "config.worktree")


def _settings(admin: str) -> dict[str, str]:
    """The lines of our file, by the name of the setting."""
    lines = _files.read(os.path.join(admin, FILE_NAME)).split("\n")
    return {line.split()[0]: line for line in lines if line.startswith("\t")}


def _line(name: str, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'\t{name} = "{quoted}"'


def _write(admin: str, settings: dict[str, str]) -> None:
    lines = ["# Written by parallel.worktrees for this worktree alone.", "[core]", *settings.values()]
    _files.rewrite(os.path.join(admin, FILE_NAME), "".join(line + "\n" for line in lines))


def _is_included(admin: str) -> bool:
    return _files.read(_config(admin)).endswith(INCLUDE)


def _take_out(repository: Repository, admin: str) -> None:
    """Take our line out of the worktree's own configuration, of which somebody else may have some."""
    text = _files.read(_config(admin))
    if text == INCLUDE:
        _files.remove(_config(admin))
    elif FILE_NAME in text:
        pattern = "^" + FILE_NAME.replace(".", "\\.") + "$"
        doing = f"taking our settings out of {_config(admin)}"
        repository.must("config", "--file", _config(admin), "--unset-all", "include.path", pattern, doing=doing)


def is_allowed(common: str) -> bool:
    """Whether each worktree of a repository has a configuration of its own, as far as its configuration file says."""
    path = os.path.join(common, "config")
    settings = _git_files.config(path)
    plain = None if settings is None else _git_files.is_true(settings, "extensions.worktreeconfig")
    if plain is not None:
        return plain
    question = ("config", "--file", path, "--type=bool", "--get", "extensions.worktreeConfig")
    return Repository(common, common).git(*question).stdout.strip() == "true"


def allow(repository: Repository) -> None:
    """Let each worktree have a configuration of its own.

    ``core.worktree``, which a submodule's repository has, and ``core.bare`` would then count for all worktrees: they go
    to the main one first, so that a run which is killed in between leaves nothing that does not work.
    """
    doing = f"letting the worktrees of {repository.common} have configurations of their own"
    common, main = (os.path.join(repository.common, name) for name in ("config", "config.worktree"))
    if is_allowed(repository.common):
        return
    settings = _git_files.config(common)

    def value_of(name: str, *options: str) -> str:
        plain = None if settings is None else settings.get(name, [""])[-1]
        if plain in ("", "true", "false") or (plain is not None and not options):
            return plain
        return repository.git("config", "--file", common, *options, "--get", name).stdout.rstrip("\n")

    for name, *options in (("core.worktree",), ("core.bare", "--type=bool")):
        value = value_of(name, *options)
        if value not in ("", "false"):
            repository.must("config", "--file", main, name, value, doing=doing)
            repository.must("config", "--file", common, "--unset-all", name, doing=doing)
    repository.must("config", "--file", common, "extensions.worktreeConfig", "true", doing=doing)
