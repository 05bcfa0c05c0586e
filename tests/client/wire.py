"""Requests exactly as given, signed with the official client's own function: no part is normalised or checked on the way."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from ai.backend.client.auth import generate_signature
from yarl import URL

VERSION = "v7.20230615"
PROBLEMS = "https://api.backend.ai/probs/"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Wire:
    """A server as a program sees it that writes its own HTTP."""

    def __init__(self, server):
        self.server, self.endpoint = server, URL(server.endpoint)
        environ = server.environ()
        self.access_key, self.secret_key = environ["BACKEND_ACCESS_KEY"], environ["BACKEND_SECRET_KEY"]

    def signed(self, method: str, target: str, content_type: str = "application/json", *, off: timedelta = timedelta(),
               access_key: str | None = None, secret_key: str | None = None) -> dict[str, str]:
        """The headers that the official client sends when its clock is `off` from ours."""
        date = datetime.now(timezone.utc) + off
        headers, _ = generate_signature(
            method=method, version=VERSION, endpoint=self.endpoint, date=date, rel_url=target, content_type=content_type,
            access_key=access_key or self.access_key, secret_key=secret_key or self.secret_key, hash_type="sha256",
        )
        return {"Date": date.isoformat(), "Content-Type": content_type, "X-BackendAI-Version": VERSION, **headers}

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes = b"", timeout: float = 60) -> Reply:
        connection = http.client.HTTPConnection(self.endpoint.host, self.endpoint.port, timeout=timeout)
        try:
            try:
                connection.request(method, target, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                pass  # a body that is too large need not be read to its end; the answer is there all the same
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def __call__(self, method: str, target: str, body=None, timeout: float = 60, **how) -> Reply:
        """A signed request; `body` is raw bytes, or what becomes JSON."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        content_type = how.pop("content_type", "application/json" if raw else "text/plain")
        return self.send(method, target, self.signed(method, target, content_type, **how), raw, timeout)

    def ok(self, method: str, target: str, body=None, **how):
        reply = self(method, target, body, **how)
        assert 200 <= reply.status < 300, (method, target, reply.status, reply.body[:2000])
        return reply.json if reply.body else None

    def create(self, name: str, resources: dict | None = None, **more) -> Reply:
        body = {"name": name, "image": "python", "config": {"resources": resources}} | more
        return self("POST", "/session", body)

    def start(self, name: str, resources: dict | None = None, **more) -> str:
        """A running session; returns its id."""
        reply = self.create(name, resources, **more)
        assert reply.status == 201 and reply.json["status"] == "RUNNING", reply
        return reply.json["sessionId"]

    def execute(self, name: str, code: str = "", mode: str = "query", options=None, run_id=None, timeout: float = 60):
        body = {"mode": mode, "code": code, "runId": run_id, "options": options or {}}
        return self.ok("POST", f"/session/{name}", body, timeout=timeout)["result"]

    def steps(self, name: str, code: str = "", mode: str = "query", options=None):
        """Every reply of a run, as the client's loop asks for them."""
        result = self.execute(name, code, mode, options)
        yield result
        while result["status"] != "finished":
            result = self.execute(name, mode="continue", run_id=result["runId"])
            yield result

    def run(self, name: str, code: str = "", mode: str = "query", options=None) -> str:
        """Standard output of a run that must end well."""
        items = [item for result in self.steps(name, code, mode, options) for item in result["console"]]
        errors = "".join(text for kind, text in items if kind == "stderr")
        assert not errors, errors
        return "".join(text for kind, text in items if kind == "stdout")

    def upload(self, name: str, files: list[tuple[str, bytes]]) -> Reply:
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="src"; filename="{path}"\r\n\r\n'.encode() + data + b"\r\n"
            for path, data in files
        ]
        target = f"/session/{name}/upload"
        headers = self.signed("POST", target, "multipart/form-data")
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        return self.send("POST", target, headers, b"".join(parts) + f"--{boundary}--\r\n".encode())

    def files(self, name: str, path: str = ".") -> set[str]:
        reply = self.ok("GET", f"/session/{name}/files", {"path": path})
        return {entry["filename"] for entry in json.loads(reply["files"])}

    def row(self, session_id: str) -> dict:
        """The session as `GET`less listings show it, dead or alive."""
        query = "query($id: UUID!) { compute_session(id: $id) { id name status status_info status_data } }"
        row = self.ok("POST", "/admin/gql", {"query": query, "variables": {"id": session_id}})["data"]["compute_session"]
        return row | {"status_data": json.loads(row["status_data"] or "{}")}

    def sessions(self) -> dict[str, str]:
        """Status of each living session, and what the agents hold under the key `held`."""
        query = """{ compute_session_list(limit: 100, offset: 0, status:
                     "PENDING,SCHEDULED,PULLING,PREPARING,RUNNING,RESTARTING,RUNNING_DEGRADED,TERMINATING,ERROR")
                     { items { id status } } agent_list(limit: 10, offset: 0) { items { occupied_slots } } }"""
        data = self.ok("POST", "/admin/gql", {"query": query})["data"]
        rows = {row["id"]: row["status"] for row in data["compute_session_list"]["items"]}
        return rows | {"held": str(data["agent_list"]["items"])}


def problem(reply: Reply, status: int, slug: str, title: str, code: str, *, wire: Wire) -> dict:
    """Checks a problem body in full, and that it tells nothing that is not the caller's business."""
    shown = (reply.status, reply.headers, reply.body[:2000])
    assert reply.status == status, shown
    assert reply.headers["content-type"].startswith("application/problem+json"), shown
    body = reply.json
    assert body["type"] == PROBLEMS + slug and body["title"] == title and body["error_code"] == code, shown
    assert len(reply.body) < 4096, "a problem does not repeat its input"
    text = reply.body.decode()
    for secret in [wire.secret_key, str(wire.server.data), ".rs:", "panicked", "RUST_BACKTRACE", "sqlite"]:
        assert secret not in text, shown
    return body


class Process:
    """Memory and relatives of a process on this host."""

    def __init__(self, pid: int):
        self.proc = pathlib.Path(f"/proc/{pid}")

    def reset_peak(self) -> None:
        (self.proc / "clear_refs").write_text("5")

    def peak_mib(self) -> float:
        """The most memory that was resident since `reset_peak`."""
        return self._status("VmHWM") / 1024

    def resident_mib(self) -> float:
        return self._status("VmRSS") / 1024

    def _status(self, key: str) -> int:
        return next(int(line.split()[1]) for line in (self.proc / "status").read_text().splitlines() if line.startswith(key))


def processes_in(pid_namespace: str) -> int:
    """How many processes of this host live in a pid namespace, given as `readlink` shows it."""
    count = 0
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                count += os.readlink(entry / "ns/pid") == pid_namespace
            except OSError:
                pass  # it has ended
    return count


def timed(action):
    """What `action()` returns, and how many seconds it took."""
    started = time.monotonic()
    result = action()
    return result, time.monotonic() - started
