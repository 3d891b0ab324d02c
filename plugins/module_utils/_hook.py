# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hooks of a task's worktree do, when git runs them.

Private to this collection: may change without notice.

It is the program of the archive that lies beside the hooks, with their settings.
"""

from __future__ import annotations

import fnmatch
import os
import sys
import typing as t

from . import _gates, _git, _reservations
from ._errors import WorktreesError

SETTINGS = "settings.json"
NO_FILES = ("hash-object", "-t", "tree", "--stdin")


def main(arguments: t.Sequence[str]) -> int:
    """Carry out ``commit``, ``merge`` or ``push``; anything but 0 makes git stop."""
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    try:
        settings = _gates.load_settings(os.path.join(folder, SETTINGS))
        refusal = {"commit": _commit, "merge": _merge, "push": _push}[arguments[0]](settings)
    except WorktreesError as error:
        refusal = str(error.as_result()["msg"])
    if refusal:
        _tell(refusal)
    return 1 if refusal else 0


def _tell(text: str) -> None:
    sys.stderr.write(f"parallel.worktrees: {text}\n")


def _commit(settings: dict[str, t.Any]) -> str | None:
    return _refuse_reserved(settings) or _merge(settings)


def _merge(settings: dict[str, t.Any]) -> str | None:
    """What a merge brings is the work of others, so that nothing in it is reserved from this task."""
    outcomes = _gates.at_commit(settings["gate"], settings["worktree"])
    for outcome in outcomes:
        _tell(str(outcome))
    failed = [outcome.name for outcome in outcomes if outcome.verdict == _gates.FAILED]
    return f"no commit, as {' and '.join(failed)} failed" if failed else None


def _refuse_reserved(settings: dict[str, t.Any]) -> str | None:
    if settings["workspace"] is None:
        return None
    name, path = settings["worktree"]["name"], settings["worktree"]["path"]
    # The first commit of a branch has none before it to differ from.
    has_head = _git.git(path, "rev-parse", "--verify", "--quiet", "HEAD").ok
    paths = _staged(path, "HEAD" if has_head else _git.must(path, *NO_FILES, doing="beginning", stdin=b"").strip())
    if _git.git(path, "rev-parse", "--verify", "--quiet", "MERGE_HEAD").ok:
        paths &= _staged(path, "MERGE_HEAD")
    found = _reservations.refusals(settings["registry"], settings["workspace"], settings["task"], name, sorted(paths))
    if not found:
        return None
    return (
        "no commit:\n  "
        + "\n  ".join(found)
        + f"\nhint: git restore --staged PATH leaves one out; {_reservations.STATUS}"
    )


def _staged(path: str, commit: str) -> set[str]:
    """What is about to be committed and differs from a commit; ``commit --all`` has an index of its own."""
    given = os.environ.get("GIT_INDEX_FILE")
    index = {"GIT_INDEX_FILE": os.path.join(path, given)} if given else {}
    options = ("--cached", "--name-only", "--no-renames", "-z")
    doing = f"looking at what is to be committed in {path}"
    listed = _git.must(path, "diff-index", *options, commit, "--", doing=doing, env=index)
    return {one for one in listed.split("\0") if one}


def _push(settings: dict[str, t.Any]) -> str | None:
    """Refuse a push to a branch that is protected (githooks(5): a line per ref on standard input)."""
    for line in sys.stdin:
        # What was pushed may have blanks in it (HEAD@{1 day ago}); a ref never has.
        remote_ref = line.split()[-2]
        branch = remote_ref.removeprefix("refs/heads/")
        if branch != remote_ref and any(fnmatch.fnmatchcase(branch, one) for one in settings["protected"]):
            return (
                f"branch {branch} is protected: task {settings['task']} does not push to it\n"
                "hint: push the task's own branch; it gets there by: ansible-playbook parallel.worktrees.integrate "
                f"-e task={settings['task']}"
            )
    return None
