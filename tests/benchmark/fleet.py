# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thirty tasks of examples/meal_planner.yml, each verb one command: time, and the memory at its peak.

Run by ``scripts/benchmark fleet``, which sets up what it needs. The project's own tools are stood for by ``true``, so
that what is measured is what this collection adds. Memory is what all processes of a command have for themselves and
their part of what they share (PSS), looked at every 0.2 s; database servers are not among them.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
BASE = 43000


class Fleet:
    """The workspace of examples/meal_planner.yml in a folder of its own."""

    def __init__(self, folder: pathlib.Path, tasks: int, backend: str) -> None:
        self.folder, self.tasks = folder, tasks
        maker = TOP / "scripts" / "sample_workspace.py"
        subprocess.run([sys.executable, maker, folder / "work", "--shape", "meal_planner"], check=True)
        programs = folder / "bin"
        programs.mkdir()
        for name in ("gleam", "bd"):
            (programs / name).symlink_to("/bin/true")
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        self.variables: dict[str, object] = {
            "workspace_root": str(folder / "work"),
            "workspace_registry": str(folder / "registry.sqlite3"),
            "lease_ports": {"database": {"base": BASE}},
            "database_directory": str(folder / "clusters"),
            "database_backend": backend,
        }
        if backend == "none":
            self.variables["env_files"] = []
            self.variables["gate_checks"] = [
                {"name": name, "command": "true", "stages": ["commit", "gate", "integration", "teardown"]}
                for name in ("build", "tests", "health")
            ]

    def run(self, verb: str, **variables: object) -> tuple[float, float]:
        """One command for all tasks: its seconds, and its memory at the peak in MiB."""
        example = TOP / "examples" / "meal_planner.yml"
        command = ["ansible-playbook", f"parallel.worktrees.{verb}", "-e", f"@{example}"]
        command += ["-e", json.dumps({**self.variables, **variables})]
        log = self.folder / f"{verb}.log"
        peak, start = 0.0, time.perf_counter()
        with (
            log.open("wb") as out,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            ) as process,
        ):
            while process.poll() is None:
                peak = max(peak, memory(process.pid))
                time.sleep(0.2)
        if process.returncode:
            sys.exit(f"{verb} ended with {process.returncode}:\n{log.read_text()}")
        return time.perf_counter() - start, peak

    def work(self) -> None:
        """A commit of each task."""
        for number in range(1, self.tasks + 1):
            tree = self.folder / "work" / "meal_planner" / ".agent-worktrees" / f"agent-{number}"
            (tree / f"dish{number}").write_text("dish\n")
            for arguments in (("add", "--all"), ("commit", "--quiet", "--message", f"dish {number}")):
                subprocess.run(("git", *arguments), cwd=tree, check=True, capture_output=True)


def memory(top: int) -> float:
    """What a process and all that descend from it have, in MiB."""
    children: dict[int, list[int]] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.name))
    total, pending = 0, [top]
    while pending:
        one = pending.pop()
        pending += children.get(one, [])
        try:
            lines = pathlib.Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--backend", choices=("none", "embedded"), default="none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parallel-worktrees-benchmark-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o711)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        for variable in ("AUTHOR", "COMMITTER"):
            os.environ[f"GIT_{variable}_NAME"] = "Benchmark"
            os.environ[f"GIT_{variable}_EMAIL"] = "benchmark@example.com"
        fleet = Fleet(folder, options.tasks, options.backend)
        print(f"{options.tasks} tasks, database_backend: {options.backend}")
        for verb in ("provision", "gate", "integrate", "teardown"):
            if verb == "gate":
                fleet.work()
            chosen = {"task": "agent", "count": options.tasks} if verb == "provision" else {"all_tasks": True}
            seconds, peak = fleet.run(verb, **chosen)
            each = seconds / options.tasks
            print(f"  {verb:<10} {seconds:7.2f} s   {each:5.2f} s a task   {peak:6.0f} MiB at its peak", flush=True)


if __name__ == "__main__":
    main()
