# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import collections.abc as c
import pathlib
import typing as t

from ansible import context
from ansible.errors import AnsibleError, AnsibleTemplateSyntaxError
from ansible.module_utils.common.yaml import yaml_load
from ansible.parsing.splitter import parse_kv
from ansible.plugins.action import ActionBase

from ..module_utils import _env_files, _workspace_file
from ..module_utils._errors import UserError
from ..module_utils._options import NotYet, faults, meant, strays, unknown
from ..module_utils._summary import COMMAND
from ..module_utils._workspace import is_true, refuse_contradiction, worktree_set
from ..plugin_utils._machines import machines

ROLES = pathlib.Path(__file__).parents[2] / "roles"
MORE_ENTRIES = {"main": ["ready"]}
"""What a provision takes beside the main entry points of all roles."""


class ActionModule(ActionBase):
    """Refuse variables that are not as the roles of this collection document them."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        try:
            if "machines" in self._task.args:
                machines(self._task.args["machines"], variables, loader=self._loader, template=self._templar.template)
                return {"changed": False}
            if "records" in self._task.args:
                _refuse_lacking(self._task.args["records"], self._resolve(variables.get("repos")))
                return {"changed": False}
            return self._check(variables, self._task.args.get("entry") or "main")
        except UserError as error:
            return error.as_result()

    def _check(self, variables: dict[str, t.Any], entry: str) -> dict[str, t.Any]:
        options: dict[str, t.Any] = {}
        documented: dict[str, str] = {}
        for role in sorted(ROLES.iterdir()):
            with (role / "meta" / "argument_specs.yml").open("rb") as file:
                entries = yaml_load(file)["argument_specs"]
            for name in (entry, *MORE_ENTRIES.get(entry, ())):
                options |= entries.get(name, {}).get("options", {})
            documented |= {name: role.name for about in entries.values() for name in about.get("options", {})}
        _refuse_mixture(variables.get("playbook_dir"))
        self._refuse_unknown(documented)
        _refuse_stray_words(variables)
        if entry != "main":
            _refuse_two_selections(variables)
        missing = [name for name, about in options.items() if about.get("required") and variables.get(name) is None]
        if variables.get("worktrees_repos") is None:
            self._refuse_without_file(variables)
        if missing:
            raise UserError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not given",
                hint="give the workspace file and a task: -e workspace_file=workspace.yml -e task=fix-login",
            )
        found = {name: list(faults({name: about}, variables, self._resolve)) for name, about in options.items()}
        wrong = [line for lines in found.values() for line in lines]
        if wrong:
            first = next(name for name, lines in found.items() if lines)
            raise UserError(
                wrong[0] if len(wrong) == 1 else "the workspace is not as it has to be:\n  " + "\n  ".join(wrong),
                hint=f"ansible-doc -t role parallel.worktrees.{documented[first]}",
            )
        if entry == "main":
            self._check_names(variables)
        return {"changed": False, "warnings": strays(documented, variables, _typed())}

    def _refuse_unknown(self, documented: dict[str, str]) -> None:
        """Refuse a variable of the workspace file that looks like a role's and is none: no role would read it."""
        find = self._shared_loader_obj.lookup_loader.get(
            "parallel.worktrees.workspace_file", loader=self._loader, templar=self._templar
        )
        file = find.run([], self._templar.available_variables)[0]
        lines = unknown(documented, self._loader.load_from_file(file) or ()) if file else []
        if lines:
            raise UserError(
                f"{file} has variables that no role of this collection reads: {', '.join(lines)}",
                hint="correct the name; a variable of your own needs a name that begins otherwise",
            )

    def _refuse_without_file(self, variables: dict[str, t.Any]) -> None:
        """Refuse a call that neither has a workspace file nor names its workspace otherwise."""
        try:
            self._resolve(variables.get("workspace_name"))
        except NotYet:
            raise _workspace_file.missing(pathlib.Path.cwd(), context.CLIARGS.get("extra_vars") or ()) from None

    def _check_names(self, variables: dict[str, t.Any]) -> None:
        """Refuse what names a repository that the workspace does not have."""
        try:
            repos = self._members(variables["worktrees_repos"])
            names = [self._resolve(repo["name"]) if isinstance(repo, c.Mapping) else repo for repo in repos]
            wanted = [self._resolve(file["repo"]) for file in self._members(variables.get("env_files") or [])]
            for file in self._members(variables.get("env_files") or []):
                _env_files.refuse_contradiction({**file, "path": str(self._resolve(file["path"]))})
            rules = [self._resolve(file.get("repo")) for file in self._members(variables.get("agents_files") or [])]
            selection = self._resolve(variables.get("repos"))
            usual = self._resolve(variables.get("worktrees_checkout", True))
            entries = [
                {**repo, "name": name, "checkout": self._resolve(repo.get("checkout"))}
                for repo, name in zip(repos, names, strict=True)
                if isinstance(repo, c.Mapping)
            ]
        except NotYet:
            return
        worktree_set(names, root="/", folder="", branch="", selection=selection)
        for place, name in enumerate(wanted):
            if name not in names:
                raise UserError(
                    f"env_files[{place}].repo is {name!r}, which worktrees_repos does not have{meant(name, names)}",
                    hint=f"choose from: {', '.join(names)}",
                )
        said = {entry["name"]: entry["checkout"] for entry in entries if entry["checkout"] is not None}
        bare = [name for name in names if not is_true(said.get(name, usual))]
        for entry in entries:
            refuse_contradiction(entry)
        for option, named in (("env_files", wanted), ("agents_files", rules)):
            for place, name in enumerate(named):
                if name in bare:
                    raise UserError(
                        f"{option}[{place}].repo is {name!r}, of which tasks have no worktree that it could go into",
                        hint=f"leave it out, or say {'checkout' if name in said else 'worktrees_checkout'}: true",
                    )

    def _members(self, value: t.Any) -> list[t.Any]:
        return [self._resolve(one) for one in self._resolve(value)]

    def _resolve(self, value: t.Any) -> t.Any:
        """What a template stands for; a set stays as it is, since values in it may have to wait for a task's facts."""
        if not isinstance(value, str):
            return value
        try:
            return self._templar.template(value)
        except AnsibleTemplateSyntaxError as error:
            raise UserError(
                f"{value} is no template that can be read: {error.message}",
                hint="look for it in the workspace's file",
            ) from error
        except AnsibleError as error:
            raise NotYet from error


def _refuse_mixture(playbooks: str | None) -> None:
    """Refuse a playbook of a clone with the roles of another copy of this collection."""
    clone = pathlib.Path(playbooks or "/").resolve().parent
    if (clone / "roles" / "worktrees").is_dir() and not clone.samefile(ROLES.parent):
        raise UserError(
            f"the playbook lies in {clone}, and its roles were taken from {ROLES.parent}",
            hint=f"run {clone}/scripts/link once, so that the clone uses its own roles",
        )


def _refuse_stray_words(variables: c.Mapping[str, t.Any]) -> None:
    """Refuse words of ``-e`` that belong to no variable: Ansible cuts a value at its first space."""
    words = str(variables.get("_raw_params") or "")
    if words and not words.endswith((".yml", ".yaml")):
        raise UserError(
            f"-e has words that belong to no variable: {words}",
            hint="""a value with a space takes two kinds of quotes: -e command="'make test'\"""",
        )


def _typed() -> set[str]:
    """The names of the variables that were given as ``-e NAME=VALUE``."""
    texts = (text for text in context.CLIARGS.get("extra_vars") or () if not text.startswith(("@", "{", "[")))
    return {name for text in texts for name in parse_kv(text) if not name.startswith("_")}


def _refuse_two_selections(variables: c.Mapping[str, t.Any]) -> None:
    """Refuse a task that is named beside all tasks: one of both is not meant."""
    for name in ("task", "worktree"):
        if variables.get(name) and is_true(variables.get("all_tasks", False)):
            raise UserError(
                f"{name}={variables[name]} and all_tasks=true are given together, and may select different tasks",
                hint=f"leave out one of both: {name} to take all tasks of the workspace, else all_tasks",
            )


def _refuse_lacking(records: t.Sequence[dict[str, t.Any]], selection: str | None) -> None:
    """Refuse a task that has nothing yet, or a repository that it did not take: nothing done is no success."""
    wanted = [] if not selection or selection == "all" else [name.strip() for name in str(selection).split(",")]
    for record in records:
        if record["state"] == "provisioning" and not record["plan"].get("worktrees"):
            raise UserError(
                f"task {record['name']} is not ready: nothing of it is made yet",
                hint=f"provision it first: {COMMAND.format(verb='provision', task=record['name'])}",
            )
        has = [one["name"] for one in record["plan"].get("worktrees", [])]
        if lacking := [name for name in wanted if name not in has]:
            raise UserError(
                f"repos={selection} names {', '.join(lacking) or 'nothing'}, which task {record['name']} does not have",
                hint=f"choose from: {', '.join(has) or 'none'}",
            )
