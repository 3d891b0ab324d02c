# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands to which some folders are read-only, whatever they try.

Private to this collection: may change without notice.

A command gets a view of the file system of its own (mount_namespaces(7)), in which the folders are mounted read-only,
and then loses what it would take to mount them otherwise: root its capabilities, anybody else by one more user
namespace, in which what was mounted before is locked. Where neither can be had, a container has them read-only.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import typing as t

from . import _commands
from ._errors import EnvironmentFailure, UserError

CAPABILITIES = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+net_bind_service"
"""What root keeps: nothing with which one could mount, trace other processes, or open files past their mounts."""

MOUNT = """
while [ "$1" != -- ]; do
    mount --bind "$1" "$1"
    options=$(findmnt --noheadings --first-only --output VFS-OPTIONS --mountpoint "$1")
    mount -o "remount,bind,ro,${options#r[wo],}" "$1"
    shift
done
shift
cd "$1"
shift
"""
"""The folder is entered only then: whoever stands in it before stands on what is mounted below."""

OWN_VIEW = ("--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
KINDS = ("root", "user", "container")


def wrapped(kind: str, folders: t.Sequence[str], folder: str, argv: t.Sequence[str], *, image: str | None) -> list[str]:
    """A command in a folder, with some folders read-only to it.

    :arg kind: one of ``KINDS``.
    :arg image: for a container. Its command is given its variables as a shell script on standard input.
    """
    real = _outermost(folders)
    if kind == "container":
        binds = [word for one in real for word in ("--volume", f"{one}:{one}:ro")]
        user = ("--user", f"{os.getuid()}:{os.getgid()}")
        options: tuple[str, ...] = ("--rm", "--interactive", "--init", "--tmpfs", "/tmp:exec,mode=1777", *user)  # noqa: S108 - of its own
        script = 'eval "$(cat)"; exec "$@" </dev/null'
        options = (*options, *binds, "--workdir", folder, "--entrypoint", "sh")
        return ["docker", "run", *options, str(image), "-c", script, "sh", *argv]
    begin = ["unshare", *OWN_VIEW]
    last = ["setpriv", f"--bounding-set={CAPABILITIES}", "--inh-caps=-all", "--no-new-privs", "--"]
    if kind == "user":
        begin[1:1] = ["--user", "--map-root-user"]
        last = ["unshare", "--user", f"--map-user={os.getuid()}", f"--map-group={os.getgid()}", "--mount", "--"]
    script = f'set -e\n{MOUNT}exec {shlex.join(last)} "$@"'
    return [*begin, "--", "sh", "-c", script, "sh", *real, "--", folder, *argv]


def _outermost(folders: t.Iterable[str]) -> list[str]:
    """The folders, each once, without those that lie in another."""
    real = sorted({os.path.realpath(one) for one in folders})
    return [one for one in real if not any(one.startswith(other + "/") for other in real)]


def choose(image: str | None) -> str:
    """The kind that this machine can do, which is tried out.

    :raises UserError: there is none.
    """
    told = []
    for kind in ("root",) if os.getuid() == 0 else ("user",):
        why = _try(kind, None)
        if why is None:
            return kind
        told.append(f"namespaces: {why}")
    if image:
        why = _try("container", image)
        if why is None:
            return "container"
        told.append(f"container: {why}")
    else:
        told.append("container: no image is named (analysis_image)")
    raise UserError(
        "a worktree cannot be made read-only to a command on this machine:\n  " + "\n  ".join(told),
        hint="let users have namespaces (sysctl kernel.unprivileged_userns_clone=1), or name an image: analysis_image",
    )


def _try(kind: str, image: str | None) -> str | None:
    """Why it cannot be done; None where it can: a file can be read there, and none can be written."""
    with tempfile.TemporaryDirectory(prefix="parallel-worktrees-") as folder:
        with open(os.path.join(folder, "there"), "w", encoding="ascii"):
            pass
        script = "test -e there && ! touch written 2>/dev/null"
        try:
            done = _commands.run(wrapped(kind, [folder], folder, ("sh", "-c", script), image=image), cwd="/", stdin=b"")
        except EnvironmentFailure as error:
            return error.message
        if os.path.exists(os.path.join(folder, "written")):
            return "what is mounted read-only can be written all the same"
        return None if done.ok else _commands.last_words(done.stderr or f"it ended with {done.code}", 1)
