# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept out of git, and where: git itself says what it sees."""

from __future__ import annotations

import pathlib

import pytest
from integration.repos import NAMES, call, commit, git, refused, status, succeeded

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _agents,
    _env_files,
    _exclude,
    _hooks,
    _own_config,
)


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A user whose git has no settings but those that a test gives it."""
    for name in ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".config" / "git").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def usual(home: pathlib.Path) -> pathlib.Path:
    """Where his git looks for what it ignores in all repositories."""
    path = home / ".config" / "git" / "ignore"
    path.write_text("*.swp\n")
    return path


@pytest.fixture
def tree(sample, usual):  # noqa: ARG001 - git reads it
    sample.make("docs")
    succeeded(rules(sample.tree("docs")))
    return sample.tree("docs")


def rules(tree, *paths, check=False):
    files = [{"path": path} for path in paths or ("AGENTS.md",)]
    given = [{"name": "any", "path": str(tree)}]
    return call(_agents, check=check, worktrees=given, files=files, text="Stay inside.\n")


def hooks(tree, **more):
    return call(_hooks, worktrees=[{"name": "any", "path": str(tree)}], task="fix", variables={}, **more)


def admin_of(tree):
    return pathlib.Path(git(tree, "rev-parse", "--absolute-git-dir"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "index"}


def theirs(sample):
    """A worktree that another tool made, adopted, and the member that it is."""
    tree = sample.root / "theirs"
    git(sample.docs, "worktree", "add", "--quiet", "-b", "theirs", str(tree))
    return tree, sample.member("docs", path=str(tree), branch="theirs", adopt=True)


def test_no_other_worktree_is_hidden_anything_from(sample, tree):
    sample.make("docs", task="other")
    git(
        tree, "worktree", "add", "--quiet", "-b", "inner", str(sample.root / "inner")
    )  # takes over settings of this one
    for other in (sample.docs, sample.tree("docs", "other"), sample.root / "inner"):
        (other / "AGENTS.md").write_text("mine\n")
        (other / "file.swp").write_text("")
        assert status(other) == "?? AGENTS.md"
    assert status(tree) == ""
    assert "AGENTS.md" not in (sample.docs / ".git" / "info" / "exclude").read_text()
    assert "/.worktrees/fix/" in (sample.docs / ".git" / "info" / "exclude").read_text()
    git(tree, "add", "--all")
    assert status(tree) == ""


def test_a_worktree_made_within_keeps_the_settings_of_its_user(sample, tree):
    succeeded(hooks(tree))
    inner = sample.root / "inner"
    git(tree, "worktree", "add", "--quiet", "-b", "inner", str(inner))
    sample.remove("docs")
    (inner / "file.swp").write_text("")
    assert status(inner) == ""
    for name in ("core.hooksPath", "core.excludesFile"):
        assert git(inner, "config", "--default", "none", name) == "none"


def env(sample, name, path, *, check=False):
    source, tree = sample / name, sample.tree(name)
    given = [{"name": name, "path": str(tree), "source": str(source)}]
    files = [{"repo": name, "path": path, "values": {"PORT": 3001}}]
    return call(_env_files, check=check, worktrees=given, files=files)


@pytest.mark.usefixtures("usual")
def test_env_files_of_a_repository_and_of_its_submodule(sample):
    sample.make("backend")
    sample.make("backend", task="other")
    inner, outer = sample.backend / "migrations", sample.tree("backend", "other") / "migrations"
    for path in ("task.env", "migrations/task.env"):
        (sample.backend / path).write_text("PORT=3000\n")
        succeeded(env(sample, "backend", path))
    (outer / "task.env").write_text("mine\n")
    for folder in (sample.tree("backend"), sample.tree("backend") / "migrations"):
        assert (folder / "task.env").read_text() == "PORT=3001\n"
        (folder / "file.swp").write_text("")
        assert status(folder) == ""
    for folder in (inner, outer):
        (folder / "file.swp").write_text("")
        assert status(folder) == "?? task.env"
        assert git(folder, "rev-parse", "--show-toplevel") == str(folder.resolve())
    assert "?? task.env" in status(sample.backend)
    assert "file.swp" in refused(sample.run("backend", state="absent"), "user", "migrations (", "ignored by git")
    for folder in (sample.tree("backend"), sample.tree("backend") / "migrations"):
        (folder / "file.swp").unlink()
    sample.remove("backend")
    for name in ("task.env", "file.swp"):
        (outer / name).unlink()
    sample.remove("backend", task="other")
    assert sample.traces() == []
    assert git(inner, "rev-parse", "--show-toplevel") == str(inner.resolve())


def nowhere(_home, _docs):
    return []


def in_the_usual_place(home, _docs):
    return [home / ".config" / "git" / "ignore"]


def in_the_folder_of_xdg(home, _docs):
    return [home / "xdg" / "git" / "ignore"]


def set_for_the_user(home, docs):
    git(docs, "config", "--global", "core.excludesFile", "~/my ignores")
    return [home / "my ignores"]


def set_for_the_repository(_home, docs):
    git(docs, "config", "--global", "core.excludesFile", "~/my ignores")
    git(docs, "config", "core.excludesFile", "src/ignores")  # in each worktree
    return [docs / "src" / "ignores", docs / ".worktrees" / "fix" / "src" / "ignores"]


def set_where_a_condition_holds(home, docs):
    git(docs, "config", "--global", f"includeIf.gitdir:{docs}/.path", "~/more")
    git(docs, "config", "--file", home / "more", "core.excludesFile", str(home / "my ignores"))
    return [home / "my ignores"]


def set_to_nothing(home, docs):
    git(docs, "config", "core.excludesFile", "")
    (home / ".config" / "git" / "ignore").write_text("kept.swp\n")
    return []


PLACES = [
    nowhere,
    in_the_usual_place,
    in_the_folder_of_xdg,
    set_for_the_user,
    set_for_the_repository,
    set_where_a_condition_holds,
    set_to_nothing,
]


@pytest.mark.parametrize("place", PLACES)
def test_what_its_user_has_ignored_stays_so(sample, home, monkeypatch, place):
    if place is in_the_folder_of_xdg:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    sample.make("docs")
    tree = sample.tree("docs")
    for path in place(home, sample.docs):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes("\ufeff*.swp\r\nAGENTS.md\n!AGENTS.md\n!rules.md".encode())
    for folder in (sample.docs, tree):
        (folder / "kept.swp").write_text("")
    git(sample.docs, "add", "--all", "src")
    before = status(tree)
    assert ("kept.swp" in before) == (place in (nowhere, set_to_nothing))
    succeeded(rules(tree, "AGENTS.md", "rules.md"))
    assert status(tree) == before
    assert not sample.make("docs")["changed"]


@pytest.mark.usefixtures("usual")
def test_what_is_set_for_one_command_does_not_last(sample, tmp_path, monkeypatch):
    (tmp_path / "once").write_text("*.tmp\n")
    for name, value in (("COUNT", "1"), ("KEY_0", "core.excludesFile"), ("VALUE_0", str(tmp_path / "once"))):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    sample.make("docs")
    tree = sample.tree("docs")
    succeeded(rules(tree))
    monkeypatch.delenv("GIT_CONFIG_COUNT")
    for name in ("file.swp", "file.tmp"):
        (tree / name).write_text("")
    assert status(tree) == "?? file.tmp"
    assert not sample.make("docs")["changed"]


@pytest.mark.parametrize("kind", ["a link to itself", "no text"])
def test_a_file_that_has_no_patterns(sample, usual, kind):
    if kind == "no text":
        usual.write_bytes(b"\xff\xfe\0*.swp\n")
    else:
        usual.unlink()
        usual.symlink_to(usual)
    sample.make("docs")
    succeeded(rules(sample.tree("docs")))
    (sample.tree("docs") / "NOTES.md").write_text("mine\n")
    assert status(sample.tree("docs")) == "?? NOTES.md"
    assert not sample.make("docs")["changed"]


def test_what_the_user_edits_is_taken_over_by_the_next_provision(sample, tree, usual):
    (tree / "file.tmp").write_text("")
    usual.write_text("*.swp\n*.tmp\n")
    assert status(tree) == "?? file.tmp"
    before = contents(admin_of(tree))
    planned = succeeded(sample.run("docs", check=True))
    assert contents(admin_of(tree)) == before
    result = sample.make("docs")
    assert planned["changed"]
    assert planned == result
    former, latter = (result["diff"][0][side].splitlines() for side in ("before", "after"))
    assert [line for line in latter if line not in former] == ["*.tmp"]
    assert status(tree) == ""
    assert not sample.make("docs")["changed"]
    usual.unlink()
    assert sample.make("docs")["changed"]
    assert status(tree) == "?? file.tmp"
    assert (tree / "AGENTS.md").exists()


def test_what_outranks_it(sample, tree):
    """A project that wants a file seen, and a user who wants it in this repository; either is no work of his."""
    succeeded(rules(tree, "CLAUDE.md"))
    commit(tree, ".gitignore", "!AGENTS.md\n")
    (sample.docs / ".git" / "info" / "exclude").write_text("!CLAUDE.md\n/.worktrees/\n")
    assert status(tree) == "?? AGENTS.md\n?? CLAUDE.md"
    succeeded(rules(tree, "AGENTS.md", "CLAUDE.md"))
    git(sample.docs, "branch", "kept", "fix")
    sample.remove("docs")
    assert (sample.docs / ".git" / "info" / "exclude").read_text() == "!CLAUDE.md\n/.worktrees/\n"


def test_what_the_user_ignores_is_work_and_what_we_wrote_is_none(sample, tree):
    (tree / "draft.swp").write_text("mine\n")
    text = refused(sample.run("docs", state="absent"), "user", "ignored by git", "draft.swp")
    assert "AGENTS.md" not in text
    (tree / "draft.swp").unlink()
    (tree / "AGENTS.md").write_text("edited\n")
    refused(sample.run("docs", state="absent"), "user", "ignored by git", "AGENTS.md")


def test_a_removal_leaves_nothing_but_the_permission(sample, tree):
    config = git(sample.docs, "config", "--local", "--list")
    sample.remove("docs")
    assert sample.traces() == []
    assert not (sample.docs / ".git" / "config.worktree").exists()
    assert git(sample.docs, "config", "--local", "--list") == config
    assert git(sample.docs, "config", "extensions.worktreeConfig") == "true"
    assert not tree.exists()


@pytest.mark.usefixtures("usual")
def test_an_adopted_worktree_is_left_as_it_was(sample):
    tree, member = theirs(sample)
    sample.make(worktrees=[member])
    before = contents(admin_of(tree))
    succeeded(rules(tree))
    succeeded(hooks(tree))
    (tree / "file.swp").write_text("")
    assert status(tree) == ""
    for name in (_exclude.OWN, "config.worktree", _own_config.FILE_NAME):
        (admin_of(tree) / f".{name}.parallel-worktrees").write_text("half")
    sample.remove(worktrees=[member])
    after = contents(admin_of(tree))
    assert set(before) - set(after) == {"parallel-worktrees.json"}
    assert set(after) <= set(before)
    (tree / "AGENTS.md").write_text("mine\n")
    assert status(tree) == "?? AGENTS.md"


@pytest.mark.parametrize("is_last", [True, False])
def test_settings_that_the_worktree_has_stay(sample, home, is_last):
    tree, member = theirs(sample)
    git(sample.docs, "config", "extensions.worktreeConfig", "true")
    (home / "own").write_text("*.tmp\n")
    for name, value in (("core.excludesFile", str(home / "own")), ("include.path", "more"), ("a.b", "c")):
        git(tree, "config", "--worktree", name, value)
    (admin_of(tree) / "more").write_text("[d]\n\te = f\n")
    before = (admin_of(tree) / "config.worktree").read_text()
    sample.make(worktrees=[member])
    succeeded(rules(tree))
    if not is_last:  # somebody goes on, and what he sets last would count
        git(tree, "config", "--worktree", "--add", "include.path", "other")
        git(tree, "config", "--worktree", "g.h", "i")
        (admin_of(tree) / "other").write_text(f"[core]\n\texcludesFile = {home / 'other'}\n")
        (home / "other").write_text("*.tmp\n*.more\n")
        (tree / "file.more").write_text("")
        assert sample.make(worktrees=[member])["changed"]
        before = (admin_of(tree) / "config.worktree").read_text().removesuffix(_own_config.INCLUDE)
    (tree / "file.tmp").write_text("")
    assert status(tree) == ""
    assert not sample.make(worktrees=[member])["changed"]
    assert [git(tree, "config", name) for name in ("a.b", "d.e")] == ["c", "f"]
    sample.remove(worktrees=[member])
    assert (admin_of(tree) / "config.worktree").read_text() == before
    assert status(tree) == ""


@pytest.mark.usefixtures("home")
def test_what_an_earlier_version_hid_from_all_worktrees_is_cleared(sample):
    exclude = sample.docs / ".git" / "info" / "exclude"
    before = exclude.read_text()
    sample.make("docs")
    exclude.write_text(exclude.read_text().replace(_exclude.END, f"/AGENTS.md\n{_exclude.END}"))
    (sample.docs / "AGENTS.md").write_text("mine\n")
    succeeded(rules(sample.tree("docs")))
    assert status(sample.docs) == status(sample.tree("docs")) == ""
    sample.remove("docs")
    assert exclude.read_text() == before
    assert status(sample.docs) == "?? AGENTS.md"


def forbidden(sample):
    git(sample.docs, "config", "--unset", "extensions.worktreeConfig")
    return sample.docs


def moved(sample):
    sample.docs.rename(sample.work / "moved")
    git(sample.work / "moved", "worktree", "repair", str(sample.work / "moved" / ".worktrees" / "fix"))
    return sample.work / "moved"


def gone(sample):
    (admin_of(sample.tree("docs")) / _own_config.FILE_NAME).unlink()
    return sample.docs


@pytest.mark.parametrize("undo", [forbidden, moved, gone])
@pytest.mark.usefixtures("tree")
def test_what_somebody_undid_is_mended_by_the_next_provision(sample, undo):
    repository = undo(sample)
    tree, members = repository / ".worktrees" / "fix", [sample.member("docs", repo=str(repository))]
    assert "AGENTS.md" in status(tree)
    (tree / "file.swp").write_text("")
    assert sample.make(worktrees=members)["changed"]
    assert status(tree) == ""
    assert not sample.make(worktrees=members)["changed"]


@pytest.mark.usefixtures("home")
def test_of_a_bare_repository(sample):
    bare, main, tree = sample.root / "bare.git", sample.root / "main", sample.root / "fix"
    git(sample.root, "clone", "--quiet", "--bare", str(sample.remotes / "docs.git"), str(bare))
    git(bare, "worktree", "add", "--quiet", str(main), "main")
    sample.make(worktrees=[sample.member("docs", repo=str(main), path=str(tree))])
    succeeded(rules(tree))
    (main / "AGENTS.md").write_text("mine\n")
    assert (status(tree), status(main)) == ("", "?? AGENTS.md")
    assert git(bare, "rev-parse", "--is-bare-repository") == "true"


@pytest.mark.usefixtures("home")
def test_a_path_that_only_a_quoted_setting_tells(sample):
    name = 'a "quoted" \\ name; # of a\ttask'
    member = sample.member("docs", path=f".worktrees/{name}")
    sample.make(worktrees=[member])
    tree = sample.docs / ".worktrees" / name
    succeeded(rules(tree))
    assert status(tree) == ""
    assert not sample.make(worktrees=[member])["changed"]
    sample.remove(worktrees=[member])
    assert sample.traces() == []


def test_names_that_are_patterns(sample, tree):
    names = ["a*", "[b]", "!c", "#d", " e ", "f\\g"]
    succeeded(rules(tree, *names))
    assert status(tree) == ""
    for name in ("ax", "b", "c", "d", "e", "fg"):
        (tree / name).write_text("")
    assert status(tree).split() == ["??", "ax", "??", "b", "??", "c", "??", "d", "??", "e", "??", "fg"]
    for name in ("ax", "b", "c", "d", "e", "fg"):
        (tree / name).unlink()
    sample.remove("docs")
    assert [status(sample / name) for name in NAMES] == [""] * 4
