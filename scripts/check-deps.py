#!/usr/bin/env python3
"""Checks what the compiler does not: the shape of the workspace (ARCHITECTURE.md, "Workspace").

1. Dependencies point down: every edge between crates of the workspace ends in a lower layer.
2. Third-party versions and features stand only in the root Cargo.toml.
3. A daemon has at most 100 lines under src.
4. No source file is longer than 800 lines; tests do not count.
5. Every error code in the source has its page in docs/errors, and every page its code.

Exit code 1 and one line per finding when something is wrong.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

# From the bottom up. A crate may depend on crates of lower rows only, never on its own row.
LAYERS = [
    ["bai-core"],
    ["bai-kernel-lib"],
    ["bai-krunner-bin"],
    ["bai-scheduler", "bai-store", "bai-coord", "bai-client", "bai-rpc"],
    ["bai-manager-lib", "bai-agent-lib", "bai-storage-lib", "bai-proxy-lib", "bai-web-lib"],
    ["bai"],
    ["bai-daemon"],
    ["bai-cli"],
    ["daemons/*"],
    ["examples", "benches", "bindings/*"],
]
# The test kit stands beside the layers: anyone may test with it, nobody may ship it. The benches are not shipped.
TESTKIT = "bai-testkit"
TESTKIT_MAY_USE = {"bai-core"}

DAEMON_LINES = 100
FILE_LINES = 800
CODE = re.compile(r"\bBAI-[A-Z]+\d{3}\b")
TEST_MODULE = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[.*\]\n)*mod \w+ \{", re.MULTILINE)


def layer_of(name, directory):
    """The layer's number, or None for a crate that has no place yet. Crates are placed by name, else by directory."""
    top, _, rest = directory.partition("/")
    for key in (name, directory, f"{top}/*" if rest else top):
        for number, row in enumerate(LAYERS):
            if key in row:
                return number
    return None


def check_edges(packages):
    """packages: {name: (directory, [(dependency, kind)])}, members of the workspace only."""
    layers = {name: layer_of(name, directory) for name, (directory, _) in packages.items()}
    for name, (directory, dependencies) in sorted(packages.items()):
        if name == TESTKIT:
            for other, _ in dependencies:
                if other not in TESTKIT_MAY_USE:
                    yield f"{directory}: {TESTKIT} may depend on {', '.join(TESTKIT_MAY_USE)} only, not on {other}"
            continue
        if layers[name] is None:
            yield f"{directory}: {name} has no layer: add it to LAYERS in scripts/check-deps.py"
            continue
        for other, kind in dependencies:
            if other == TESTKIT:
                if kind != "dev" and directory != "benches":
                    yield f"{directory}: {name} -> {TESTKIT} must be a dev-dependency"
            elif layers.get(other) is not None and layers[other] >= layers[name]:
                direction = "sideways" if layers[other] == layers[name] else "up"
                yield f"{directory}: {name} -> {other} points {direction}; dependencies point down only"


def check_manifest(directory, manifest):
    """A member's manifest says `x.workspace = true` and nothing more, but for `optional`; which features of our own crates it needs is its own
    business."""
    tables = [(section, manifest.get(section, {})) for section in ("dependencies", "dev-dependencies", "build-dependencies")]
    for target, table in manifest.get("target", {}).items():
        tables += [(f"target.{target}.{section}", entries) for section, entries in table.items()]
    for section, entries in tables:
        for dependency, entry in entries.items():
            keys = set(entry) if isinstance(entry, dict) else {"version"}
            allowed = {"workspace", "optional"} | ({"features"} if dependency.split("-")[0] == "bai" else set())
            if keys - allowed or "workspace" not in keys:
                yield (
                    f"{directory}/Cargo.toml: [{section}] {dependency}: write `{dependency}.workspace = true`; "
                    "versions and features stand in the root Cargo.toml"
                )


def shipped(path, text):
    """The part of a source file that is not test code: nothing of a test file, all before a trailing test module."""
    if "tests" in path.parts or path.stem == "tests":
        return ""
    found = TEST_MODULE.search(text)
    return text[: found.start()] if found else text


def check_sizes(sources):
    """sources: {relative path: text without tests}"""
    daemons = {}
    for path, text in sorted(sources.items()):
        lines = text.count("\n")
        if lines > FILE_LINES:
            yield f"{path}: {lines} lines without tests, at most {FILE_LINES}: split it by concept"
        if path.parts[0] == "daemons" and path.parts[1] != "bai-daemon" and path.parts[2] == "src":
            daemons[path.parts[1]] = daemons.get(path.parts[1], 0) + lines
    for name, lines in sorted(daemons.items()):
        if lines > DAEMON_LINES:
            yield f"daemons/{name}/src: {lines} lines, at most {DAEMON_LINES}: move the logic into a library"


def check_codes(sources, pages):
    """pages: the codes that have a page."""
    used = {}
    for path, text in sorted(sources.items()):
        for code in CODE.findall(text):
            used.setdefault(code, path)
    for code in sorted(used.keys() - pages):
        yield f"{used[code]}: {code} has no page docs/errors/{code}.md"
    for code in sorted(pages - used.keys()):
        yield f"docs/errors/{code}.md: no source file uses {code}"


def load_packages(root):
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    result = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"check-deps: cargo metadata failed:\n{result.stderr}")
    metadata = json.loads(result.stdout)["packages"]
    members = {package["name"] for package in metadata}
    return {
        package["name"]: (
            Path(package["manifest_path"]).parent.relative_to(root).as_posix(),
            [(d["name"], d["kind"] or "normal") for d in package["dependencies"] if d["name"] in members],
        )
        for package in metadata
    }


def load_sources(root, packages):
    sources = {}
    for directory, _ in packages.values():
        for file in (root / directory).rglob("*.rs"):
            path = file.relative_to(root)
            if "target" not in path.parts:
                sources[path] = shipped(path, file.read_text(encoding="utf-8"))
    return sources


def main():
    root = Path(__file__).resolve().parent.parent
    packages = load_packages(root)
    sources = load_sources(root, packages)
    findings = list(check_edges(packages))
    for directory, _ in packages.values():
        findings += check_manifest(directory, tomllib.loads((root / directory / "Cargo.toml").read_text(encoding="utf-8")))
    findings += check_sizes(sources)
    findings += check_codes(sources, {page.stem for page in (root / "docs/errors").glob("BAI-*.md")})
    for finding in findings:
        print(f"check-deps: {finding}", file=sys.stderr)
    if findings:
        sys.exit(1)
    print(f"check-deps: {len(packages)} crates, {len(sources)} source files: fine")


if __name__ == "__main__":
    main()
