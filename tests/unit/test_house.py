# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The house in order: what no checker of Ansible sees, read from the files themselves."""

from __future__ import annotations

import ast
import collections.abc as c
import functools
import graphlib
import importlib
import json
import pathlib
import re
import types
import typing as t

import pytest
import yaml
from ansible.module_utils.basic import PASSWORD_MATCH
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.parallel.worktrees.plugins.action.in_process import ActionModule as InProcess

HOUSE = pathlib.Path(__file__).resolve().parents[2]
COLLECTION = "parallel.worktrees."
PLUGINS = HOUSE / "plugins"
PROMISES = {"check_mode", "diff_mode", "idempotent"}
WORDS_OF_A_DOOR = {"Operation", "Params", "Result", "filled", "together", "warned"}


def _python(kind: str) -> dict[str, pathlib.Path]:
    return {path.stem: path for path in sorted((PLUGINS / kind).glob("*.py")) if path.stem != "__init__"}


def _imported(kind: str, name: str) -> types.ModuleType:
    return importlib.import_module(f"ansible_collections.{COLLECTION}plugins.{kind}.{name}")


def _text(path: pathlib.Path, name: str) -> t.Any:
    """One of the documents that a plugin keeps in a variable of this name."""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Assign) and any(ast.unparse(target) == name for target in statement.targets):
            return yaml.safe_load(ast.literal_eval(statement.value))
    return None


def _yaml(path: pathlib.Path) -> t.Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _yaml_of(path: pathlib.Path) -> dict[str, t.Any]:
    return (_yaml(path) or {}) if path.exists() else {}


def _defaults(role: str) -> dict[str, t.Any]:
    """The defaults of its own variables. Those of other roles are links beside them."""
    path = ROLES[role] / "defaults" / "main" / f"{role}.yml"
    return _yaml_of(path if path.exists() else ROLES[role] / "defaults" / "main.yml")


def _walk(node: t.Any) -> c.Iterator[dict[str, t.Any]]:
    """Every dictionary of a document, at whatever depth: plays, blocks and tasks alike."""
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _walk(inner)


MODULES = _python("modules")
ACTIONS = _python("action")
IDEAS = _python("module_utils")
ROLES = {path.name: path for path in sorted((HOUSE / "roles").iterdir()) if path.is_dir()}
ROUTES = _yaml(HOUSE / "meta" / "runtime.yml")
IN_PROCESS = COLLECTION + "in_process"
DOORS = [
    name for name in MODULES if name not in ACTIONS or issubclass(_imported("action", name).ActionModule, InProcess)
]
TASK_FILES = sorted(
    path
    for pattern in ("playbooks/**/*.yml", "roles/*/tasks/*.yml", "roles/*/handlers/*.yml", "molecule/**/*.yml")
    for path in HOUSE.glob(pattern)
)

module = functools.partial(pytest.mark.parametrize, "name")
role = functools.partial(pytest.mark.parametrize, "name", ROLES)


# --- modules and their doors ----------------------------------------------------------------------------------------


def test_every_module_runs_in_process() -> None:
    """By the routing of ``meta/runtime.yml``, or by an action plugin of its own."""
    routed = ROUTES["plugin_routing"]["modules"]
    assert routed == {name: {"action_plugin": IN_PROCESS} for name in MODULES if name not in ACTIONS}
    assert set(ACTIONS) <= {*MODULES, "in_process"}


@module(MODULES)
def test_a_module_has_what_is_called_in_process(name: str) -> None:
    there = _imported("modules", name)
    if name in DOORS:
        assert callable(there.operation)
        assert isinstance(there.ARGUMENT_SPEC, dict)
    else:
        assert not hasattr(there, "main"), "its action does all of it, so nothing is sent to a host"


def test_the_action_group_has_every_module() -> None:
    assert ROUTES["action_groups"] == {"worktrees": sorted(MODULES)}


@module(MODULES)
def test_a_module_says_what_it_promises(name: str) -> None:
    about = _text(MODULES[name], "DOCUMENTATION")
    assert about["module"] == name
    assert set(about["attributes"]) >= PROMISES
    assert COLLECTION + "attributes" in about["extends_documentation_fragment"]


@module(DOORS)
def test_a_module_says_what_it_returns(name: str) -> None:
    assert set(_text(MODULES[name], "RETURN") or ()) >= {"actions", "failure", "hint"}


@module(DOORS)
def test_the_documentation_tells_the_spec(name: str) -> None:
    assert _plain(_options(name), "suboptions") == _plain(_imported("modules", name).ARGUMENT_SPEC, "options")


def _options(name: str) -> dict[str, t.Any]:
    """The options that a module documents, by itself and by the fragments that it names."""
    about = _text(MODULES[name], "DOCUMENTATION")
    told = dict(about.get("options") or {})
    for fragment in about["extends_documentation_fragment"]:
        told |= _fragment(fragment)
    return told


def _fragment(name: str) -> dict[str, t.Any]:
    """The options of a documentation fragment, named as modules name it."""
    file, _dot, part = name.removeprefix(COLLECTION).partition(".")
    fragment = _imported("doc_fragments", file).ModuleDocFragment
    return t.cast("dict[str, t.Any]", yaml.safe_load(getattr(fragment, part.upper() or "DOCUMENTATION"))["options"])


def _plain(options: dict[str, t.Any], inner: str) -> dict[str, t.Any]:
    """Options as both documentation and spec have them."""
    return {
        name: {
            "type": about.get("type", "str"),
            "elements": about.get("elements"),
            "required": about.get("required", False),
            "default": about.get("default"),
            "choices": about.get("choices"),
            "options": _plain(about.get(inner) or {}, inner),
        }
        for name, about in options.items()
    }


@module(DOORS)
def test_an_option_that_sounds_like_a_password_says_whether_it_is_one(name: str) -> None:
    """Ansible warns at each call where ``no_log`` is left open."""
    spec = _imported("modules", name).ARGUMENT_SPEC
    assert [option for option in spec if PASSWORD_MATCH.search(option) and "no_log" not in spec[option]] == []


def test_everything_says_since_when_it_is_there() -> None:
    silent = [
        str(path.relative_to(HOUSE))
        for path in sorted(PLUGINS.glob("*/*.py"))
        if (about := _text(path, "DOCUMENTATION")) and "version_added" not in about
    ]
    for path in sorted(HOUSE.glob("roles/*/meta/argument_specs.yml")):
        entries = _yaml(path)["argument_specs"]
        silent += [f"{path.relative_to(HOUSE)}: {name}" for name in entries if "version_added" not in entries[name]]
    assert silent == []


# --- roles and playbooks --------------------------------------------------------------------------------------------


@role()
def test_a_roles_defaults_are_those_it_documents(name: str) -> None:
    defaults = _defaults(name)
    documented: set[str] = set()
    for entry in _yaml(ROLES[name] / "meta" / "argument_specs.yml")["argument_specs"].values():
        options = entry.get("options") or {}
        assert {option: options[option].get("default") for option in options} == {
            option: defaults.get(option) for option in options
        }
        assert {option for option in options if options[option].get("required")}.isdisjoint(defaults)
        documented |= set(options)
    assert set(defaults) <= documented


@role()
def test_the_specs_of_a_role_hold_with_its_defaults(name: str) -> None:
    """Or a play that gives only what is required would be refused. What is a template has no type before its run."""
    plain = {key: value for key, value in _defaults(name).items() if "{{" not in json.dumps(value)}
    for entry in _yaml(ROLES[name] / "meta" / "argument_specs.yml")["argument_specs"].values():
        options = {key: option for key, option in (entry.get("options") or {}).items() if key in plain}
        validator = ArgumentSpecValidator(options)
        assert validator.validate({key: plain[key] for key in options}).error_messages == []


@role()
def test_every_entry_point_that_is_documented_is_there(name: str) -> None:
    documented = _yaml(ROLES[name] / "meta" / "argument_specs.yml")["argument_specs"]
    assert set(documented) <= {path.stem for path in (ROLES[name] / "tasks").iterdir()}
    readme = (ROLES[name] / "README.md").read_text(encoding="utf-8")
    assert [entry for entry in documented if entry != "main" and f"`{entry}`" not in readme] == []


@role()
def test_a_role_is_validated_unless_a_playbook_of_ours_imports_it(name: str) -> None:
    """That playbook validates all variables once."""
    for path in ROLES[name].glob("tasks/*.yml"):
        assert "rolespec_validate" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_tasks_use_what_there_is(path: pathlib.Path) -> None:
    for task in _walk(_yaml(path)):
        _check_task(task)


@role()
def test_no_variable_of_a_role_is_a_list_of_steps(name: str) -> None:
    """What a role does is in its tasks."""
    for path in sorted((ROLES[name] / "vars").rglob("*.yml")):
        for value in (_yaml(path) or {}).values():
            assert not any(isinstance(one, dict) and "module" in one for one in _walk(value)), path


@pytest.mark.parametrize(
    "path", sorted(HOUSE.glob("roles/*/*/main/*.yml")), ids=lambda path: str(path.relative_to(HOUSE))
)
def test_variables_that_roles_share_are_links(path: pathlib.Path) -> None:
    """To the file of the role that they belong to, within the collection and by a relative path."""
    prefix = path.parents[2].name
    if path.is_symlink():
        assert path.resolve().relative_to(HOUSE / "roles")
        assert not path.readlink().is_absolute()
    else:
        assert all(name.startswith(prefix) for name in _yaml(path)), path


@module(MODULES)
def test_examples_use_what_there_is(name: str) -> None:
    examples = _text(MODULES[name], "EXAMPLES")
    assert any(COLLECTION + name in task for task in examples or ()), "an example is due"
    for task in _walk(examples):
        _check_task(task)


def _check_task(task: dict[str, t.Any]) -> None:
    for key, given in task.items():
        if key.startswith(COLLECTION):
            options = _options(key.removeprefix(COLLECTION))
            _check_options(given or {}, options, key)
        elif re.fullmatch(r"(ansible\.builtin\.)?(import|include)_role", key) and given["name"].startswith(COLLECTION):
            place = ROLES[given["name"].removeprefix(COLLECTION)]
            assert (place / "tasks" / f"{given.get('tasks_from', 'main')}.yml").exists(), given
        elif re.fullmatch(r"(ansible\.builtin\.)?import_playbook", key) and given.startswith(COLLECTION):
            assert (HOUSE / "playbooks" / f"{given.removeprefix(COLLECTION)}.yml").exists(), given


def _check_options(given: dict[str, t.Any], options: dict[str, t.Any], where: str) -> None:
    assert set(given) <= set(options), where
    assert {name for name, about in options.items() if about.get("required")} <= set(given), where
    for name, value in given.items():
        if "suboptions" in options[name]:
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, dict):
                    _check_options(inner, options[name]["suboptions"], f"{where}.{name}")


def test_every_playbook_looks_at_the_inventory_first() -> None:
    """A play whose pattern matches no host is no failure to Ansible."""
    for path in sorted((HOUSE / "playbooks").glob("*.yml")):
        first, *plays = _yaml(path)
        if path.stem in ("machines", "result"):  # parts of the others
            continue
        plays = [play for play in plays if play.get("ansible.builtin.import_playbook") != "result.yml"]
        assert first.get("ansible.builtin.import_playbook") == "machines.yml", path.name
        variable = first.get("vars", {}).get("machines_of", "workspace_machine")
        for play in plays:
            named = re.findall(r"query\('parallel.worktrees.machines', '(\w+)'\)", str(play["hosts"]))
            assert named, path.name
            assert set(named) <= {*re.findall(r"\w+", variable), "tasks"}, path.name


# --- ways into a server ----------------------------------------------------------------------------------------------

OPENING = r"(?!(_postgres|sqlite3)\.connect$).*\bconnect$"
SERVERS = {"_clusters", "_services"}
"""They start what outlives them, with an environment of its own."""

FILES_ONLY = {"_analysis", "_trash"}
"""They start what outlives them and has nothing to do with PostgreSQL."""


def _calls(path: pathlib.Path) -> c.Iterator[tuple[str, str]]:
    """What is called in a file, and the whole of the call."""
    nodes = ast.walk(ast.parse(path.read_bytes()))
    return ((ast.unparse(node.func), ast.unparse(node)) for node in nodes if isinstance(node, ast.Call))


@pytest.mark.parametrize("name", IDEAS)
def test_connections_are_opened_in_one_place(name: str) -> None:
    """There what tasks have planted in their databases is kept from running, and variables of the caller from leading
    elsewhere."""
    for called, call in _calls(IDEAS[name]):
        assert name == "_postgres" or not re.match(OPENING, called), call


@pytest.mark.parametrize("name", IDEAS)
def test_programs_are_run_in_one_place(name: str) -> None:
    """There they get an environment without the variables of the caller that would lead them elsewhere."""
    for called, call in _calls(IDEAS[name]):
        if re.match(r"subprocess\.|os\.(exec|spawn|posix_spawn|popen|system)", called):
            is_server = name in SERVERS and re.search(r"\benv=\{'PATH': ", call)
            assert is_server or name in {"_commands", *FILES_ONLY}, call


# --- what users read ------------------------------------------------------------------------------------------------

FOREIGN = {
    *("max_connections", "max_replication_slots", "pg_available_extensions", "pg_default", "pg_drop_replication_slot"),
    *("ignore_startup_parameters", "pg_dump", "pg_hba", "pg_reload_conf", "is_template", "wal_keep_size"),
    *("max_locks_per_transaction", "search_path", "statement_timeout"),  # PostgreSQL's
    *("unprivileged_userns_clone", "node_modules", "group_vars", "to_json", "task_facts"),
}
"""What hints name that is not ours."""
TEXTS = sorted(path for kind in ("module_utils", "plugin_utils", "action") for path in (PLUGINS / kind).rglob("*.py"))


def _nested(options: dict[str, t.Any], inner: str) -> c.Iterator[str]:
    for name, about in options.items():
        yield name
        yield from _nested(about.get(inner) or {}, inner)


@functools.cache
def _variables() -> tuple[set[str], set[str]]:
    """Variables that a user can give, and these with all that they have within."""
    specs = [_yaml(ROLES[name] / "meta" / "argument_specs.yml")["argument_specs"] for name in ROLES]
    options = [entry.get("options") or {} for spec in specs for entry in spec.values()]
    named = {name for one in options for name in one} | {"db_host"}
    return named, {name for one in options for name in _nested(one, "options")}


@functools.cache
def _all_options() -> set[str]:
    return {name for one in MODULES for name in _nested(_options(one), "suboptions")}


def _literals(node: ast.AST) -> str:
    """The text of an expression, with a gap for each value in it."""
    parts = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return "\0".join(part for part in parts if isinstance(part, str))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_hint_names_what_there_is(path: pathlib.Path) -> None:
    """Variables, verbs, and options of modules, these as "option NAME"."""
    variables, everything = _variables()
    tree = ast.parse(path.read_bytes())
    hints = [_literals(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "hint"]
    hints += [
        _literals(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and any("hint" in ast.unparse(target).lower() for target in node.targets)
    ]
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for text in strings:
        assert {*re.findall(r"-e ([a-z_]+)=", text)} <= variables, text
        for name in re.findall(r"ansible-playbook parallel\.worktrees\.(\w+)", text):
            assert (HOUSE / "playbooks" / f"{name}.yml").exists(), text
        for name in re.findall(r"ansible-doc -t role parallel\.worktrees\.(\w+)", text):
            assert name in ROLES, text
        for name in re.findall(r"ansible-doc parallel\.worktrees\.(\w+)", text):
            assert name in MODULES, text
    for text in hints:
        assert {*re.findall(r"\boptions? (\w+_\w+)", text)} <= _all_options(), text
        bare = re.sub(r"\boptions? \w+(, \w+)*|parallel\.worktrees\.\w+", "", text)
        assert {*re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", bare)} <= everything | FOREIGN, text


# --- imports --------------------------------------------------------------------------------------------------------


def _imports(path: pathlib.Path) -> c.Iterator[tuple[str, set[str]]]:
    """What a file imports, wherever in it: the module with its leading dots, and the names taken from it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, set()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), {alias.name for alias in node.names}


def _ideas_in(path: pathlib.Path) -> set[str]:
    """The ideas that an idea imports, as ``from . import _x`` or ``from ._x import y``."""
    found = set()
    for source, names in _imports(path):
        if source == ".":
            found |= names
        elif source.startswith("."):
            found.add(source.removeprefix("."))
    return found


@module(sorted(set(IDEAS) - {"_mounts"}))
def test_folders_are_removed_in_one_place(name: str) -> None:
    """Only there is it seen to that nothing is removed which is mounted in a folder."""
    assert not re.search(r"\brmtree\b|[\"']rm[\"'], [\"']-r|\brm -rf? --", IDEAS[name].read_text(encoding="utf-8"))


@module(IDEAS)
def test_an_idea_knows_neither_ansible_nor_a_door(name: str) -> None:
    assert name.startswith("_"), "private by its name"
    about = ast.get_docstring(ast.parse(IDEAS[name].read_bytes()))
    assert "\n\nPrivate to this collection: may change without notice." in (about or "")
    for source, names in _imports(IDEAS[name]):
        is_validator = source == "ansible.module_utils.common.arg_spec" and names == {"ArgumentSpecValidator"}
        assert is_validator or source.partition(".")[0] not in ("ansible", "ansible_collections"), source
        assert not source.startswith(".."), source
        assert not (source == "." and "_door" in names), "only its words, never its answer"
        assert source != "._door" or names <= WORDS_OF_A_DOOR, names


def test_imports_run_one_way() -> None:
    assert _ideas_in(IDEAS["_errors"]) == set()
    assert _ideas_in(IDEAS["_door"]) == {"_errors"}
    graph = {name: _ideas_in(path) for name, path in IDEAS.items()}
    assert {idea for ideas in graph.values() for idea in ideas} <= set(IDEAS)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@module(MODULES)
def test_a_module_brings_only_what_travels_with_it(name: str) -> None:
    """What a module imports is sent to the host: the ideas, and Ansible's own basics."""
    for source, _names in _imports(MODULES[name]):
        assert source == "__future__" or source.startswith(("ansible.module_utils.", "..module_utils.")), source
