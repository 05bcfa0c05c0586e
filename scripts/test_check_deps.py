#!/usr/bin/env python3
"""check-deps.py finds what it is there to find."""

import importlib.util
import unittest
from pathlib import Path

_spec = importlib.util.spec_from_file_location("check_deps", Path(__file__).with_name("check-deps.py"))
check = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check)

DIRECTORIES = {"bai-bin": "daemons/bai", "bai-bench": "benches"}


def edges(**crates):
    """edges(bai_store=["bai-core"]): the findings for these crates; a dependency is a name or a (name, kind)."""
    packages = {}
    for key, dependencies in crates.items():
        name = key.replace("_", "-")
        pairs = [d if isinstance(d, tuple) else (d, "normal") for d in dependencies]
        packages[name] = (DIRECTORIES.get(name, name), pairs)
    return list(check.check_edges(packages))


class Edges(unittest.TestCase):
    def test_down_is_fine(self):
        self.assertEqual(edges(bai_core=[], bai_store=["bai-core"], bai_cli=["bai-store"], bai_bin=["bai-cli"]), [])

    def test_up(self):
        (finding,) = edges(bai_core=["bai-store"], bai_store=[])
        self.assertIn("bai-core -> bai-store points up", finding)

    def test_a_test_may_not_look_up_either(self):
        self.assertEqual(len(edges(bai_store=[("bai", "dev")], bai=[])), 1)

    def test_the_services_do_not_know_each_other(self):
        (finding,) = edges(bai_manager_lib=["bai-agent-lib"], bai_agent_lib=[])
        self.assertIn("sideways", finding)

    def test_the_test_kit_is_for_tests(self):
        self.assertEqual(edges(bai_core=[("bai-testkit", "dev")], bai_testkit=["bai-core"]), [])
        self.assertEqual(len(edges(bai_core=["bai-testkit"], bai_testkit=["bai-core"])), 1)
        self.assertEqual(edges(bai_bench=["bai-testkit"], bai_testkit=["bai-core"]), [])
        self.assertEqual(len(edges(bai_testkit=["bai-store"], bai_store=[])), 1)

    def test_a_new_crate_needs_a_place(self):
        self.assertIn("has no layer", edges(bai_new=[])[0])

    def test_daemons_and_benches_have_their_place_by_directory(self):
        self.assertEqual(edges(bai_bin=[], bai_bench=["bai-bin"]), [])


class Manifests(unittest.TestCase):
    def findings(self, text):
        return list(check.check_manifest("x", check.tomllib.loads(text)))

    def test_the_root_alone_has_versions(self):
        self.assertEqual(self.findings("[dependencies]\na.workspace = true\nb = { workspace = true, optional = true }"), [])
        for entry in ('a = "1"', 'a = { version = "1" }', 'a = { workspace = true, features = ["x"] }', 'a = { path = "../a" }'):
            self.assertEqual(len(self.findings(f"[dev-dependencies]\n{entry}")), 1, entry)
            self.assertEqual(len(self.findings(f"[target.'cfg(unix)'.dependencies]\n{entry}")), 1, entry)


class Sizes(unittest.TestCase):
    def findings(self, path, lines):
        return list(check.check_sizes({Path(path): "x\n" * lines}))

    def test_limits(self):
        self.assertEqual(self.findings("bai/src/lib.rs", 800), [])
        self.assertEqual(len(self.findings("bai/src/lib.rs", 801)), 1)
        self.assertEqual(self.findings("daemons/bai/src/main.rs", 100), [])
        self.assertEqual(len(self.findings("daemons/bai/src/main.rs", 101)), 1)
        self.assertEqual(self.findings("daemons/bai-daemon/src/lib.rs", 101), [])

    def test_tests_do_not_count(self):
        code = "fn f() {}\n"
        self.assertEqual(check.shipped(Path("a/src/b.rs"), code + "#[cfg(test)]\nmod tests {\n    use x;\n}\n"), code)
        self.assertEqual(check.shipped(Path("a/src/b.rs"), "#[cfg(test)]\nmod tests;\n" + code), "#[cfg(test)]\nmod tests;\n" + code)
        self.assertEqual(check.shipped(Path("a/tests/it/b.rs"), code), "")


class Codes(unittest.TestCase):
    def test_codes_and_pages_match(self):
        sources = {Path("a.rs"): '"BAI-S001" "BAI-S002"'}
        self.assertEqual(list(check.check_codes(sources, {"BAI-S001", "BAI-S002"})), [])
        self.assertEqual(len(list(check.check_codes(sources, {"BAI-S001"}))), 1)
        self.assertEqual(len(list(check.check_codes(sources, {"BAI-S001", "BAI-S002", "BAI-S003"}))), 1)


if __name__ == "__main__":
    unittest.main()
