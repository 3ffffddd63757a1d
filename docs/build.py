# SPDX-License-Identifier: Apache-2.0
"""Writes the reference from the specs, so that it cannot tell anything else than the code does.

usage: docs/build.py [--check]

From roles/*/meta/{component,argument_specs}.yml, plugins/, stacks/, releases/ and artifacts/ it writes roles/*/README.md, docs/reference/,
the index docs/README.md and the plays of components in site.yml and playbooks/settings.yml. With ``--check`` it writes nothing and ends with 1
when one of these is missing, differs or is left over.
The same specs give the same bytes: no dates, no versions of tools, everything sorted.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.choice import in_order  # noqa: E402
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import LAYERS, Manifest  # noqa: E402

COLLECTION = "ashlar.stack"
PLUGIN_FOLDERS = {
    "modules": "module", "action": "action", "inventory": "inventory", "callback": "callback", "filter": "filter",
    "lookup": "lookup", "test": "test", "connection": "connection", "strategy": "strategy", "cache": "cache", "vars": "vars",
}  # fmt: skip
NOTICE = "<!-- Written by docs/build.py (`make docs`) from {source}. Change that, not this. -->"
REFERENCE = "docs/reference"
# A default longer than this gets lines of its own.
INLINE_LIMIT = 80


class DocsError(Exception):
    """What is wrong with a spec, where, and what to do, as a sentence for whoever runs this."""


# ---------------------------------------------------------------------------------------------------------------- what there is


@dataclass(frozen=True)
class Role:
    """One folder of roles/; ``manifest`` is empty for a role that is not a component."""

    name: str
    specs: Mapping[str, Any]
    manifest: Mapping[str, Any]
    objects: tuple[str, ...] = ()
    tasks: frozenset[str] = frozenset()

    @property
    def summary(self) -> str:
        return str(self.manifest.get("description") or self.specs.get("short_description") or "")

    @property
    def options(self) -> Mapping[str, Any]:
        return self.specs.get("options") or {}


@dataclass(frozen=True)
class Plugin:
    """One documented plugin; ``kind`` is ansible-doc's type."""

    kind: str
    name: str
    source: str
    documentation: Mapping[str, Any]
    examples: str
    returns: Mapping[str, Any]


@dataclass(frozen=True)
class Repository:
    """All that is documented, read once."""

    roles: Mapping[str, Role] = field(default_factory=dict)
    plugins: Sequence[Plugin] = ()
    slots: Mapping[str, Any] = field(default_factory=dict)
    stacks: Sequence[Mapping[str, Any]] = ()
    releases: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    guides: Sequence[tuple[str, str, str]] = ()
    decisions: Sequence[tuple[str, str, str]] = ()

    @cached_property
    def components(self) -> list[Role]:
        """Roles with a manifest, in the order of their plays."""
        manifests = {
            role.name: Manifest(role.name, role.summary, role.manifest["layer"], "", requires=tuple(role.manifest.get("requires", ())))
            for role in self.roles.values()
            if role.manifest
        }
        return [self.roles[name] for name in in_order(manifests, manifests)]


def load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise DocsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def read_roles(root: Path) -> dict[str, Role]:
    roles = {}
    for folder in sorted(path for path in (root / "roles").glob("*") if (path / "meta").is_dir()):
        specs_file, manifest_file = folder / "meta/argument_specs.yml", folder / "meta/component.yml"
        specs = load_yaml(specs_file).get("argument_specs", {}).get("main", {}) if specs_file.is_file() else {}
        manifest = load_yaml(manifest_file) if manifest_file.is_file() else {}
        if not specs and not manifest:
            continue
        if manifest and manifest.get("layer") not in LAYERS:
            raise DocsError(f"{manifest_file}: layer is {manifest.get('layer')!r}; allowed are {', '.join(LAYERS)}.")
        objects = tuple(str(path.relative_to(folder)) for name in ("objects", "workloads") for path in sorted((folder / name).glob("*.yml*")))
        tasks = frozenset(path.stem for path in (folder / "tasks").glob("*.yml"))
        roles[folder.name] = Role(folder.name, specs, manifest, objects, tasks)
    return roles


def string_constants(path: Path) -> dict[str, str]:
    """The texts that a Python file assigns to names in capitals, at its top level or a class's; nothing of it is run."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise DocsError(f"{path}:{error.lineno}: not Python: {error.msg}") from None
    found: dict[str, str] = {}
    inner = [part for node in tree.body if isinstance(node, ast.ClassDef) for part in node.body]
    for node in [*inner, *tree.body]:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found.update({target.id: value.value for target in targets if isinstance(target, ast.Name) and target.id.isupper()})
    return found


def parse_section(path: Path, section: str, text: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise DocsError(f"{path}: {section} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise DocsError(f"{path}: {section} is not a dictionary.")
    return data


def with_fragments(root: Path, documentation: dict[str, Any]) -> dict[str, Any]:
    """The options of the collection's own fragments stand among the plugin's; the fragments of others are left to be named."""
    fragments = names(documentation.get("extends_documentation_fragment"))
    own = [name for name in fragments if name.startswith(f"{COLLECTION}.")]
    options = dict(documentation.get("options") or {})
    for name in own:
        path = root / "plugins/doc_fragments" / f"{name.removeprefix(COLLECTION + '.')}.py"
        options |= parse_section(path, "DOCUMENTATION", string_constants(path)["DOCUMENTATION"])["options"]
    return {**documentation, "options": options, "extends_documentation_fragment": [name for name in fragments if name not in own]}


def read_plugins(root: Path) -> list[Plugin]:
    plugins = []
    for folder, kind in PLUGIN_FOLDERS.items():
        for path in sorted((root / "plugins" / folder).glob("*.py")):
            # The module of the same name tells of an action plugin, as ansible-doc has it.
            if path.name.startswith("_") or (kind == "action" and (root / "plugins/modules" / path.name).is_file()):
                continue
            source = f"plugins/{folder}/{path.name}"
            texts = string_constants(path)
            if "DOCUMENTATION" not in texts:
                what = f"nor is there plugins/modules/{path.name}, which would have it" if kind == "action" else "which every plugin has"
                raise DocsError(f"{source}: has no DOCUMENTATION, {what}.")
            documentation = with_fragments(root, parse_section(path, "DOCUMENTATION", texts["DOCUMENTATION"]))
            returns = parse_section(path, "RETURN", texts.get("RETURN", ""))
            plugins.append(Plugin(kind, path.stem, source, documentation, texts.get("EXAMPLES", "").strip(), returns))
    return sorted(plugins, key=lambda plugin: (plugin.kind, plugin.name))


def read_titles(root: Path, pattern: str) -> list[tuple[str, str, str]]:
    """(path below docs/, title, first sentence) of hand-written pages."""
    pages = []
    for path in sorted((root / "docs").glob(pattern)):
        if path.name == "README.md":
            continue
        blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")) if block.strip()]
        if not blocks or not blocks[0].startswith("# "):
            raise DocsError(f"{path}: does not begin with a title ('# ...').")
        # A title may be followed by its text without an empty line.
        title = path.read_text(encoding="utf-8").strip().splitlines()[0].removeprefix("# ").strip()
        text = blocks[0].removeprefix(f"# {title}").strip() or next(
            (block for block in blocks[1:] if not block.startswith(("#", "```", "|"))), ""
        )
        sentence = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0].rstrip(":")
        pages.append((path.relative_to(root / "docs").as_posix(), title, sentence))
    return pages


def read_repository(root: Path) -> Repository:
    slots_file = root / "stacks/slots.yml"
    stacks = [load_yaml(path) for path in sorted((root / "stacks").glob("*.yml"))]
    return Repository(
        roles=read_roles(root),
        plugins=read_plugins(root),
        slots=load_yaml(slots_file) if slots_file.is_file() else {},
        stacks=[stack for stack in stacks if isinstance(stack.get("slots"), dict) and "name" in stack],
        releases={path.stem: load_yaml(path) for path in sorted((root / "releases").glob("*.yml"))},
        artifacts={path.parent.name: load_yaml(path) for path in sorted((root / "artifacts").glob("*/artifact.yml"))},
        guides=read_titles(root, "*.md"),
        decisions=read_titles(root, "decisions/*.md"),
    )


# ---------------------------------------------------------------------------------------------------------------- text


def relative(target: str, page: str) -> str:
    """The link from one file of the repository to another."""
    here, there = PurePosixPath(page).parent.parts, PurePosixPath(target).parts
    common = 0
    while common < min(len(here), len(there) - 1) and here[common] == there[common]:
        common += 1
    return "/".join([*[".."] * (len(here) - common), *there[common:]])


def code(text: str) -> str:
    """A code span, whatever backticks the text has."""
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}"


_MARKUP = re.compile(r"\b(RV|[CVOIBMPLURE])\(((?:\\.|\{[^{}]*\}|[^\\)])*)\)")


def prose(text: str, page: str, known: Iterable[str] = ()) -> str:
    """Ansible's markup (https://docs.ansible.com/ansible/latest/dev_guide/ansible_markup.html) as Markdown.

    ``page`` is where the text will stand, ``known`` the pages that a name of this collection may be linked to.
    """
    pages = set(known)

    def plugin_link(name: str, kind: str) -> str:
        short = name.removeprefix(COLLECTION + ".")
        target = f"{REFERENCE}/plugins/{kind}_{short}.md"
        return f"[{code(name)}]({relative(target, page)})" if short != name and target in pages else code(name)

    def replace(match: re.Match[str]) -> str:
        kind, inner = match[1], re.sub(r"\\(.)", r"\1", match[2])
        if kind == "I":
            return f"*{inner}*"
        if kind == "B":
            return f"**{inner}**"
        if kind == "U":
            return f"<{inner}>"
        if kind in "LR":
            label, _, target = inner.rpartition(",")
            return f"[{label.strip()}]({target.strip()})" if kind == "L" else label.strip()
        if kind == "M":
            return plugin_link(inner, "module")
        if kind == "P":
            name, _, plugin_kind = inner.partition("#")
            return plugin_link(name, plugin_kind)
        if kind in ("O", "RV") and re.match(r"[\w.]+#\w+:", inner):
            name, _, rest = inner.partition("#")
            return f"{code(rest.partition(':')[2])} of {code(name)}"
        return code(inner)

    return _MARKUP.sub(replace, " ".join(str(text).split())).replace("HORIZONTALLINE", "")


def paragraphs(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)] if value else []


def literal(value: Any) -> str:
    """A value as one would write it in YAML on one line."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [list(header), ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell(value) for value in line) + " |" for line in lines] + [""]


def names(values: Any) -> list[str]:
    return [values] if isinstance(values, str) else [str(value) for value in values or []]


def codes(values: Any) -> str:
    return ", ".join(code(name) for name in names(values))


def option_lines(
    name: str, option: Mapping[str, Any], page: str, known: Sequence[str], limit: Mapping[str, Any] | None = None, indent: str = ""
) -> Iterator[str]:
    """One option as an item of a list, with its suboptions below."""
    kind = str(option.get("type", "str"))
    if option.get("elements"):
        kind += f" of {option['elements']}"
    facts = [kind]
    if option.get("required"):
        facts.append("required")
    default = option.get("default")
    short = literal(default)
    if default is not None and len(short) <= INLINE_LIMIT:
        facts.append(f"default {code(short)}")
    if option.get("choices"):
        choices = option["choices"]
        facts.append("one of " + codes([literal(choice) for choice in choices]))
    for least, words in (("minimum", "at least"), ("maximum", "at most"), ("pattern", "matching")):
        if limit and least in limit:
            facts.append(f"{words} {code(literal(limit[least]))}")
    if limit and "unique" in limit:
        facts.append(f"each {codes(limit['unique'])} once")
    text = " ".join(prose(part, page, known) for part in paragraphs(option.get("description")))
    yield f"{indent}- **{code(name)}** ({', '.join(facts)}): {text}".rstrip()
    inner = indent + "  "
    if isinstance(option.get("choices"), Mapping):
        for choice, meaning in option["choices"].items():
            yield f"{inner}- {code(literal(choice))}: {' '.join(prose(part, page, known) for part in paragraphs(meaning))}"
    for source, words in (("env", "environment variable"), ("vars", "variable"), ("ini", "in ansible.cfg")):
        given = [
            f"[{entry.get('section')}] {entry.get('key')}" if source == "ini" else str(entry.get("name"))
            for entry in option.get(source) or []
        ]
        if given:
            yield f"{inner}- {words}: {codes(given)}"
    if default is not None and len(short) > INLINE_LIMIT:
        yield f"{inner}- default:"
        yield ""
        yield f"{inner}  ```yaml"
        dumped = yaml.safe_dump(default, sort_keys=False, width=120, allow_unicode=True, default_flow_style=False)
        yield from (f"{inner}  {line}" for line in dumped.rstrip().splitlines())
        yield f"{inner}  ```"
        yield ""
    for sub, spec in (option.get("suboptions") or option.get("options") or option.get("contains") or {}).items():
        yield from option_lines(str(sub), spec, page, known, ((limit or {}).get("each") or {}).get(sub), inner)


def document(title: str, source: str, lines: Iterable[str]) -> str:
    text = "\n".join([f"# {title}", "", NOTICE.format(source=source), "", *lines])
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


# ---------------------------------------------------------------------------------------------------------------- pages


def nodes_of(manifest: Mapping[str, Any]) -> str:
    """Where a component runs, in words."""
    nodes = manifest.get("nodes") or {}
    chosen, count = nodes.get("class", "all"), nodes.get("count", "any")
    where = "nodes" if chosen == "all" else f"{chosen} nodes"
    if isinstance(count, Mapping):
        return f"the first {count['max']} {where}"
    return {"odd": f"all {where}, an odd number", "one": f"the first of the {where}"}.get(str(count), f"all {where}")


def port_rows(role: Role) -> list[list[str]]:
    return [
        [
            code(str(port["name"])),
            f"{option(port['port'])}/{port.get('protocol', 'tcp')}",
            option(port["from"]) if isinstance(port["from"], str) else codes(port["from"]),
        ]
        for port in role.manifest.get("ports") or []
    ]


def certificate_rows(role: Role) -> list[list[str]]:
    rows = []
    for certificate in role.manifest.get("certificates") or []:
        kind = certificate.get("kind", "certificate")
        what = {"keypair": "an RSA key pair, the same on all its nodes", "signer": "the authority itself, key included"}.get(kind)
        rows.append(
            [
                code(str(certificate["name"])),
                code(str(certificate["authority"])) if certificate.get("authority") else "",
                what or " and ".join(certificate.get("usages") or []),
                code(str(certificate.get("common_name") or certificate["name"])) if not what else "",
                code(str(certificate.get("owner", "root"))),
            ]
        )
    return rows


def check_of(check: Mapping[str, Any]) -> str:
    for kind in ("unit", "tcp", "url"):
        if kind in check:
            return code(str(check[kind]))
    return code(" ".join(str(part) for part in check.get("command") or []))


def role_page(role: Role, known: Sequence[str]) -> str:
    page = f"roles/{role.name}/README.md"
    manifest = role.manifest
    lines = [prose(role.summary, page, known), ""]
    for part in paragraphs(role.specs.get("description")):
        lines += [prose(part, page, known), ""]
    if manifest:
        facts = [
            ("Fills", codes(manifest.get("fills")) or "no slot: part of every site"),
            ("Layer", str(manifest["layer"])),
            ("Runs on", nodes_of(manifest)),
            ("Requires", codes(manifest.get("requires"))),
            ("Conflicts with", codes(manifest.get("conflicts"))),
            ("Installs", codes(manifest.get("artifacts"))),
            ("Trusts the authorities", codes(manifest.get("authorities"))),
            ("Objects of Kubernetes", ", ".join(f"[{code(name.rpartition('/')[2])}]({name})" for name in role.objects)),
        ]
        lines += [f"- {label}: {text}" for label, text in facts if text] + [""]
        if manifest.get("ports"):
            lines += ["## Ports", "", *table(["port", "number", "open to"], port_rows(role))]
        if manifest.get("certificates"):
            header = ["name", "authority", "usage", "common name", "owner of the key"]
            lines += ["## Certificates", "", f"In `/etc/ashlar/pki/{role.name}/`.", "", *table(header, certificate_rows(role))]
        for part, title in (("health", "Health"), ("warnings", "Warnings")):
            if manifest.get(part):
                rows = [
                    [
                        str(check["name"]),
                        check_of(check),
                        str(check.get("remedy") or (f"`journalctl -u {check['log_unit']}`" if "log_unit" in check else "")),
                    ]
                    for check in manifest[part]
                ]
                lines += [f"## {title}", "", *table(["what is true when it is well", "asked", "when it is not"], rows)]
        if manifest.get("failures"):
            rows = [[code(failure["log"]), str(failure["cause"]), str(failure["remedy"])] for failure in manifest["failures"]]
            lines += ["## Known failures", "", *table(["in its log", "cause", "what to do"], rows)]
    if role.options:
        lines += ["## Options", ""]
        if manifest:
            first, spec = next(iter(role.options.items()))
            example = yaml.safe_dump({"options": {role.name: {first: spec.get("default")}}}, sort_keys=False, width=120, allow_unicode=True)
            lines += ["In the site file, `20-stack.yml`:", "", "```yaml", example.rstrip(), "```", ""]
        limits = manifest.get("limits") or {}
        for name, spec in role.options.items():
            lines += option_lines(name, spec, page, known, limits.get(name))
    source = " and ".join(f"meta/{name}.yml" for name, there in (("component", manifest), ("argument_specs", role.specs)) if there)
    return document(role.name, source, lines)


def components_page(repository: Repository) -> str:
    page = f"{REFERENCE}/components.md"

    def link(role: Role) -> str:
        return f"[{role.name}]({relative(f'roles/{role.name}/README.md', page)})"

    roles = repository.components
    rows = [
        [
            link(role),
            str(role.manifest["layer"]),
            codes(role.manifest.get("fills")) or "(every site)",
            nodes_of(role.manifest),
            codes(role.manifest.get("artifacts")),
            role.summary,
        ]
        for role in roles
    ]
    lines = [
        "Every component, in the order of layers.",
        "",
        *table(["component", "layer", "fills", "runs on", "installs", "what it is"], rows),
    ]
    lines += [
        "## Ports",
        "",
        "The firewall opens these and SSH; nothing else.",
        "",
    ]
    lines += table(["component", "port", "number", "open to"], [[link(role), *row] for role in roles for row in port_rows(role)])
    lines += ["## Certificates", "", "Issued on the controller and laid down in `/etc/ashlar/pki/<component>/`.", ""]
    header = ["component", "name", "authority", "usage", "common name", "owner of the key"]
    lines += table(header, [[link(role), *row] for role in roles for row in certificate_rows(role)])
    return document("Components", "roles/*/meta/component.yml", lines)


def variables_page(repository: Repository, known: Sequence[str]) -> str:
    page = f"{REFERENCE}/variables.md"
    lines = ["What a site may set, as `options: {<component>: {<variable>: ...}}` in its site file. Each component's page says more.", ""]
    others = [role for role in repository.roles.values() if not role.manifest]
    for role in [*repository.components, *others]:
        if not role.options:
            continue
        lines += [f"## [{role.name}]({relative(f'roles/{role.name}/README.md', page)})", ""]
        rows = []
        for name, option in role.options.items():
            text = " ".join(prose(part, page, known) for part in paragraphs(option.get("description")))
            short = literal(option.get("default"))
            default = (
                "required"
                if option.get("required")
                else ""
                if option.get("default") is None
                else code(short)
                if len(short) <= INLINE_LIMIT
                else "(long)"
            )
            rows.append([code(name), str(option.get("type", "str")), default, text])
        lines += table(["variable", "type", "default", "what it is"], rows)
    return document("Variables", "roles/*/meta/argument_specs.yml", lines)


def plugin_page(plugin: Plugin, known: Sequence[str]) -> str:
    page = f"{REFERENCE}/plugins/{plugin.kind}_{plugin.name}.md"
    documentation = plugin.documentation
    lines = [prose(str(documentation.get("short_description", "")).rstrip(".") + ".", page, known), ""]
    for part in paragraphs(documentation.get("description")):
        lines += [prose(part, page, known), ""]
    requirements = paragraphs(documentation.get("requirements"))
    if requirements:
        lines += ["Needs " + ", ".join(prose(part, page, known) for part in requirements) + ".", ""]
    if documentation.get("options"):
        lines += ["## Options", ""]
        for name, option in documentation["options"].items():
            lines += option_lines(str(name), option, page, known)
        lines.append("")
    fragments = names(documentation.get("extends_documentation_fragment"))
    if fragments:
        lines += [f"Besides, the options of {codes(fragments)}.", ""]
    attributes = documentation.get("attributes") or {}
    if attributes:
        rows = [
            [
                code(str(name)),
                str(entry.get("support", "")),
                " ".join(prose(part, page, known) for part in paragraphs(entry.get("description"))),
            ]
            for name, entry in attributes.items()
        ]
        lines += ["## Attributes", "", *table(["attribute", "support", "what it means here"], rows)]
    if documentation.get("notes"):
        lines += ["## Notes", "", *[f"- {prose(part, page, known)}" for part in paragraphs(documentation["notes"])], ""]
    if plugin.examples:
        lines += ["## Examples", "", "```yaml", plugin.examples, "```", ""]
    if plugin.returns:
        lines += ["## Returns", ""]
        for name, value in plugin.returns.items():
            lines += return_lines(str(name), value, page, known)
    see = [str(entry.get("module") or entry.get("plugin")) for entry in documentation.get("seealso") or [] if isinstance(entry, Mapping)]
    if see := [name for name in see if name != "None"]:
        lines += ["", "See also: " + ", ".join(prose(f"M({name})", page, known) for name in see) + "."]
    return document(f"{COLLECTION}.{plugin.name} ({plugin.kind})", plugin.source, lines)


def return_lines(name: str, value: Mapping[str, Any], page: str, known: Sequence[str], indent: str = "") -> Iterator[str]:
    facts = [str(value.get("type", "str")) + (f" of {value['elements']}" if value.get("elements") else "")]
    if value.get("returned"):
        facts.append(f"returned {value['returned']}")
    text = " ".join(prose(part, page, known) for part in paragraphs(value.get("description")))
    sample = (
        f" For example {code(literal(value['sample']))}." if "sample" in value and len(literal(value["sample"])) <= 2 * INLINE_LIMIT else ""
    )
    yield f"{indent}- **{code(name)}** ({', '.join(facts)}): {text}{sample}"
    for sub, inner in (value.get("contains") or {}).items():
        yield from return_lines(str(sub), inner, page, known, indent + "  ")


def stacks_page(repository: Repository) -> str:
    page = f"{REFERENCE}/stacks.md"
    installable = {role.name for role in repository.components}

    def chosen(values: Any) -> str:
        return ", ".join(
            f"[{name}]({relative(f'roles/{name}/README.md', page)})" if name in installable else f"*{name} (planned)*"
            for name in names(values)
        )

    lines = [
        "A stack chooses components for slots. What is *(planned)* is not there yet: a site that needs it is refused with one clear error.",
        "",
    ]
    if repository.slots:
        rows = [
            [code(name), str(slot.get("description", "")), "one" if slot.get("single") else "several", str(slot.get("needed", ""))]
            for name, slot in repository.slots.items()
        ]
        lines += ["## Slots", "", *table(["slot", "the job", "components", "must be filled"], rows)]
    for stack in repository.stacks:
        used = {name for values in stack["slots"].values() for name in names(values)}
        missing = sorted(used - installable)
        lines += [f"## {stack['name']}", "", str(stack.get("description", "")), ""]
        lines += [
            f"Not installable yet: {len(missing)} of its {len(used)} components are missing." if missing else "Installable today.",
            "",
        ]
        later, instead = stack.get("planned") or {}, stack.get("alternatives") or {}
        slots = list(dict.fromkeys([*stack["slots"], *later, *instead]))
        rows = [[code(slot), chosen(stack["slots"].get(slot)), chosen(later.get(slot)), chosen(instead.get(slot))] for slot in slots]
        lines += table(["slot", "component", "to come", "a site may choose instead"], rows)
    return document("Stacks", "stacks/*.yml", lines)


def releases_page(repository: Repository) -> str:
    lines = ["A release is the versions that were proven together. A site names one (`release:`), and upgrading is naming the next.", ""]
    for name, release in sorted(repository.releases.items(), reverse=True):
        lines += [f"## {name}", ""]
        if release.get("description"):
            lines += [str(release["description"]), ""]
        rows = []
        for artifact, version in sorted((release.get("versions") or {}).items()):
            about = repository.artifacts.get(artifact) or {}
            users = [role.name for role in repository.components if artifact in names(role.manifest.get("artifacts"))]
            rows.append([code(artifact), str(version), str(about.get("description", "")), ", ".join(users)])
        lines += table(["artifact", "version", "what it is", "used by"], rows)
    own = []
    for artifact, about in sorted(repository.artifacts.items()):
        if about.get("program"):
            users = [role.name for role in repository.components if artifact in names(role.manifest.get("artifacts"))]
            own.append([code(artifact), str(about.get("description", "")), ", ".join(users)])
    if own:
        lines += ["## Our own programs", "", "Their source is in `programs/`, and their version is a digest of it: no release names one.", ""]
        lines += table(["artifact", "what it is", "used by"], own)
    return document("Releases", "releases/*.yml and artifacts/*/artifact.yml", lines)


def reference_index(repository: Repository, pages: Mapping[str, str]) -> str:
    page = f"{REFERENCE}/README.md"
    lines = []
    for name, text in (
        ("components", "every component: slot, layer, nodes, ports, certificates"),
        ("variables", "every variable a site may set"),
        ("stacks", "the stacks, their slots, and what is planned"),
        ("releases", "versions proven together"),
    ):
        if f"{REFERENCE}/{name}.md" in pages:
            lines.append(f"- [{name.capitalize()}]({name}.md): {text}")
    lines += ["", "## Roles", ""]
    for role in [*repository.components, *(role for role in repository.roles.values() if not role.manifest)]:
        lines.append(f"- [{role.name}]({relative(f'roles/{role.name}/README.md', page)}): {prose(role.summary, page)}")
    lines += ["", "## Plugins", ""]
    for plugin in repository.plugins:
        summary = prose(str(plugin.documentation.get("short_description", "")), page, pages)
        lines.append(f"- [{COLLECTION}.{plugin.name}](plugins/{plugin.kind}_{plugin.name}.md) ({plugin.kind}): {summary}")
    return document("Reference", "the specs of roles and plugins", lines)


def index(repository: Repository) -> str:
    lines = ["Start with the [README](../README.md); who changes Ashlar reads [CONTRIBUTING](../CONTRIBUTING.md).", "", "## Guides", ""]
    lines += [f"- [{title}]({path}): {sentence}" for path, title, sentence in repository.guides]
    lines += ["- [Reference](reference/README.md): components, variables, stacks, releases and plugins, written from the code.", ""]
    if repository.decisions:
        lines += ["## Decisions", "", "Why things are as they are, ten lines each.", ""]
        lines += [f"- [{title}]({path})" for path, title, _ in repository.decisions]
    return document("Documentation", "the titles of docs/", lines)


PLAYBOOKS = ("site.yml", "playbooks/settings.yml")
SECTION = re.compile(r"(?P<begin># >>> (?P<name>\w+)[^\n]*\n)(?P<plays>.*?)(?P<end># <<< (?P=name)\n)", re.DOTALL)
"""What a playbook has between two comments is written from the manifests."""


def playbook(repository: Repository, text: str) -> str:
    """A playbook with its sections filled in: the plays ``at`` settings, those of components by layer, or those at ``ready``."""

    def plays(name: str) -> Iterator[str]:
        for place in LAYERS[1:] if name == "components" else [name]:
            for role in repository.components:
                yield from (play(repository, role, further) for further in role.manifest.get("plays", ()) if further.get("at") == place)
            for role in repository.components:
                if role.manifest["layer"] == place:
                    yield from own(role)

    def own(role: Role) -> Iterator[str]:
        if "main" in role.tasks:
            yield play(repository, role)
        yield from (play(repository, role, further) for further in role.manifest.get("plays", ()) if "at" not in further)

    return SECTION.sub(lambda match: match["begin"] + "\n" + "\n".join(plays(match["name"])) + "\n" + match["end"], text)


def play(repository: Repository, role: Role, further: Mapping[str, Any] | None = None) -> str:
    """One play: the role's own, or one of the ``further`` ones of its manifest."""
    layer = role.manifest["layer"]
    if further is None:
        comment, name, tasks = "", role.name, ""
        served: list[Role] = []
    else:
        comment, name, tasks = f"# {further['description']}\n", f"{role.name} {further['tasks']}", f"tasks_from: {further['tasks']}, "
        served = [other for other in repository.components if any(serves(role, kind, other) for kind in further.get("serves", ()))]
        if further["tasks"] not in role.tasks:
            raise DocsError(f"roles/{role.name}/meta/component.yml: plays names tasks/{further['tasks']}.yml, which is not there.")
    tags = dict.fromkeys(tag for each in (role, *served) for tag in (each.manifest["layer"], each.name))
    lines = [
        f"{comment}- name: {layer} | {name}",
        f"  hosts: {role.name}",
        "  gather_facts: false",
        *wrapped("  tags: [", tags),
        "  tasks:",
        f"    - name: {name.replace('_', ' ').capitalize()}",
        f"      ansible.builtin.import_role: {{name: {COLLECTION}.{role.name}, {tasks}rolespec_validate: false}}",
        "",
    ]
    return "\n".join(lines)


def option(value: Any) -> str:
    """A value of a manifest, or the name of the option that has it."""
    return code(value.strip("{} ")) if isinstance(value, str) and value.startswith("{{") else str(value)


def serves(role: Role, kind: str, other: Role) -> bool:
    """Whether a component is one that a play is for: by name, by what it contributes, or by a folder of its role."""
    return kind == other.name or kind in other.manifest.get("contributes", {}).get(role.name, {}) or any(path.startswith(f"{kind}/") for path in other.objects)


def wrapped(begin: str, words: Iterable[str], width: int = 140) -> list[str]:
    """A list of YAML in brackets, on as many lines as it takes."""
    lines, line = [], begin
    for word in words:
        if len(line) + len(word) > width:
            lines.append(line.rstrip())
            line = " " * len(begin)
        line += f"{word}, "
    return [*lines, line.rstrip(", ") + "]"]


def build(root: Path) -> dict[str, str]:
    """Every generated file: path below ``root`` -> text. Raises DocsError."""
    repository = read_repository(root)
    plugin_paths = [f"{REFERENCE}/plugins/{plugin.kind}_{plugin.name}.md" for plugin in repository.plugins]
    pages: dict[str, str] = {}
    for role in repository.roles.values():
        pages[f"roles/{role.name}/README.md"] = role_page(role, plugin_paths)
    for path, plugin in zip(plugin_paths, repository.plugins, strict=True):
        pages[path] = plugin_page(plugin, plugin_paths)
    pages[f"{REFERENCE}/components.md"] = components_page(repository)
    pages[f"{REFERENCE}/variables.md"] = variables_page(repository, plugin_paths)
    if repository.stacks:
        pages[f"{REFERENCE}/stacks.md"] = stacks_page(repository)
    if repository.releases:
        pages[f"{REFERENCE}/releases.md"] = releases_page(repository)
    pages[f"{REFERENCE}/README.md"] = reference_index(repository, pages)
    pages["docs/README.md"] = index(repository)
    for path in PLAYBOOKS:
        if (root / path).is_file():
            pages[path] = playbook(repository, (root / path).read_text(encoding="utf-8"))
    return dict(sorted(pages.items()))


# ---------------------------------------------------------------------------------------------------------------- effects


def stale(root: Path, pages: Mapping[str, str]) -> list[str]:
    """Why files are not what `build` gives, a line each; empty when all is current."""
    reasons = []
    for path, text in pages.items():
        file = root / path
        if not file.is_file():
            reasons.append(f"{path} is missing")
        elif file.read_text(encoding="utf-8") != text:
            reasons.append(f"{path} differs from its specs")
    return reasons + [f"{path} documents what is no longer there" for path in leftovers(root, pages)]


def leftovers(root: Path, pages: Mapping[str, str]) -> list[str]:
    found = (path.relative_to(root).as_posix() for path in (root / REFERENCE).rglob("*.md"))
    return sorted(path for path in found if path not in pages)


def write(root: Path, pages: Mapping[str, str]) -> int:
    """Writes what differs and removes what is left over; how many files that were."""
    count = 0
    for path, text in pages.items():
        file = root / path
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        count += 1
    for path in leftovers(root, pages):
        (root / path).unlink()
        count += 1
    return count


def main(arguments: Sequence[str] | None = None, say: Callable[[str], object] = print) -> int:
    parser = argparse.ArgumentParser(description="Writes the reference from the specs.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a generated file is not current")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args(arguments)
    try:
        pages = build(options.root)
    except DocsError as error:
        say(f"docs: {error}")
        return 1
    if not options.check:
        say(f"docs: {len(pages)} pages, {write(options.root, pages)} of them new, changed or removed")
        return 0
    reasons = stale(options.root, pages)
    for reason in reasons:
        say(f"docs: {reason}")
    if reasons:
        say("docs: run `make docs` and commit what it writes.")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
