"""Convert YAML to plain values and remember their lines and columns. Reject YAML features that no config needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

import yaml

from paropt_exporter.config.faults import MOST_FAULTS, Fault, Location, PlacedFault, format_path
from paropt_exporter.config.units import LARGEST_FILE_BYTES, format_value

MOST_VALUES = 1_000_000  # after aliases are followed: 10,000 stages of 100 values
DEEPEST = 50  # levels; a config needs 6
LONGEST_NUMBER = 300  # characters; int() rejects 4,300 digits
# Characters: Linux's limit for a word of a command; splitting a line takes time with the square of its words.
LONGEST_TEXT = 128 * 1024
_TEXT_OF_A_VALUE = 10  # so many characters of a text count as one more value

_PREFIX = "tag:yaml.org,2002:"
_STRING, _INT, _FLOAT, _BOOL, _NULL, _MERGE = (
    _PREFIX + name for name in ("str", "int", "float", "bool", "null", "merge")
)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TRUE = frozenset({"yes", "true", "on"})
_REMEDIES = (  # by a part of the parser's message
    ("mapping values are not allowed", "quote a value with ': ' in it, and indent keys alike"),
    ("while parsing a flow", "quote a value with {, }, [, ] or a comma in it, and close each bracket"),
    ("while parsing a block collection", "indent the keys of an entry alike"),
    ("while parsing a block mapping", "quote the whole value, and indent keys alike"),
    ("while scanning an alias", "quote a value that begins with *"),
    ("cannot start any token", "quote a value that begins with @, ` or %"),
    ("unknown escape character", "use single quotes, in which a backslash is a plain character"),
    ("while scanning a quoted scalar", "the quote that begins here is not closed"),
    ("expected <document start>", "a config is YAML and begins with a key, such as stages:"),
)
_CONFLICT = re.compile(r"(?m)^(?:<{7} |={7}$|>{7} )")
_DASH_WITHOUT_SPACE = re.compile(r"\s*-[^\s-]")
_ODD_SPACE = re.compile(r"[\s-]*?([\xa0\u2000-\u200a\u202f\u3000])")  # copied from a web page or a chat


class WrittenInt(int):
    """A whole number with its spelling in the file (`text`): `{list: [010]}` means the word `010`."""

    text: str


class WrittenFloat(float):
    """A number with a fraction and its spelling in the file (`text`): `1.10` is not the word `1.1`."""

    text: str


class Unreadable(Exception):
    """The text is not YAML that a config may use. `faults` has the reasons with their places."""

    def __init__(self, faults: list[PlacedFault]) -> None:
        super().__init__(faults)
        self.faults = faults


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # a build without libyaml has no C
    """Resolves plain scalars like YAML 1.1, except for dates, `1:30` (90 there) and `010` (8 there)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- PyYAML's own protocol


for _tag, _pattern, _first in (
    (_BOOL, r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", [*"yYnNtTfFoO"]),
    (_FLOAT, r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+)$", [*"-+.0123456789"]),
    (_FLOAT, r"[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)$", [*"-+."]),
    (_INT, r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$", [*"-+0123456789"]),
    (_NULL, r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    (_MERGE, r"<<$", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def decode_text(content: bytes) -> str:
    """Return the text of a config file. Raises Unreadable if it is not UTF-8 or too large."""
    if len(content) > LARGEST_FILE_BYTES:
        _raise_unreadable(1, 1, f"the file is larger than {LARGEST_FILE_BYTES // 1_000_000} MB, the limit")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        _raise_unreadable(1, 1, "the file is UTF-16: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _compute_position(content[: error.start].decode("utf-8-sig"))
        _raise_unreadable(
            line, column, f"byte 0x{content[error.start]:02x} is not UTF-8 (Latin-1?): save the file as UTF-8"
        )
    match = _UNPRINTABLE.search(text)
    if match is not None:
        line, column = _compute_position(text[: match.start()])
        _raise_unreadable(line, column, f"control character U+{ord(match[0]):04X} is not allowed: remove it")
    return text


class Document:
    """One YAML document: its plain `value`, and the line and column of each part.

    Aliases share one value. Their expanded size is counted first, so that a file with exploding aliases is rejected
    before anything walks through it.
    """

    def __init__(self, text: str) -> None:
        self._faults: list[PlacedFault] = []
        self._pairs: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = {}
        self._values: dict[int, tuple[object, int]] = {}
        self._open: set[int] = set()
        self._merged_count = 0
        self._root = _compose_nodes(text)
        self.value, size = self._convert_node(self._root, (), 0) if self._root is not None else (None, 0)
        _check_size(size)
        if self._faults:
            raise Unreadable(self._faults)

    def locate(self, fault: Fault) -> PlacedFault:
        """Return the fault with its line and column. If the file lacks it, the nearest part counts."""
        node, mark, location = self._root, None, []
        for part in fault.location:
            key, child = self._get_child(node, part)
            if child is None:
                continue
            node, mark = child, key if fault.on_key else child
            location.append(part)
        line, column = _get_position(mark or node)
        return PlacedFault(line=line, column=column, path=format_path(tuple(location)), message=fault.message)

    def get_written(self, location: Location) -> str | None:
        """Return the spelling of the scalar at a location (`on` for True), or None if there is no scalar."""
        node = self._root
        for part in location:
            child = self._get_child(node, part)[1]
            node = child if child is not None else node
        return node.value if isinstance(node, yaml.ScalarNode) else None

    def _get_child(self, node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
        if isinstance(node, yaml.MappingNode) and isinstance(part, str):
            return self._collect_pairs(node, ()).get(part, (None, None))
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            return node.value[part], node.value[part]
        return None, None

    def _convert_node(self, node: yaml.Node, location: Location, depth: int) -> tuple[object, int]:
        """Return a node's value, and the number of values in it with aliases expanded."""
        known = self._values.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            return self._add_fault(node, location, "it contains itself through an alias"), 1
        if depth > DEEPEST:
            return self._add_fault(node, location, f"nested deeper than {DEEPEST} levels"), 1
        self._open.add(id(node))
        known = self._values[id(node)] = self._convert_uncached(node, location, depth)
        self._open.discard(id(node))
        return known

    def _convert_uncached(self, node: yaml.Node, location: Location, depth: int) -> tuple[object, int]:
        if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
            pairs = self._collect_pairs(node, location)
            children = {
                key: self._convert_node(child, (*location, key), depth + 1) for key, (_, child) in pairs.items()
            }
            return {key: value for key, (value, _) in children.items()}, 1 + sum(size for _, size in children.values())
        if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
            items = [self._convert_node(child, (*location, index), depth + 1) for index, child in enumerate(node.value)]
            return [value for value, _ in items], 1 + sum(size for _, size in items)
        if isinstance(node, yaml.ScalarNode):
            return self._convert_scalar(node, location), 1 + len(node.value) // _TEXT_OF_A_VALUE
        return self._add_fault(node, location, f"the tag {_format_tag(node)} is not allowed: remove it"), 1

    def _convert_scalar(self, node: yaml.ScalarNode, location: Location) -> object:
        text: str = node.value
        try:
            match node.tag:
                case "tag:yaml.org,2002:str" | "tag:yaml.org,2002:merge" if len(text) <= LONGEST_TEXT:
                    return text
                case "tag:yaml.org,2002:str" | "tag:yaml.org,2002:merge":
                    message = f"a text of {len(text):,} characters is too long: the longest has {LONGEST_TEXT:,}"
                    return self._add_fault(node, location, message)
                case "tag:yaml.org,2002:null":
                    return None
                case "tag:yaml.org,2002:bool":
                    return text.lower() in _TRUE
                case "tag:yaml.org,2002:int" | "tag:yaml.org,2002:float" if len(text) <= LONGEST_NUMBER:
                    return _parse_number(node.tag, text)
                case "tag:yaml.org,2002:int" | "tag:yaml.org,2002:float":
                    return self._add_fault(node, location, f"a number of {len(text)} characters is too long")
        except ValueError:
            return self._add_fault(node, location, f"{format_value(text)} does not fit its tag {_format_tag(node)}")
        return self._add_fault(node, location, f"the tag {_format_tag(node)} is not allowed: remove it")

    def _collect_pairs(self, node: yaml.MappingNode, location: Location) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return a mapping's keys with their nodes. Its own keys override merged ones (`<<`)."""
        known = self._pairs.get(id(node))
        if known is not None:
            return known
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        self._pairs[id(node)] = own  # ends the recursion if a mapping is merged into itself
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in self._iter_merge_sources(value, (*location, "<<")):
                    self._merge_pairs(merged, self._collect_pairs(source, location))
            elif not isinstance(key, yaml.ScalarNode):
                self._add_fault(
                    key, location, "a key must be a word, found " + ("a list" if key.id == "sequence" else "a mapping")
                )
            elif key.value in own:
                first, _ = _get_position(own[key.value][0])
                self._add_fault(
                    key,
                    (*location, key.value),
                    f"the key {format_value(key.value)} is given twice (first in line {first})",
                )
            else:
                own[key.value] = key, value
        own.update({key: pair for key, pair in merged.items() if key not in own})
        return own

    def _merge_pairs(
        self, merged: dict[str, tuple[yaml.Node, yaml.Node]], more: dict[str, tuple[yaml.Node, yaml.Node]]
    ) -> None:
        """Add the keys of one more mapping. Each merge copies all of them: a file of 1 MB can ask for billions."""
        self._merged_count += len(more)
        _check_size(self._merged_count)
        for key, pair in more.items():
            merged.setdefault(key, pair)

    def _iter_merge_sources(self, node: yaml.Node, location: Location) -> Iterator[yaml.MappingNode]:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                yield source
            else:
                self._add_fault(source, location, "only mappings can be merged with <<")

    def _add_fault(self, node: yaml.Node, location: Location, message: str) -> object:
        """Record a fault and return None as the value. Raises Unreadable if there are too many."""
        line, column = _get_position(node)
        self._faults.append(PlacedFault(line=line, column=column, path=format_path(location), message=message))
        if len(self._faults) >= MOST_FAULTS:
            raise Unreadable(self._faults)
        return None


def _check_size(count: int) -> None:
    if count > MOST_VALUES:
        _raise_unreadable(1, 1, f"with its aliases expanded the file has more than {MOST_VALUES:,} values, the limit")


def _parse_number(tag: str, text: str) -> WrittenInt | WrittenFloat:
    plain = text.replace("_", "")
    number: WrittenInt | WrittenFloat
    if tag == _INT:
        number = WrittenInt(plain, 16 if "0x" in plain else 10)
    else:
        number = WrittenFloat(plain.lower().replace(".inf", "inf").replace(".nan", "nan"))
    number.text = text
    return number


def _compose_nodes(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        marks = (error.problem_mark, error.context_mark)
        if error.problem == "found unexpected end of stream":  # the open quote is the context
            marks = marks[::-1]
        line, column = next(((mark.line + 1, mark.column + 1) for mark in marks if mark), (1, 1))
        if conflict := _CONFLICT.search(text):
            _raise_unreadable(*_compute_position(text[: conflict.start()]), "a merge conflict begins here: resolve it")
        if (odd := _find_odd_space(text, line)) is not None:
            message = f"the indentation contains the character U+{ord(text[odd]):04X}: YAML allows only spaces there"
            _raise_unreadable(*_compute_position(text[:odd]), message)
        _raise_unreadable(line, column, _describe_problem(error, text, line))
    except yaml.YAMLError as error:
        _raise_unreadable(1, 1, f"invalid YAML: {format_value(str(error))}")
    except RecursionError:  # the pure-Python parser has no limit
        _raise_unreadable(1, 1, "invalid YAML: nested too deeply")


def _describe_problem(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    indentation = re.match(r"\s*", lines[line - 1])[0] if line <= len(lines) else ""  # type: ignore[index] # \s* matches
    if "\t" in indentation:
        return "the indentation contains a tab: YAML allows only spaces there"
    if error.context and "single document" in error.context:
        return "a second document (---) begins here: a config is one document"
    if error.problem and error.problem.startswith("found undefined alias"):
        # don't show its name: it may be a secret that begins with *
        return "invalid YAML: an alias (*) that no anchor (&) defines"
    said = f"invalid YAML: {error.problem}" + (f", {error.context}" if error.context else "")
    if "mapping values are not allowed" in said and any(map(_DASH_WITHOUT_SPACE.match, lines[max(line - 2, 0) : line])):
        return f"{said}: put a space after the dash"
    return said + next((f": {remedy}" for part, remedy in _REMEDIES if part in said), "")


def _find_odd_space(text: str, line: int) -> int | None:
    """Return the place of an odd space in the indentation of this line or of the one before, or None."""
    start = 0
    for number, each in enumerate(text.splitlines(keepends=True), 1):
        if number > line:
            break
        if number >= line - 1 and (odd := _ODD_SPACE.match(each)):
            return start + odd.start(1)
        start += len(each)
    return None


def _format_tag(node: yaml.Node) -> str:
    return format_value(str(node.tag).replace(_PREFIX, "!!"))


def _get_position(node: yaml.Node | None) -> tuple[int, int]:
    return (node.start_mark.line + 1, node.start_mark.column + 1) if node is not None else (1, 1)


def _compute_position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _raise_unreadable(line: int, column: int, message: str) -> NoReturn:
    raise Unreadable([PlacedFault(line=line, column=column, path="file", message=message)])
