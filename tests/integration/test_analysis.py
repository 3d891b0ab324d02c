# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Analysis of real worktrees, by root and by another user, and in a container."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from integration.repos import Sample, git, refused, succeeded
from integration.servers import fork, outcome

from ansible_collections.parallel.worktrees.plugins.module_utils import _analysis, _readonly
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

NOBODY = 65534
ESCAPES = {
    "plain": "touch written",
    "main tree": "touch ../../written",
    "repository": "git -c user.name=x -c user.email=x@x commit --quiet --allow-empty -m written",
    "remount": "mount -o remount,rw . && touch written",
    "bind remount": "mount -o remount,bind,rw $PWD && touch written",
    "root's remount": "mount -o remount,bind,rw $(cd ../.. && pwd) && touch written",
    "unmount": "umount -l $(cd ../.. && pwd); cd $PWD && touch written",
    "another view": "unshare --user --map-root-user --mount sh -c 'mount -o remount,bind,rw $PWD; touch written'",
    "first view": "nsenter --target 1 --mount touch $PWD/written",
    "root of others": "for one in /proc/[0-9]*/root; do touch $one$PWD/written && exit 0; done; exit 1",
    "folder of others": "for one in /proc/[0-9]*/cwd; do touch $one/written && exit 0; done; exit 1",
    "move": "mv README written",
    "mode": "chmod 777 README",
}


def analyze(sample, *, check=False, **more):
    given = {"task": "fix", "worktrees": [{"name": "docs", "path": str(sample.tree("docs"))}], "wait": True, **more}
    checked = ArgumentSpecValidator(_analysis.ARGUMENT_SPEC).validate(given)
    assert not checked.error_messages, checked.error_messages
    return answer(_analysis.operation, checked.validated_parameters, check=check, diff=True)


def checks(**commands: str) -> list[dict[str, str]]:
    return [{"name": name.replace("_", " "), "command": command} for name, command in commands.items()]


def by_name(result):
    return {one["name"]: one for one in succeeded(result)["reports"]}


def everything(sample):
    """All of a repository but what this project keeps in it."""
    return {
        str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in sample.docs.rglob("*")
        if "parallel-worktrees-logs" not in str(path)
    }


@pytest.fixture
def tree(sample):
    sample.make("docs")
    return sample.tree("docs")


def test_a_report_each_and_a_summary(sample, tree):
    given = checks(lint="echo fine; echo $WORD", tests="echo bad >&2; exit 3", slow="sleep 0.2; pwd")
    result = analyze(sample, checks=given, variables={"WORD": "yes"})
    found = by_name(result)
    assert {name: one["verdict"] for name, one in found.items()} == {
        "lint": "passed",
        "tests": "failed",
        "slow": "passed",
    }
    lint = pathlib.Path(found["lint"]["file"]).read_text()
    assert lint.endswith("\n\nfine\nyes\n")
    assert f"commit    {git(tree, 'rev-parse', 'HEAD')}\n" in lint
    assert "command   echo fine; echo $WORD\n" in lint
    tests = pathlib.Path(found["tests"]["file"]).read_text()
    assert "verdict   failed: ended with 3\n" in tests
    assert tests.endswith("\nbad\n")
    assert pathlib.Path(found["slow"]["file"]).read_text().endswith(f"\n{tree}\n")
    summary = pathlib.Path(found["lint"]["file"]).with_name("summary.txt").read_text()
    assert "tests  failed after" in summary
    assert result["summary"].startswith("fix: analyzed, docs\n")
    again = analyze(sample, start=False)
    assert not again["changed"]
    assert again["reports"] == result["reports"]


def test_they_run_in_the_background_and_at_once(sample, tmp_path):
    sample.make("docs")
    meet = f"touch {tmp_path}/$NAME; until [ -e {tmp_path}/a ] && [ -e {tmp_path}/b ]; do sleep 0.02; done"
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    given = checks(one=f"NAME=a; {meet}; {wait}", two=f"NAME=b; {meet}; {wait}")
    began = succeeded(analyze(sample, checks=given, wait=False))
    assert began["states"] == {"docs": "running"}
    assert began["summary"].startswith("fix: analysis is running, docs\n")
    again = succeeded(analyze(sample, checks=given, wait=False))
    assert not again["changed"], "it is running already"
    (tmp_path / "go").write_text("")
    assert {one["verdict"] for one in by_name(analyze(sample, start=False)).values()} == {"passed"}


def test_one_that_tries_to_write_fails_and_says_so(sample, tree):
    found = by_name(analyze(sample, checks=checks(rude="touch written", quiet="touch written || true", clean="true")))
    assert found["rude"]["verdict"] == "failed"
    assert "it tried to write, and the worktree is read-only to it" in pathlib.Path(found["rude"]["file"]).read_text()
    assert found["quiet"]["verdict"] == "passed"
    assert found["quiet"]["why"] == "it tried to write, which it cannot"
    assert found["clean"]["why"] == ""
    assert not (tree / "written").exists()
    # Elsewhere it may.
    found = by_name(analyze(sample, checks=checks(scratch="touch $TMPDIR/x $XDG_CACHE_HOME/y && ls $TMPDIR")))
    assert found["scratch"]["verdict"] == "passed"


def test_nothing_gets_written_by_root(sample, tree):
    before = everything(sample)
    found = by_name(analyze(sample, checks=[{"name": name, "command": text} for name, text in ESCAPES.items()]))
    assert {name: one["verdict"] for name, one in found.items()} == dict.fromkeys(ESCAPES, "failed")
    assert everything(sample) == before
    assert not (tree / "written").exists()


def test_nothing_gets_written_in_another_repository_of_the_task(sample):
    sample.make("docs", "app")
    worktrees = [{"name": name, "path": str(sample.tree(name))} for name in ("docs", "app")]
    rude = {"name": "rude", "command": f"touch {sample.tree('app')}/written {sample.app}/written", "repos": ["docs"]}
    found = by_name(analyze(sample, worktrees=worktrees, checks=[rude]))
    assert "it tried to write" in found["rude"]["why"]
    assert not (sample.tree("app") / "written").exists()
    assert not (sample.app / "written").exists()


def test_nothing_gets_written_by_another_user():
    with tempfile.TemporaryDirectory(prefix="analysis-", dir="/tmp") as top:
        os.chmod(top, 0o755)
        root = pathlib.Path(top) / "work"
        subprocess.run(["git", "init", "--quiet", root], check=True)
        (root / "README").write_text("")
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message", "first")
        git(root, "worktree", "add", "--quiet", ".worktrees/fix")
        tree = root / ".worktrees" / "fix"
        shutil.chown(top, NOBODY, NOBODY)
        for path in [root, *root.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

        def act():
            told: dict[str, object] = {}
            for name, text in ESCAPES.items():
                words = ("sh", "-c", text)
                argv = _readonly.wrapped(_readonly.choose(None), [str(tree), str(root)], str(tree), words, image=None)
                done = subprocess.run(
                    argv, check=False, capture_output=True, text=True, cwd="/", stdin=subprocess.DEVNULL
                )
                told[name] = done.returncode != 0
            # Who it is stays the same, and what is there can be read.
            argv = _readonly.wrapped("user", [str(root)], str(tree), ("sh", "-c", "id -u; cat README"), image=None)
            told["id"] = subprocess.run(argv, check=True, capture_output=True, text=True, cwd="/").stdout
            return told

        told = outcome(fork(act, NOBODY))
        assert told.pop("id") == f"{NOBODY}\n"
        assert told == dict.fromkeys(ESCAPES, True)
        assert not list(root.rglob("written"))


def test_in_a_container(sample, tree, tmp_path, monkeypatch, docker_client, postgres_image):  # noqa: ARG001 - runs it
    (tmp_path / "password").write_text("hush\n")
    monkeypatch.setattr(_readonly, "_try", no_namespaces(_readonly._try))
    secret = {"variables": {"URL": "x:PARALLEL_WORKTREES_DATABASE_PASSWORD@y"}}
    found = by_name(
        analyze(
            sample,
            checks=checks(rude="touch written", tell="echo $URL; cat README", main="touch ../../written"),
            image=postgres_image,
            password_file=str(tmp_path / "password"),
            **secret,
        )
    )
    assert {name: one["verdict"] for name, one in found.items()} == {
        "rude": "failed",
        "tell": "passed",
        "main": "failed",
    }
    assert "it tried to write" in found["rude"]["why"]
    assert pathlib.Path(found["tell"]["file"]).read_text().endswith("x:********@y\ndocs\n")
    assert not (tree / "written").exists()


def no_namespaces(really):
    return lambda kind, image: really(kind, image) if kind == "container" else "they are switched off"


def test_refused_where_neither_is_possible(sample, monkeypatch):
    sample.make("docs")
    monkeypatch.setattr(_readonly, "_try", no_namespaces(_readonly._try))
    text = refused(analyze(sample, checks=checks(lint="true")), "user", "cannot be made read-only", "no image is named")
    assert "namespaces: they are switched off" in text


def test_a_view_that_is_none_is_noticed(monkeypatch):
    monkeypatch.setattr(_readonly, "wrapped", lambda _kind, _all, folder, argv, **_image: ["env", "-C", folder, *argv])
    with pytest.raises(UserError, match="can be written all the same"):
        _readonly.choose(None)


def test_a_password_is_masked(sample, tmp_path):
    sample.make("docs")
    (tmp_path / "password").write_text("hush\n")
    url = {"URL": "x:PARALLEL_WORKTREES_DATABASE_PASSWORD@y"}
    given = checks(tell="echo $URL")
    found = by_name(analyze(sample, checks=given, variables=url, password_file=str(tmp_path / "password")))
    file = pathlib.Path(found["tell"]["file"])
    assert file.read_text().endswith("\nx:********@y\n")
    assert all(b"hush" not in path.read_bytes() for path in file.parent.iterdir())


def test_the_time_is_limited(sample):
    sample.make("docs")
    found = by_name(analyze(sample, checks=checks(slow="sleep 300"), timeout=1))
    assert found["slow"]["why"] == "it was ended after 1 s"


def test_killed_and_begun_again(sample, tree):
    succeeded(analyze(sample, checks=checks(slow="sleep 300"), wait=False))
    mine = [pid for pid in pathlib.Path("/proc").glob("[0-9]*") if str(tree) in cwd(pid)]
    deadline = time.monotonic() + 10
    while not mine and time.monotonic() < deadline:
        mine = [pid for pid in pathlib.Path("/proc").glob("[0-9]*") if str(tree) in cwd(pid)]
    program = next(
        int(path.name)
        for path in pathlib.Path("/proc").glob("[0-9]*")
        if str(sample.docs) in cmdline(path) and "run.pyz" in cmdline(path)
    )
    os.killpg(program, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while analyze(sample, start=False, wait=False)["states"] == {"docs": "running"} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert succeeded(analyze(sample, start=False))["states"] == {"docs": "interrupted"}
    scratch = pathlib.Path(os.environ["XDG_STATE_HOME"]) / "parallel-worktrees" / "analysis"
    assert list(scratch.iterdir())
    assert by_name(analyze(sample, checks=checks(quick="true")))["quick"]["verdict"] == "passed"
    assert not list(scratch.iterdir())
    sample.remove("docs")
    assert sample.traces() == []


def cwd(path: pathlib.Path) -> str:
    try:
        return os.readlink(path / "cwd")
    except OSError:
        return ""


def cmdline(path: pathlib.Path) -> str:
    try:
        return (path / "cmdline").read_text()
    except OSError:
        return ""


def test_what_is_asked_wrong_is_refused(sample: Sample):
    refused(analyze(sample, checks=checks(lint="true")), "environment", "no linked worktree")
    sample.make("docs")
    refused(analyze(sample), "user", "there is no check to run")
    refused(analyze(sample, checks=checks(lint="true"), only=["test"]), "user", "no check test", "choose from: lint")
    refused(analyze(sample, checks=[*checks(lint="true"), *checks(lint="false")]), "user", "lint more than once")
    refused(analyze(sample, checks=checks(summary="true")), "user", "a check 'summary'")
    assert succeeded(analyze(sample, start=False))["states"] == {"docs": "none"}
    assert succeeded(analyze(sample, checks=checks(lint="true"), check=True))["changed"]
    assert succeeded(analyze(sample, start=False))["states"] == {"docs": "none"}
