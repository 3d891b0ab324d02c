# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of ideas of this collection, and programs of one file made of them, for what runs later and without it.

Private to this collection: may change without notice.

Git runs a hook long after the module that wrote it, and on a machine to which the collection was sent for one
moment only. So a hook is a Python archive (zipapp) with the ideas that it needs.
"""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import sys
import typing as t
import zipfile

PACKAGE = "parallel_worktrees"
IMPORT = re.compile(r"^ *from \.(\w*) import (\([^)]*\)|.*)$", re.MULTILINE)
"""An import of another idea; read as text, since parsing all of them takes longer than all else."""

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive, so that the same ideas make the same archive."""


def archive(entry: str) -> bytes:
    """The archive whose program is ``main`` of an idea: it takes the arguments and returns the exit code."""
    files = {
        "__main__.py": f"import sys\n\nfrom {PACKAGE}.{entry} import main\n\nsys.exit(main(sys.argv[1:]))\n",
        f"{PACKAGE}/__init__.py": "",
        **{f"{PACKAGE}/{name}.py": source for name, source in sorted(sources(entry).items())},
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name, source in files.items():
            made.writestr(zipfile.ZipInfo(name, LONG_AGO), source)
    return content.getvalue()


def line(program: str, *arguments: str) -> str:
    """The shell command that runs an archive with this very Python."""
    return shlex.join((sys.executable, program, *arguments))


def sources(*entries: str) -> dict[str, str]:
    """The sources of ideas and of all that they import of this collection, by name."""
    found: dict[str, str] = {}
    pending = list(entries)
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = _source(name)
            pending += _imported(found[name])
    return found


def _source(name: str) -> str:
    full = f"{__package__}.{name}"
    spec = importlib.util.find_spec(full)
    # A module that was sent to a host lies in an archive itself, so that only its loader has the text; that of Ansible
    # on the controller has it as bytes.
    source: str | bytes = t.cast("t.Any", spec).loader.get_source(full)
    return source.decode() if isinstance(source, bytes) else source


def _imported(source: str) -> set[str]:
    found = set()
    for idea, names in IMPORT.findall(source):
        found |= {idea} if idea else set(re.findall(r"\w+", names))
    return found
