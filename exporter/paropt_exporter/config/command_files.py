"""Parse the files with a project's own commands: those of tox, nox, make, just, task, scripts and workflows."""

from __future__ import annotations

import ast
import posixpath
import re
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import chain

from msgspec import Struct

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.document import Document, Unreadable
from paropt_exporter.config.foreign_files import parse_ini, parse_toml
from paropt_exporter.config.recipe_files import JUSTFILES, MAKEFILES

Words = tuple[str, ...]
_SCRIPTS = tuple((f"scripts/{name}{end}", name) for name in ("lint", "check", "test", "tests") for end in ("", ".sh"))
PROCESSES = re.compile(r"(?:-n\s*|--numprocesses[= ]\s*)(auto|logical|[1-9]\d*)")

_REFERENCE = re.compile(r"\{\[([^\]{}\n]+)\](\w+)\}")
_FACTOR = re.compile(r"^([\w!{},.\[\]-]+):\s+")  # tox: `tests: pytest` holds for environments with the factor `tests`
_POSARGS = re.compile(r"\{(?:pos)?args(?::((?:[^{}]|\{[^{}]*\})*))?\}|\{\[[^\]{}]*\]posargs\}|(?<!\S)\[\](?!\S)")
_ROOTS = re.compile(r"\{(?:toxinidir|tox_root|root)\}(?:\{/\}|/)?")
_ROOT_IN_VALUE = re.compile(r"\{(?:toxinidir|tox_root|root)\}(?:\{/\}|/)?([^:;,\s]*)")
_TOX_VARIABLE = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*(.*\S)")
# tox: options or nothing, unless a variable has others
_TOX_DEFAULT = re.compile(r"\{env:\w+:(|-[^{}]*)\}")
_TOX_ENV = re.compile(r"\{env:(\w+)(?::[^{}]*)?\}")  # tox: the value of a variable
# tox: the folder in which it has installed the project
_INSTALLED = re.compile(r"\{env_?site_?packages_?dir\}(?=/|\{/\})")
_ENTERS = re.compile(r"(?:^|&&)\s*cd(?![^\s&|;#])([^&|;]*+)(?=$|&&|\|\||;\s*$)")  # with the folder
_COMPUTED = re.compile(r"[$`{]")
_TAG_OF_GITLAB = re.compile(r"!reference(?=\s*\[)")  # before the place of another job's lines
_TERMINAL = re.compile(r"\{tty:[^{}:]*+:?([^{}]*)\}")  # tox: the first value on a terminal, otherwise the second
_RECIPE = re.compile(r"""@?([A-Za-z0-9_][\w. -]*+)(?:[^:="']|=?"[^"]*"|=?'[^']*')*+:(?!=)""")
_PREREQUISITES = re.compile(r"^([A-Za-z0-9][\w-]*)(?: [^:=\n]*)?:(?![=:])([\w. \t-]*)", re.MULTILINE)
# Targets before the tests that install something or check something else.
_NO_PREPARATION = re.compile(
    r"\.?(\w+[-_])?(install|dev|deps|dependencies|v?env|sync|setup|init|lint|format|fmt|check|clean|help)([-_]\w+)?"
)
_PARAMETER = re.compile(r"""(?<!\w)(\w++)=("[^"]*"|'[^']*')""")  # of a justfile's recipe, with its default
_CONDITION = re.compile(
    r"\{\{ *if (?:[^{}]|\{[^{}]*\})*\}\}"
)  # in a justfile, for options of the program that starts others
_VARIABLE = re.compile(r"\$\((\w+)\)|\$\{(\w+)\}|\{\{ *(\w+) *\}\}|\$(\w+)")
_DEFAULT = re.compile(r"\$\{\w+:?-([^{}$]*)\}|\$\$\{\w+:?-([^{}$]*)\}")  # of a shell variable; in a makefile with $$
_ALL_ARGUMENTS = re.compile(r'"?\$(?:[@*]|\{[@*]\})"?')  # of a script or recipe
_ARGUMENTS = re.compile(r"\w*(args|tests?|opts|options|flags)", re.IGNORECASE)  # variables for a command line to set
_ASSIGNMENT = re.compile(r"^(?:export +)?([A-Za-z_]\w*) *[:?]{0,2}=[ \t]*(.*)$", re.MULTILINE)
_COMPUTED_OPTION = re.compile(
    r"(?<!\S)--[\w-]{1,99}[ =][\"']?\$\{\{[^{}]*\}\}[\"']?(?!\S)"
)  # in a workflow, such as values of its matrix
_EXPORT = re.compile(r"""export +([A-Za-z_]\w*)=("[^"]*"|'[^']*'|[^\s"']*)\s*(?:#.*)?""")
# In a makefile or justfile: a variable with its value, or names of variables that have their values elsewhere.
_EXPORT_LINE = re.compile(r"export +([A-Za-z_]\w*(?= *[:?]{0,2}=)|\w[\w ]*$) *(?:[:?]{0,2}=[ \t]*(.*))?")
_MAKE_CONDITION = re.compile(r"if(?:n?eq|n?def)\b")
_JUST_STRING = re.compile(r"""'[^']*'|("[^"\\]*")""")  # other values are expressions
_DEEPEST_VARIABLE = 5
_MOST_BASES = 11  # levels of `extends`, the limit of GitLab
_LONGEST_FOLDER = 500  # characters; a script could enter folders without end
LONGEST_LINE = 10_000  # characters with its variables; a longer one counts as empty
_LONGEST_PARAMETER = 1000  # characters of a default
_MOST_WORDS = 10_000  # of a call with its lists
_LONGEST_NOXFILE = 200_000  # characters; Python takes a second to parse them


class CommandLine(Struct, frozen=True, kw_only=True):
    """A command as a line or words, and the environment, session, target or job to which it belongs.

    `folder`: where it runs, "" for the project's folder; `before`: the commands that prepare it, such as tox's
    commands_pre or targets of make. `note`: why it is not used; it then has no text.
    """

    text: str | Words = ""
    group: str = ""
    folder: str = ""
    env: Mapping[str, str] = {}
    before: str = ""
    note: str = ""


def parse_recipes(text: str) -> dict[str, list[str]]:
    """Return the lines of each target of a makefile or recipe of a justfile."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    parameters: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line[:1] in (" ", "\t"):
            current.append(_fill_parameters(line.strip().lstrip("@"), parameters))
        elif match := _RECIPE.match(line):
            current, parameters = [], dict(_iter_parameters(match[0]))
            for name in match[1].split():
                found.setdefault(name, current)
    return found


def parse_just_recipes(text: str) -> dict[str, list[str]]:
    """Return the lines of each recipe of a justfile that needs no argument."""
    found = parse_recipes(text)
    headers = (match[0].rstrip(": ").split() for line in text.splitlines() if (match := _RECIPE.match(line)))
    ready = (name for name, *given in headers if all("=" in each or each.startswith("*") for each in given))
    return {name: found[name] for name in (each.lstrip("@") for each in ready) if name in found}


def parse_taskfile(text: str) -> dict[str, list[str]]:
    """Return the lines of each task of a Taskfile that needs no variables or answers; nothing for a faulty file."""
    try:
        tasks = raw_yaml.as_mapping(raw_yaml.as_mapping(Document(text).value).get("tasks"))
    except Unreadable:
        return {}
    return {
        name: [*_iter_task_lines(task)]
        for name, task in tasks.items()
        if not raw_yaml.as_mapping(task).keys() & {"interactive", "internal", "prompt", "requires", "watch"}
    }


def _iter_task_lines(task: object) -> Iterator[str]:
    """Yield the commands of a task: a line, a list, or a mapping with either."""
    keys = raw_yaml.as_mapping(task)
    given = keys.get("cmds", keys.get("cmd")) if keys else task
    for each in given if isinstance(given, list) else [given]:
        line = raw_yaml.as_mapping(each).get("cmd", each)
        if isinstance(line, str):
            yield line


def _iter_parameters(recipe: str) -> Iterator[tuple[str, str]]:
    """Yield the parameters of a justfile's recipe with their defaults."""
    for name, value in _PARAMETER.findall(recipe):
        if len(value) <= _LONGEST_PARAMETER:
            yield name, value[1:-1]


def _fill_parameters(line: str, parameters: Mapping[str, str]) -> str:
    """Replace the parameters of a justfile's recipe with their defaults, unless the line becomes too long."""
    if len(line) > LONGEST_LINE:
        return line
    return re.sub(r"\{\{ *(\w+) *\}\}", lambda match: parameters.get(match[1], match[0]), line)


def _parse_recipe_lines(text: str, runner: str) -> Iterator[CommandLine]:
    variables = dict(_ASSIGNMENT.findall(text))
    env = _find_exported(text, variables, runner)
    recipes = parse_recipes(text)
    needs = {name: needed.split() for name, needed in _PREREQUISITES.findall(text)}
    for name, lines in recipes.items():
        built = (each for each in needs.get(name, ()) if recipes.get(each) and not _NO_PREPARATION.fullmatch(each))
        before = "; ".join(f"{runner} {each}" for each in built)
        for line in lines:
            filled = _fill_variables(_CONDITION.sub("", line), variables)
            yield CommandLine(text=filled, group=name, env=env, before=before)


def _find_exported(text: str, variables: Mapping[str, str], runner: str) -> dict[str, str]:
    """Return the variables that a makefile or justfile exports at its top level and does not use itself.

    Those that `make` exports only under a condition are left out, and values that `just` computes.
    """
    own = {name for names in _VARIABLE.findall(text) for name in names}
    values: dict[str, str] = {}
    depth = 0
    for line in text.splitlines():
        depth += bool(_MAKE_CONDITION.match(line)) - line.startswith("endif")
        if depth <= 0 and (found := _EXPORT_LINE.fullmatch(line)):
            names, value = found[1], found[2]
            given = {names: value} if value else {name: variables[name] for name in names.split() if name in variables}
            values |= {name: _fill_variables(each, variables) for name, each in given.items() if name not in own}
    values = {name: value.partition(" #")[0].strip() for name, value in values.items()}
    return {
        name: value.strip("\"'")
        for name, value in values.items()
        if not value.endswith("\\") and (runner != "just" or _JUST_STRING.fullmatch(value))
    }


def _parse_script(text: str, group: str) -> Iterator[CommandLine]:
    variables = dict(_ASSIGNMENT.findall(text))
    own = {name for names in _VARIABLE.findall(text) for name in names}  # names that the script itself uses
    env: dict[str, str] = {}
    for line, folder in _iter_script([text]):
        if (exported := _EXPORT.fullmatch(line)) and exported[1] not in own:
            env = {**env, exported[1]: exported[2].strip("\"'")}
        yield CommandLine(text=_fill_variables(line, variables), group=group, folder=folder, env=env)


def _iter_script(parts: Iterable[object], folder: str = "") -> Iterator[tuple[str, str]]:
    """Yield the lines of a script that starts in a folder, each with the folder in which it begins.

    `cd` to a computed folder, such as `$(git rev-parse --show-toplevel)`, usually leads to the project's own.
    """
    folder = enter_folder("", folder)
    for part in parts:
        for line in part.replace("\\\n", " ").splitlines() if isinstance(part, str) else ():
            yield line, folder
            for given in _ENTERS.findall(line):
                entered = given.partition("#")[0].strip(" \t\"'")
                folder = "" if _COMPUTED.search(entered) else enter_folder(folder, entered)


def enter_folder(folder: str, entered: str) -> str:
    """Return the folder that `cd` leads to from another one; without a folder, the project's own."""
    if len(folder) > _LONGEST_FOLDER:
        return folder
    path = posixpath.join(folder, entered) if entered else ""
    path = path if _COMPUTED.search(path) else posixpath.normpath(path)
    return "" if path == "." else path


def _fill_variables(line: str, variables: Mapping[str, str], depth: int = 0) -> str:
    """Replace variables with their values in the file. Those that a command line may set are empty by default."""
    known: dict[str, str] = {}

    def fill(match: re.Match[str]) -> str:
        name = next(filter(None, match.groups()))
        if name in variables and depth < _DEEPEST_VARIABLE:
            if name not in known:
                known[name] = _fill_variables(variables[name].strip().strip("\"'"), variables, depth + 1)
            return known[name]
        return "" if _ARGUMENTS.fullmatch(name) else match[0]

    if len(line) > LONGEST_LINE:
        return ""
    filled = _VARIABLE.sub(fill, _DEFAULT.sub(r"\1\2", _ALL_ARGUMENTS.sub("", line)))
    return filled if len(filled) <= LONGEST_LINE else ""


def _parse_tox_ini(text: str) -> Iterator[CommandLine]:
    sections = parse_ini(text)
    base = sections.get("testenv", {})
    fill = _ToxReferences(sections).fill
    for name, section in sections.items():
        if "commands" not in section:
            continue
        whole = ChainMap(section, base)  # a copy for each of many sections would take minutes
        folder = _read_folder(fill(whole.get("change_dir") or whole.get("changedir") or ""))
        env = _parse_tox_variables(fill(whole.get("set_env") or whole.get("setenv") or ""), folder)
        prepared = filter(_prepares, _iter_tox_lines(fill(whole.get("commands_pre", ""))))
        before = "; ".join(line.removeprefix("-").strip().replace("{envpython}", "python") for line in prepared)
        for line in _iter_tox_lines(fill(section["commands"])):
            factor = _FACTOR.match(line)
            group = factor[1] if factor else name.partition("testenv")[2].lstrip(":")
            text = _fill_tox_line(_fill_own_variables(_FACTOR.sub("", line), env))
            yield CommandLine(text=text, group=group, folder=folder, env=env, before=before)


class _ToxReferences:
    """The values of other sections that tox's `{[section]key}` stands for."""

    def __init__(self, sections: Mapping[str, Mapping[str, str]]) -> None:
        self._sections = sections
        self._known: dict[tuple[str, str], str] = {}

    def fill(self, text: str) -> str:
        """Replace references with their values, unless the text is or becomes too long."""
        if len(text) > LONGEST_LINE:  # its many references, filled, might not fit into the memory
            return text
        filled = _REFERENCE.sub(self._find, text)
        return filled if len(filled) <= LONGEST_LINE else text

    def _find(self, match: re.Match[str]) -> str:
        place = match[1], match[2]
        if place not in self._known:
            self._known[place] = match[0]  # for a reference in its own value
            self._known[place] = self.fill(self._sections.get(match[1], {}).get(match[2], match[0]).strip())
        return self._known[place]


def _prepares(line: str) -> bool:
    """Return whether a line of commands_pre is for all environments, and does more than prepare output."""
    return _FACTOR.match(line) is None and not line.endswith((" --version", "coverage erase"))


def _iter_tox_lines(text: str) -> Iterator[str]:
    return filter(None, map(str.strip, text.replace("\\\n", " ").splitlines()))


def _parse_tox_variables(text: str, folder: str) -> dict[str, str]:
    """Return the variables for all environments, without those for a factor (`slow: NAME = value`).

    Paths in them are relative to the folder in which the commands run.
    """
    above = "/".join(".." for part in folder.split("/") if part not in ("", "."))
    pairs = (match.groups() for line in text.replace("\\\n", "").splitlines() if (match := _TOX_VARIABLE.match(line)))
    return {name: _ROOT_IN_VALUE.sub(lambda match: _join(above, match[1]), value) for name, value in pairs}


def _fill_own_variables(line: str, env: Mapping[str, str]) -> str:
    """Replace `{env:NAME}` in a command with the value that its environment sets for all its factors."""
    filled = _TOX_ENV.sub(lambda match: env.get(match[1], match[0]), line)
    return filled if len(filled) <= LONGEST_LINE else line


def _join(folder: str, below: str) -> str:
    return "/".join(filter(None, (folder, below.strip("/")))) or "."


def _fill_tox_line(line: str) -> str:
    """Replace tox's arguments with their default if that names files or pytest-xdist's processes, else with nothing."""

    def fill(match: re.Match[str]) -> str:
        default = (match[1] or "").strip()
        names_files = any(not word.startswith("-") for word in default.split())
        return default if names_files or PROCESSES.fullmatch(default) else ""

    filled = _TOX_DEFAULT.sub(r"\1", _TERMINAL.sub(r"\1", _POSARGS.sub(fill, line)))
    return _INSTALLED.sub(".", _ROOTS.sub("", filled)).replace("{/}", "/")


def _parse_setup_cfg(text: str) -> Iterator[CommandLine]:
    return _parse_tox_ini(text) if "[testenv" in text else iter(())


def _parse_tox_table(tox: Mapping[str, object]) -> Iterator[CommandLine]:
    base = raw_yaml.as_mapping(tox.get("env_run_base"))
    for name, value in {"": base, **raw_yaml.as_mapping(tox.get("env"))}.items():
        table = raw_yaml.as_mapping(value)
        if "commands" not in table:
            continue
        whole = ChainMap(table, base)
        folder = _read_folder(whole.get("change_dir"))
        env = {key: value for key, value in raw_yaml.as_mapping(whole.get("set_env")).items() if isinstance(value, str)}
        prepared = (_iter_tox_words(raw_yaml.as_list(words)) for words in raw_yaml.as_list(whole.get("commands_pre")))
        before = "; ".join(filter(_prepares, map(" ".join, prepared)))
        for words in raw_yaml.as_list(table["commands"]):
            text = tuple(_iter_tox_words(raw_yaml.as_list(words)))
            yield CommandLine(text=text, group=name, folder=folder, env=env, before=before)


def _read_folder(value: object) -> str:
    """Return tox's folder of a command, "" if it is tox's own, from which tests import the installed package."""
    folder = _ROOTS.sub("", value) if isinstance(value, str) else ""
    return "" if folder.startswith(("{", ".tox")) else folder


def _iter_tox_words(words: Iterable[object]) -> Iterator[str]:
    for word in words:
        if isinstance(word, str):
            yield _fill_tox_line(word)
        elif raw_yaml.as_mapping(word).get("replace") == "posargs":
            default = [
                each for each in raw_yaml.as_list(raw_yaml.as_mapping(word).get("default")) if isinstance(each, str)
            ]
            yield from _fill_tox_line("{posargs:" + " ".join(default) + "}").split()


def _parse_tox_toml(text: str) -> Iterator[CommandLine]:
    return _parse_tox_table(parse_toml(text))


def _parse_hatch_toml(text: str) -> Iterator[CommandLine]:
    return _parse_hatch_table(parse_toml(text))


def _parse_pyproject(text: str) -> Iterator[CommandLine]:
    tool = raw_yaml.as_mapping(parse_toml(text).get("tool"))
    tox = raw_yaml.as_mapping(tool.get("tox"))
    yield from _parse_tox_table(tox)
    legacy = tox.get("legacy_tox_ini")
    if isinstance(legacy, str):
        yield from _parse_tox_ini(legacy)
    for name, key in (("pdm", "scripts"), ("poe", "tasks"), ("taskipy", "tasks"), ("rye", "scripts")):
        yield from _parse_scripts(raw_yaml.as_mapping(tool.get(name)).get(key))
    yield from _parse_pixi_table(raw_yaml.as_mapping(tool.get("pixi")))
    yield from _parse_hatch_table(raw_yaml.as_mapping(tool.get("hatch")))


def _parse_pixi_toml(text: str) -> Iterator[CommandLine]:
    return _parse_pixi_table(parse_toml(text))


def _parse_pixi_table(pixi: Mapping[str, object]) -> Iterator[CommandLine]:
    for table in (pixi, *map(raw_yaml.as_mapping, raw_yaml.as_mapping(pixi.get("feature")).values())):
        yield from _parse_scripts(table.get("tasks"))


def _parse_hatch_table(hatch: Mapping[str, object]) -> Iterator[CommandLine]:
    for environment in raw_yaml.as_mapping(hatch.get("envs")).values():
        yield from _parse_scripts(raw_yaml.as_mapping(environment).get("scripts"))


def _parse_scripts(table: object) -> Iterator[CommandLine]:
    for name, script in raw_yaml.as_mapping(table).items():
        given = raw_yaml.as_mapping(raw_yaml.as_mapping(script).get("env"))
        env = {key: value for key, value in given.items() if isinstance(value, str)}
        for text in _iter_script_lines(script):
            yield CommandLine(text=_fill_tox_line(text) if isinstance(text, str) else text, group=name, env=env)


def _iter_script_lines(script: object) -> Iterator[str | Words]:
    """Yield the commands of a script: a line, a list of lines, or a table with either."""
    match script:
        case str():
            yield script
        case list():
            for line in script:
                yield from _iter_script_lines(line)
        case {"cmd": list(words)}:
            yield tuple(word for word in words if isinstance(word, str))
        case {"cmd": inner} | {"shell": inner} | {"sequence": inner} | {"composite": inner} | {"chain": inner}:
            yield from _iter_script_lines(inner)


def _parse_noxfile(text: str) -> Iterator[CommandLine]:
    """Yield the calls `session.run("tool", ...)`. Calls with computed arguments are left out."""
    if len(text) > _LONGEST_NOXFILE:
        raise ValueError(f"it has more than {_LONGEST_NOXFILE:,} characters")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in strings
        module = ast.parse(text)
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    of_module = _read_lists(module.body)

    @cache
    def read_lists(function: ast.FunctionDef | None) -> Mapping[str, Words]:
        return ChainMap(_read_lists(ast.walk(function)), of_module) if function else of_module

    inside = {id(node): function for function in functions for node in ast.walk(function)}
    elsewhere = {function for function in functions if any(map(_changes_folder, ast.walk(function)))}
    with_arguments = {id(node) for each in ast.walk(module) for node in _iter_with_arguments(each)}
    for node in ast.walk(module):
        if id(node) in with_arguments:
            continue
        function = inside.get(id(node))
        if isinstance(node, ast.Call) and _is_session_call(node, "run") and function not in elsewhere:
            words = _read_words(node.args, read_lists(function))
            if words is not None:
                yield CommandLine(text=words, group=function.name if function else "", env=_read_variables(node))


def _iter_with_arguments(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all of an `if session.posargs:` that runs only with arguments on nox's command line."""
    match node:
        case ast.If(test=ast.Attribute(attr="posargs"), body=only):
            pass
        case ast.If(test=ast.UnaryOp(op=ast.Not(), operand=ast.Attribute(attr="posargs")), orelse=only):
            pass
        case _:
            return
    for statement in only:
        yield from ast.walk(statement)


def _is_session_call(node: ast.AST, *names: str) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="session" | "s"), attr=name)):
            return name in names
    return False


def _changes_folder(node: ast.AST) -> bool:
    return _is_session_call(node, "chdir", "cd")


def _read_lists(nodes: Iterable[ast.AST]) -> dict[str, Words]:
    """Return the words of the variables that are assigned: literal lists, or `session.posargs or [...]`."""
    found: dict[str, Words] = {}
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                words = _read_list(value)
                if words is not None:
                    found[name] = words
    return found


def _read_list(value: ast.expr) -> Words | None:
    match value:
        case ast.BoolOp(op=ast.Or(), values=[ast.Attribute(attr="posargs"), default]):
            return _read_list(default)
        case ast.Attribute(attr="posargs"):
            return ()
        case ast.IfExp(body=body, orelse=orelse):  # only pytest-xdist's processes, which don't select tests
            either = [words for each in (body, orelse) if (words := _read_list(each))]
            return either[0] if len(either) == 1 and PROCESSES.fullmatch(" ".join(either[0])) else None
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return _read_words(elements, {})
        case ast.Constant(value=str(word)):
            return (word,)
    return None


def _read_words(arguments: Iterable[ast.expr], lists: Mapping[str, Words]) -> Words | None:
    """Return the words of a call, or None if one is computed, or if there are too many.

    Computed lists and options are left out, since they only add arguments.
    """
    words: list[str] = []
    for each in arguments:
        if len(words) > _MOST_WORDS:
            return None
        match each:
            case ast.Starred(value=ast.Name(id=name)):
                words += lists.get(name, ())
            case ast.Starred(value=value):
                words += _read_list(value) or ()
            case ast.Constant(value=str(word)):
                words.append(word)
            case ast.Name(id=name) if len(lists.get(name, ())) == 1:
                words += lists[name]
            case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]) if start.startswith("-"):
                pass  # an option with a computed value
            case _:
                return None
    return tuple(words)


def _read_variables(call: ast.Call) -> dict[str, str]:
    for keyword in call.keywords:
        match keyword:
            case ast.keyword(arg="env", value=ast.Dict(keys=keys, values=values)):
                pairs = zip(keys, values, strict=True)
                return {
                    key.value: value.value for key, value in pairs
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
                    and isinstance(key.value, str) and isinstance(value.value, str)
                }  # fmt: skip
    return {}


def parse_workflow(text: str) -> Iterator[CommandLine]:
    """Yield the lines that a workflow of GitHub Actions runs for a push or a pull request."""
    workflow = raw_yaml.as_mapping(Document(text).value)
    events = workflow.get("on")
    if not {"push", "pull_request"}.intersection(events if isinstance(events, list | dict) else [events]):
        return
    for name, value in raw_yaml.as_mapping(workflow.get("jobs")).items():
        job = raw_yaml.as_mapping(value)
        usual = [raw_yaml.as_mapping(raw_yaml.as_mapping(each.get("defaults")).get("run")) for each in (job, workflow)]
        for step in map(raw_yaml.as_mapping, raw_yaml.as_list(job.get("steps"))):
            script, folder = step.get("run"), ChainMap(*map(dict, (step, *usual))).get("working-directory")
            given = ChainMap(*(dict(raw_yaml.as_mapping(each.get("env"))) for each in (step, job, workflow)))
            env = {key: value for key, value in given.items() if isinstance(value, str)}
            for line, place in _iter_script([script], folder if isinstance(folder, str) else ""):
                yield CommandLine(text=_COMPUTED_OPTION.sub("", line), group=name, folder=place, env=env)


def _parse_gitlab_ci(text: str) -> Iterator[CommandLine]:
    """Yield the lines of each job, which one shell runs after those of `before_script`."""
    config = raw_yaml.as_mapping(Document(_TAG_OF_GITLAB.sub("", text)).value)
    for name in config:
        bases = _list_bases(config, name)
        keys = ChainMap(*(dict(each) for each in (*bases, raw_yaml.as_mapping(config.get("default")), config)))
        if any("script" in each for each in bases):
            parts = chain.from_iterable(_iter_script_lines(keys.get(each)) for each in ("before_script", "script"))
            for line, folder in _iter_script(parts):
                yield CommandLine(text=line, group=name, folder=folder)


def _list_bases(config: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    """Return a job of GitLab and those that it extends, of which the last one in its list counts most."""
    names = [name]
    for each in names:  # which grows
        given = raw_yaml.as_mapping(config.get(each)).get("extends")
        listed = given if isinstance(given, list) else [given]
        bases = [base for base in listed if isinstance(base, str) and base not in names]
        names += reversed(bases[-_MOST_BASES:])
        if len(names) > _MOST_BASES:
            break
    return [raw_yaml.as_mapping(config.get(each)) for each in names]


FILES: tuple[tuple[str, Callable[[str], Iterator[CommandLine]]], ...] = (
    ("tox.ini", _parse_tox_ini),
    ("tox.toml", _parse_tox_toml),
    ("setup.cfg", _parse_setup_cfg),
    ("pyproject.toml", _parse_pyproject),
    ("hatch.toml", _parse_hatch_toml),
    ("pixi.toml", _parse_pixi_toml),
    ("noxfile.py", _parse_noxfile),
    *((name, partial(_parse_recipe_lines, runner="make")) for name in MAKEFILES),
    *((name, partial(_parse_recipe_lines, runner="just")) for name in JUSTFILES),
    *((path, partial(_parse_script, group=name)) for path, name in _SCRIPTS),
    (".gitlab-ci.yml", _parse_gitlab_ci),
)
