# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provision and teardown against the bare git, file and Docker commands, as ratios from one run.

Run by ``scripts/benchmark``, which sets up what it needs. The bare commands are in bare.sh: (a) one after another,
(b) with all that can overlap overlapped. Both sides use the same repositories, image and machine, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
BARE_BASE, OUR_BASE = 21000, 22000  # below the range that the kernel gives to clients


class Workspace:
    """The four sample repositories of examples/bautista.yml in a folder of their own."""

    def __init__(self, folder: pathlib.Path, image: str, files: int) -> None:
        self.folder, self.image = folder, image
        maker = TOP / "scripts" / "sample_workspace.py"
        run(sys.executable, str(maker), str(folder), "--shape", "bautista", "--files", str(files))

    def ours(self, verb: str, tasks: int, **variables: str) -> float:
        """One call of ours for all tasks, in seconds."""
        return timed(*self.call(verb, tasks, **variables))

    def call(self, verb: str, tasks: int, **variables: str) -> list[str]:
        settings = {
            "workspace_root": str(self.folder),
            "workspace_registry": str(self.folder / "registry.sqlite3"),
            "database_image": self.image,
            "task": "ours",
            "count": str(tasks),
            **variables,
        }
        words = [word for key, value in settings.items() for word in ("-e", f"{key}={value}")]
        ports = ("-e", json.dumps({"lease_ports": {"database": {"base": OUR_BASE}}}))
        example = TOP / "examples" / "bautista.yml"
        playbook = f"parallel.worktrees.{verb}"
        return ["ansible-playbook", playbook, "-e", f"@{example}", *words, *ports]

    def bare(self, verb: str, tasks: int) -> float:
        """The bare commands for all tasks, in seconds; ``-overlapped`` runs four tasks at a time."""
        at_once = "4" if verb.endswith("overlapped") else "1"
        each = f"{HERE}/bare.sh {verb} {self.folder} {self.image} bare{{}} $(({BARE_BASE} + {{}}))"
        script = f"seq {tasks} | xargs --max-procs={at_once} --replace={{}} bash -c '{each}'"
        return timed("bash", "-c", script)


def run(*argv: str, **environment: str) -> str:
    variables = {**os.environ, **environment}
    done = subprocess.run(argv, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def timed(*argv: str) -> float:
    start = time.perf_counter()
    run(*argv)
    return time.perf_counter() - start


Sample = dict[str, list[float]]


def compare(workspace: Workspace, tasks: int, rounds: int) -> Sample:
    """Provision and teardown on all three roads, in turn, so that the machine's mood strikes all alike."""
    times: Sample = {}
    for _number in range(rounds):
        for road in ("ours", "bare", "overlapped"):
            for verb, bare in (("provision", "up"), ("teardown", "down")):
                if road == "ours":
                    seconds = workspace.ours(verb, tasks)
                else:
                    seconds = workspace.bare(bare + ("-overlapped" if road == "overlapped" else ""), tasks)
                times.setdefault(f"{verb} {road}", []).append(seconds)
    return times


def print_ratios(title: str, times: Sample) -> None:
    print(f"\n{title}")
    for verb in ("provision", "teardown"):
        ours, bare, overlapped = (statistics.median(times[f"{verb} {road}"]) for road in ("ours", "bare", "overlapped"))
        print(
            f"  {verb:<10} ours {ours:7.2f} s   (a) bare {bare:7.2f} s   (b) overlapped {overlapped:7.2f} s"
            f"   ours/(a) {ours / bare:5.2f}   ours/(b) {ours / overlapped:5.2f}"
        )


def print_where_it_goes(workspace: Workspace) -> None:
    """What Ansible takes for nothing, and the steps of one provision as the callback tells them."""
    play = workspace.folder / "empty.yml"
    play.write_text("- hosts: localhost\n  gather_facts: false\n", encoding="ascii")
    print(f"\nwhere the time goes\n  an empty ansible-playbook {timed('ansible-playbook', str(play)):5.2f} s")
    for verb in ("provision", "teardown"):
        told = run(*workspace.call(verb, 1), ANSIBLE_STDOUT_CALLBACK="parallel.worktrees.steps").splitlines()
        steps = [line for line in told if re.search(r"\d s( |$)", line)]
        print("\n".join([f"  {verb}", *(f"  {line.strip()}" for line in steps)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="parallel-worktrees-test/postgres:15")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the comparison of one task")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parallel-worktrees-benchmark-") as name:
        folder = pathlib.Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        workspace = Workspace(folder / "files50", options.image, 50)
        workspace.ours("provision", 1)  # the prepared image is made here, once
        workspace.ours("teardown", 1)
        print_ratios("one task", compare(workspace, 1, options.rounds))
        print_where_it_goes(workspace)
        print_ratios("30 tasks in one call", compare(workspace, 30, 1))

        print("\ncost of a task as tasks grow (50 files a repository)")
        for tasks in (1, 5, 10, 30):
            up, down = (workspace.ours(verb, tasks) for verb in ("provision", "teardown"))
            print(f"  {tasks:>5} tasks   provision {up / tasks:6.2f} s a task   teardown {down / tasks:6.2f} s a task")

        print("\ncost of a task as repositories grow (git and files alone)")
        for files in (50, 500, 5000):
            grown = Workspace(folder / f"grown{files}", options.image, files)
            up, down = (grown.ours(verb, 1, database_backend="none") for verb in ("provision", "teardown"))
            print(f"  {files:>5} files   provision {up:6.2f} s   teardown {down:6.2f} s")


if __name__ == "__main__":
    main()
