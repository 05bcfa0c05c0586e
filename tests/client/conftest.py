"""Runs the official Backend.AI client, unmodified, against `bai serve` on each back end."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import signal
import subprocess
import time
import uuid

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BACKENDS = ["process", "docker"]


def bai_binary() -> pathlib.Path:
    """The binary under test: BAI_BIN, else the debug build."""
    return pathlib.Path(os.environ.get("BAI_BIN", ROOT / "target" / "debug" / "bai"))


class Server:
    """One `bai serve` process with its data directory."""

    def __init__(self, data: pathlib.Path, backend: str):
        self.data, self.backend = data, backend
        self.process: subprocess.Popen | None = None
        self.endpoint = ""

    def start(self, listen: str = "127.0.0.1:0") -> None:
        log = open(self.data.parent / f"{self.data.name}.log", "ab")
        self.process = subprocess.Popen(
            [bai_binary(), "serve", "--data", self.data, "--listen", listen, "--backend", self.backend],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        line = self.process.stdout.readline()
        match = re.fullmatch(r"ready (http://127\.0\.0\.1:\d+)\n", line)
        assert match, f"unexpected first line {line!r}; log: {self.log()[-4000:]}"
        self.endpoint = match[1]

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text(errors="replace")

    def kill(self) -> None:
        """As a crash: no chance to clean up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)

    def environ(self) -> dict[str, str]:
        """What `env.sh` exports, as a shell sees it."""
        text = (self.data / "env.sh").read_text()
        exports = dict(re.findall(r"^export (\w+)=(.*)$", text, re.M))
        return {key: shlex.split(value)[0] for key, value in exports.items()}


class Cli:
    """The official command line client."""

    def __init__(self, server: Server, workdir: pathlib.Path):
        self.server, self.workdir = server, workdir

    def __call__(self, *args: str, check: bool = True, timeout: float = 120, stdin: str = "") -> subprocess.CompletedProcess:
        env = {key: value for key, value in os.environ.items() if not key.startswith("BACKEND_")}
        env |= self.server.environ() | {"COLUMNS": "200", "HOME": str(self.workdir)}
        done = subprocess.run(
            [os.environ["BAI_TEST_CLIENT"], *args],
            cwd=self.workdir, env=env, capture_output=True, text=True, timeout=timeout, input=stdin,
        )
        if check:
            assert done.returncode == 0, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


def need(name: str) -> None:
    """Skips without the service, fails without it where it is required."""
    if os.environ.get(name):
        return
    if os.environ.get("BAI_TEST_REQUIRE") == "1":
        pytest.fail(f"{name} is not set")
    pytest.skip(f"{name} is not set")


@pytest.fixture(scope="session", params=BACKENDS)
def server(request, tmp_path_factory):
    need("BAI_TEST_CLIENT")
    if request.param == "docker":
        need("DOCKER_HOST")
    server = Server(tmp_path_factory.mktemp("bai") / "data", request.param)
    server.start()
    yield server
    for row in server_sessions(server):
        Cli(server, server.data.parent)("rm", "-f", row, check=False)
    server.stop()


def server_sessions(server: Server) -> list[str]:
    listed = Cli(server, server.data.parent)("session", "list", "--name-only", check=False)
    return listed.stdout.split()


@pytest.fixture
def cli(server, tmp_path):
    return Cli(server, tmp_path)


@pytest.fixture
def name():
    return f"t-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def session(cli, name):
    """A running session, ended afterwards."""
    cli("start", "-t", name, "python")
    yield name
    cli("rm", "-f", name, check=False)


@pytest.fixture
def client_environ(server, monkeypatch):
    """The environment of the SDK in this process."""
    for key, value in server.environ().items():
        monkeypatch.setenv(key, value)
    import ai.backend.client.config as config
    monkeypatch.setattr(config, "_config", None, raising=False)
    return server


def wait_for(condition, timeout: float = 30):
    """Polls until `condition()` is truthy and returns it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout} s: {condition}")
