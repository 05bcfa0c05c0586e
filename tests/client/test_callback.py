"""The callback URL of a session, over TLS: `bai serve` calls a server whose certificate it trusts."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading

import pytest

from conftest import Cli, Server, need, wait_for


class Receiver(http.server.ThreadingHTTPServer):
    """An HTTPS server on a free port that keeps what is posted to it."""

    def __init__(self, certificate, key):
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.bodies: list[dict] = []

    def events(self) -> set[str]:
        return {body["event"] for body in self.bodies}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )
    receiver = Receiver(certificate, key)
    receiver.certificate = certificate
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield receiver
    receiver.shutdown()
    receiver.server_close()


@pytest.mark.parametrize("trusted", [True, False])
def test_an_https_callback(receiver, tmp_path, monkeypatch, trusted):
    need("BAI_TEST_CLIENT")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(receiver.certificate))
    server = Server(tmp_path / "data", "process")
    server.start()
    try:
        cli = Cli(server, tmp_path)
        url = f"https://localhost:{receiver.server_port}/hook"
        cli("start", "-t", "calls-back", "--callback-url", url, "python")
        cli("rm", "calls-back")
        if trusted:
            wanted = {"enqueued", "scheduled", "preparing", "started", "terminating", "terminated"}
            wait_for(lambda: receiver.events() >= wanted)
            assert {body["type"] for body in receiver.bodies} == {"session_lifecycle"}
        else:
            wait_for(lambda: server.log().count("a callback failed") >= 6)
            assert receiver.bodies == []
    finally:
        server.stop()
