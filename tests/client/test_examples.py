"""The examples, run as their documentation says."""

import os
import pathlib
import subprocess

from conftest import bai_binary

SHOWN = """\
the total is 45
hello from a file, reader
exit code 0
"""


def embed(tmp_path, environ: dict[str, str], *args: str) -> subprocess.CompletedProcess:
    """Runs the example: BAI_TEST_BIN_DIR has it, else the directory of the command."""
    program = pathlib.Path(os.environ.get("BAI_TEST_BIN_DIR", bai_binary().parent)) / "embed"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BACKEND_")}
    return subprocess.run([program, *args], cwd=tmp_path, env=clean | environ, capture_output=True, text=True, timeout=120)


def test_embedded(tmp_path):
    done = embed(tmp_path, {"HOME": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, SHOWN), done.stderr


def test_the_same_on_a_server(server, tmp_path):
    done = embed(tmp_path, server.environ(), "server")
    assert (done.returncode, done.stdout) == (0, SHOWN), done.stderr


def test_without_a_server_the_reason_is_told(tmp_path):
    done = embed(tmp_path, {}, "server")
    assert (done.returncode, done.stdout) == (1, "") and "endpoint" in done.stderr
