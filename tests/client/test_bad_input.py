"""What bad input gets: the documented status and problem body. It changes nothing, and it leaks nothing."""

import json
import os
import re
import sqlite3
from datetime import timedelta

import pytest
from conftest import wait_for
from wire import Process, Wire, problem, processes_in, timed

AUTH = ("auth-failed", "Credential/signature mismatch.", "BAI-A004")
SIGNING = ("invalid-auth-params", "Missing or invalid authorization parameters.", "BAI-A003")
PARAMS = ("invalid-api-params", "Missing or invalid API parameters.")
MIB = 1 << 20


@pytest.fixture(scope="module")
def wire(server):
    return Wire(server)


@pytest.fixture
def unchanged(wire):
    """Neither sessions nor what they hold may be others after the test than before."""
    settled = lambda: "TERMINATING" not in (rows := wire.sessions()).values() and rows
    before = wait_for(settled)
    yield
    assert wire.sessions() == before


@pytest.fixture(scope="module")
def kernel(wire):
    """A session for input that is refused before it reaches the session."""
    name = f"bad-{os.urandom(4).hex()}"
    wire.start(name)
    wire.run(name, "kept = 'still here'")
    yield name
    assert wire.run(name, "print(kept)") == "still here\n", "the interpreter was not disturbed"
    wire("DELETE", f"/session/{name}?forced=true")


class Cage:
    """A session that is proven to be isolated: only in here are hostile programs run."""

    PROOF = """if True:
        import json, os
        def limit(*paths):
            found = [open(path).read().strip() for path in paths if os.path.exists(path)]
            return [int(text) for text in found if text != "max"]
        print(json.dumps({
            "pid": os.readlink("/proc/self/ns/pid"), "mnt": os.readlink("/proc/self/ns/mnt"), "uid": os.getuid(),
            "pids": limit("/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max"),
            "memory": limit("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"),
        }))"""

    def __init__(self, wire: Wire, name: str, session_id: str):
        self.wire, self.name, self.id = wire, name, session_id
        facts = json.loads(wire.run(name, self.PROOF))
        for namespace in ("pid", "mnt"):
            hosts = {os.readlink(f"/proc/{process}/ns/{namespace}") for process in ("self", wire.server.process.pid)}
            if facts[namespace] in hosts:
                pytest.fail(f"the kernel shares a {namespace} namespace with the host: {facts}")
        if facts["uid"] == 0 or not any(limit <= 4096 for limit in facts["pids"]) or facts["memory"] != [192 * MIB]:
            pytest.fail(f"the kernel is not limited: {facts}")
        self.pid_namespace, self.most_processes = facts["pid"], min(facts["pids"])

    def processes(self) -> int:
        return processes_in(self.pid_namespace)

    def row(self) -> dict:
        return self.wire.row(self.id)

    def destroy(self) -> float:
        """Ends the session; seconds until nothing of it runs any more."""
        def end():
            assert self.wire("DELETE", f"/session/{self.name}").status == 200
            wait_for(lambda: self.row()["status"] == "TERMINATED" and self.processes() == 0)
        return timed(end)[1]


@pytest.fixture
def cage(wire, name):
    session_id = wire.start(name, {"cpu": "1", "mem": "192m"})
    try:
        cage = Cage(wire, name, session_id)
        yield cage
        wire("DELETE", f"/session/{name}?forced=true")
        wait_for(lambda: cage.processes() == 0)
    finally:
        wire("DELETE", f"/session/{name}?forced=true")


# Who asks: auth.md, sections 2 and 3.

TARGET = "/session/_/match?id=x"


def without(headers: dict, *names: str) -> dict:
    return {name: value for name, value in headers.items() if name not in names}


def refused(wire, headers: dict, status: int, kind: tuple, message: str):
    body = problem(wire.send("GET", TARGET, headers), status, *kind, wire=wire)
    assert body["msg"] == message, body


def test_a_good_signature_is_taken(wire):
    assert wire.ok("GET", TARGET) == {"matches": []}


@pytest.mark.parametrize("headers, status, kind, message", [
    ({}, 401, AUTH, "Unauthorized access"),
    ({"Authorization": "nonsense"}, 400, SIGNING, "Malformed authorization header"),
    ({"Authorization": "Bearer signMethod=HMAC-SHA256, credential=a:b"}, 400, SIGNING, "Invalid authorization type name"),
    ({"Authorization": "BackendAI credential=a:b"}, 400, SIGNING, "Missing or malformed authorization parameters"),
    ({"Authorization": "BackendAI signMethod=HMAC-SHA256, credential=ab"}, 400, SIGNING,
     "Missing or malformed authorization parameters"),
    ({"Authorization": "BackendAI signMethod=RSA-SHA256, credential=a:b"}, 400, SIGNING,
     "Unsupported request signing method (MAC type)"),
    ({"Authorization": "BackendAI signMethod=HMAC-CRC32, credential=a:b"}, 400, SIGNING,
     "Unsupported request signing method (hash type)"),
])
def test_a_missing_or_malformed_signature(wire, headers, status, kind, message, unchanged):
    refused(wire, without(wire.signed("GET", TARGET), "Authorization") | headers, status, kind, message)


def test_a_wrong_signature(wire, unchanged):
    mismatch = (401, AUTH, "Signature mismatch")
    refused(wire, wire.signed("GET", TARGET, secret_key="x" * 40), *mismatch)
    for other in [("POST", TARGET), ("GET", "/session/_/match?id=y")]:
        refused(wire, wire.signed(*other), *mismatch)
    good = wire.signed("GET", TARGET)
    refused(wire, good | {"Content-Type": "text/plain"}, *mismatch)
    refused(wire, good | {"Host": "elsewhere.example"}, *mismatch)
    refused(wire, good | {"Authorization": good["Authorization"][:-1]}, *mismatch)


@pytest.mark.parametrize("off", [timedelta(minutes=-16), timedelta(minutes=16), timedelta(days=-400), timedelta(days=9000)])
def test_an_old_or_future_dated_signature(wire, off, unchanged):
    refused(wire, wire.signed("GET", TARGET, off=off), 400, SIGNING, "Date/time sync error")


@pytest.mark.parametrize("off", [timedelta(minutes=-14), timedelta(minutes=14)])
def test_a_skewed_clock_within_the_window(wire, off):
    assert wire("GET", TARGET, off=off).status == 200


@pytest.mark.parametrize("date", [None, "", "yesterday", "2024-13-45T99:00:00Z", "9" * 5000])
def test_a_date_that_is_none(wire, date, unchanged):
    headers = without(wire.signed("GET", TARGET), "Date") | ({} if date is None else {"Date": date})
    refused(wire, headers, 400, SIGNING, "Date/time sync error")


def test_a_new_date_does_not_refresh_an_old_signature(wire, unchanged):
    old = wire.signed("GET", TARGET, off=timedelta(minutes=-16))
    refused(wire, old | {"Date": wire.signed("GET", TARGET)["Date"]}, 401, AUTH, "Signature mismatch")


@pytest.mark.parametrize("key", ["AKIAUNKNOWNUNKNOWN00", "A" * 5000, "' OR 1=1 --"])
def test_an_unknown_key(wire, key, unchanged):
    refused(wire, wire.signed("GET", TARGET, access_key=key), 401, AUTH, "Access key not found")


def test_an_inactive_key(wire):
    def set_active(active: bool) -> None:
        with sqlite3.connect(database, timeout=30) as db:
            changed = db.execute("UPDATE keypairs SET doc = json_set(doc, '$.is_active', json(?)) WHERE access_key = ?",
                                 [json.dumps(active), wire.access_key])
            assert changed.rowcount == 1
    database = next(path for path in wire.server.data.glob("*") if path.read_bytes()[:15] == b"SQLite format 3")
    set_active(False)
    try:
        wait_for(lambda: wire("GET", TARGET).status == 401)
        refused(wire, wire.signed("GET", TARGET), 401, AUTH, "Access key not found")
    finally:
        set_active(True)
        wait_for(lambda: wire("GET", TARGET).status == 200)


def test_an_unknown_api_version(wire, unchanged):
    headers = wire.signed("GET", TARGET) | {"X-BackendAI-Version": "v99.20991231"}
    problem(wire.send("GET", TARGET, headers), 400, "generic-bad-request", "Bad request.", "BAI-A005", wire=wire)


# What is asked for: rest-manager.md, sections 0 and 2.

def test_an_unknown_image(wire, name, unchanged):
    for image in ["no/such:image", "python:0.0", "", "../../etc", "x" * 2000]:
        reply = wire.create(name, image=image)
        if image:
            body = problem(reply, 404, "object-not-found", "No such environment image.", "BAI-I001", wire=wire)
            assert "image" in body["msg"]
        else:
            problem(reply, 400, *PARAMS, "BAI-G001", wire=wire)


@pytest.mark.parametrize("resources, words", [
    ({"mem": "1k"}, ["smaller", "mem", "1 KiB", "128 MiB"]),
    ({"cpu": "0.5"}, ["smaller", "cpu", "0.5", "1"]),
    ({"cpu": -1}, ["negative", "cpu"]),
    ({"mem": "-1g"}, ["negative", "mem", "-1 GiB"]),
    ({"cpu": "NaN"}, ["not a number", "cpu"]),
    ({"mem": "nan"}, ["not a size", "mem"]),
    ({"cpu": "Infinity"}, ["finite", "cpu"]),
    ({"cpu": "1e400"}, ["out of range", "cpu"]),
    ({"cpu": 10**40}, ["out of range", "cpu"]),
    ({"mem": "99999999999y"}, ["out of range", "mem"]),
    ({"mem": "8192p"}, ["too large", "mem"]),
    ({"mem": ""}, ["not a size", "mem"]),
    ({"mem": "1" * 3000}, ["mem"]),
    ({"cpu": True}, ["number", "cpu"]),
    ({"cpu": {"a": [1]}}, ["number", "cpu"]),
    ({"nosuch.slot": 1}, ["unknown", "nosuch.slot"]),
])
def test_resources_that_cannot_be(wire, name, resources, words, unchanged):
    body = problem(wire.create(name, resources), 400, *PARAMS, "BAI-S009", wire=wire)
    assert all(word in body["msg"] for word in words), body


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_numbers_that_json_does_not_have(wire, name, number, unchanged):
    body = b'{"name":"%s","image":"python","config":{"resources":{"cpu":%s}}}' % (name.encode(), number)
    problem(wire("POST", "/session", body), 400, *PARAMS, "BAI-A009", wire=wire)


def test_more_than_the_agent_has_waits_with_a_reason(wire, name):
    for resources, words in [({"cpu": 1000}, "needs cpu 1000; best agent has "), ({"mem": "64t"}, "needs mem 64 TiB; best agent has ")]:
        reply = wire.create(name, resources, enqueueOnly=True)
        assert (reply.status, reply.json["status"]) == (201, "PENDING")
        reason = lambda: wire.row(reply.json["sessionId"])["status_info"] == "no-available-instances"
        wait_for(reason)
        info = wire.ok("GET", f"/session/{name}")
        assert (info["status"], info["statusInfo"]) == ("PENDING", "no-available-instances")
        assert info["statusData"]["scheduler"]["msg"].startswith(words), info["statusData"]
        wire.ok("DELETE", f"/session/{name}")
        assert wire.row(reply.json["sessionId"])["status"] == "CANCELLED"


@pytest.mark.parametrize("bad", ["", "abc", "x" * 65, "x" * 100_000, "-abcd", "abcd.", "a b c d", "a/../b", "../abcd", "세션이름",
                                 "abcd\n", "ab\0cd", "from-template", 5, None, ["abcd"]])
def test_a_name_that_breaks_the_rule(wire, bad, kernel, unchanged):
    body = problem(wire.create(bad), 400, *PARAMS, "BAI-G001", wire=wire)
    assert list(body["data"]) == ["name"]
    reserved = bad == "from-template"  # a word of paths, which only the service knows
    code = "BAI-S008" if reserved else "BAI-G001"
    problem(wire("POST", f"/session/{kernel}/rename", {"name": bad}), 400, *PARAMS, code, wire=wire)


@pytest.mark.parametrize("body", [b"[" * 10_000_000, b'{"a":' * 2_000_000, b'{"config":' + b"[" * 5_000_000 + b"]" * 5_000_000 + b"}"],
                         ids=["lists", "objects", "balanced"])
def test_ten_megabytes_of_nesting(wire, kernel, body, unchanged):
    for target in ["/session", f"/session/{kernel}", "/admin/gql"]:
        reply, seconds = timed(lambda: wire("POST", target, body))
        problem(reply, 400, *PARAMS, "BAI-A009", wire=wire)
        assert seconds < 10
    assert wire.send("GET", "/", {}).status == 200


def test_nesting_in_a_query(wire, unchanged):
    problem(wire("POST", "/admin/gql", {"query": "{a" * 5_000_000}), 400, *PARAMS, "BAI-G001", wire=wire)
    for query in ["{a" * 30_000, "{ images" + "(x:[" * 15_000, '{ compute_session_list(limit:1, offset:0, filter:"%s") {total_count} }'
                  % ("(" * 60_000)]:
        reply = wire("POST", "/admin/gql", {"query": query})
        assert reply.status == 200 and reply.json["errors"] and len(reply.body) < 4096, reply.body[:1000]
    assert wire.send("GET", "/", {}).status == 200


def test_a_body_over_the_limit(wire, unchanged):
    problem(wire("POST", "/session", b'{"name":"' + b"x" * 30_000_000 + b'"}'), 400, *PARAMS, "BAI-A009", wire=wire)


# Files: session-lifecycle.md, section 7.

@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "/home/work/../x", "%2e%2e%2fx", "a%00b", "link/x", "//etc/x"])
def test_an_upload_out_of_the_home(wire, kernel, path, unchanged):
    wire.run(kernel, "import os\nif not os.path.islink('link'): os.symlink('/tmp', 'link')")
    before = wire.files(kernel)
    for files in [[(path, b"1")], [("fine", b"1"), (path, b"1")]]:
        body = problem(wire.upload(kernel, files), 400, *PARAMS, "BAI-F001", wire=wire)
        assert "leaves the home directory" in body["msg"]
    assert wire.files(kernel) == before, "of several files none was written"
    assert wire.run(kernel, "print([p for p in ('/tmp/x', '/home/x', '/etc/x') if os.path.exists(p)])") == "[]\n"


def test_an_upload_of_a_large_file(wire, kernel, unchanged):
    before = wire.files(kernel)
    for files in [[("large", b"1" * MIB)], [("fine", b"1"), ("large", b"1" * (MIB + 1))], [("huge", b"1" * 40 * MIB)]]:
        body = problem(wire.upload(kernel, files), 400, *PARAMS, "BAI-F003", wire=wire)
        assert body["msg"].startswith("Too large file"), body
    assert wire.files(kernel) == before
    assert wire.upload(kernel, [("most", b"1" * (MIB - 1))]).status == 204


def test_an_upload_of_many_files(wire, kernel, unchanged):
    before = wire.files(kernel)
    body = problem(wire.upload(kernel, [(f"many-{i}", b"") for i in range(21)]), 400, *PARAMS, "BAI-F004", wire=wire)
    assert body["msg"].startswith("Too many files"), body
    assert wire.files(kernel) == before
    assert wire.upload(kernel, [(f"many-{i}", b"") for i in range(20)]).status == 204


def test_an_upload_that_is_none(wire, kernel, unchanged):
    target = f"/session/{kernel}/upload"
    for body in [b"", b"nonsense", b"--x\r\n\r\n"]:
        problem(wire("POST", target, body, content_type="application/json"), 400, *PARAMS, "BAI-A009", wire=wire)


@pytest.mark.parametrize("path, code", [("missing", "BAI-F002"), ("no/such/file", "BAI-F002"), ("../../etc/passwd", "BAI-F001"),
                                        ("/etc/passwd", "BAI-F001"), ("to-passwd", "BAI-F001"), ("to-proc/1/environ", "BAI-F001"),
                                        ("large", "BAI-F003")])
def test_a_download_of_what_is_not_there(wire, kernel, path, code, unchanged):
    wire.run(kernel, """if True:
        import os
        if not os.path.islink("to-passwd"):
            os.symlink("/etc/passwd", "to-passwd"); os.symlink("/proc", "to-proc"); open("large", "wb").write(b"1" * (2 << 20))""")
    for target, body in [("download", {"files": [path]}), ("download_single", {"file": path})]:
        answer = problem(wire("GET", f"/session/{kernel}/{target}", body), 400, *PARAMS, code, wire=wire)
        assert "root:" not in answer["msg"]


def test_a_download_never_waits_for_a_pipe(wire, kernel, unchanged):
    wire.run(kernel, "import os\nif not os.path.exists('pipe'): os.mkfifo('pipe')")
    assert wire("GET", f"/session/{kernel}/download", {"files": ["pipe"]}, timeout=20).status == 200
    problem(wire("GET", f"/session/{kernel}/download_single", {"file": "pipe"}, timeout=20), 400, *PARAMS, "BAI-F002", wire=wire)


def test_a_download_of_many_files(wire, kernel, unchanged):
    problem(wire("GET", f"/session/{kernel}/download", {"files": ["x"] * 6}), 400, *PARAMS, "BAI-F004", wire=wire)


# Code and its output: krunner.md, sections 3 and 4.

def test_five_megabytes_of_code(wire, kernel):
    assert wire.run(kernel, "x = '" + "a" * 5_000_000 + "'\nprint(len(x))") == "5000000\n"


def test_code_that_is_no_text(wire, kernel, unchanged):
    for code in [5, ["print(1)"], {"a": 1}]:
        problem(wire("POST", f"/session/{kernel}", {"mode": "query", "runId": None, "code": code}), 400, *PARAMS, "BAI-G001", wire=wire)
    for body, message in [({"mode": "query"}, "runId is missing!"), ({"runId": None}, "mode is missing or empty!"),
                          ({"runId": None, "mode": "magic"}, "mode has an invalid value."),
                          ({"runId": None, "mode": "continue"}, "continuation requires explicit run ID")]:
        answer = problem(wire("POST", f"/session/{kernel}", body), 400, *PARAMS, "BAI-G001", wire=wire)
        assert answer["msg"] == message


def test_binary_output(wire, kernel):
    every_byte = "import sys; sys.stdout.buffer.write(bytes(range(256))); sys.stdout.flush()"
    assert wire.run(kernel, every_byte) == bytes(range(256)).decode(errors="replace")
    # A character whose bytes come one by one is not torn apart.
    slow = "import time\nfor b in '한€😀'.encode():\n    sys.stdout.buffer.write(bytes([b])); sys.stdout.flush(); time.sleep(0.01)"
    assert wire.run(kernel, "import sys\n" + slow) == "한€😀"
    assert wire.run(kernel, "print('a\\0b\\x1b[31m')") == "a\0b\x1b[31m\n"


def test_two_hundred_megabytes_without_a_newline(wire, cage):
    """All of it arrives, and the server holds little of it at any time, also while nobody collects it."""
    server, size = Process(wire.server.process.pid), 200_000_000
    before = server.resident_mib()
    server.reset_peak()
    steps = wire.steps(cage.name, mode="batch", options={"exec": f"head -c {size} /dev/zero | tr '\\0' x"})
    first, second, exec_reply = next(steps), next(steps), next(steps)
    assert (first["status"], second["status"]) == ("clean-finished", "build-finished")
    consumed_by = lambda: wire.run(other, "print(sum(range(10)))")
    other = cage.name + "-b"
    wire.start(other)
    assert consumed_by() == "45\n", "another session answers while the flood waits"
    wire("DELETE", f"/session/{other}?forced=true")
    got = sum(len(text) for reply in (exec_reply, *steps) for kind, text in reply["console"] if kind == "stdout")
    assert got == size
    assert server.peak_mib() < before + 100, f"{before} MiB before, {server.peak_mib()} MiB at most"
    logs = wire.ok("GET", f"/session/{cage.name}/logs")["result"]["logs"]
    assert 0 < len(logs) <= 10 * MIB, "the log keeps its newest part"


# Hostile programs, each in a cage.

def test_a_fork_bomb(wire, cage, name):
    bomb = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.2)\n"
    reply = wire.execute(cage.name, mode="batch", options={"exec": f"python3 -c '{bomb}'"})
    while reply["status"] in ("clean-finished", "build-finished"):
        reply = wire.execute(cage.name, mode="continue", run_id=reply["runId"])
    peak = max(cage.processes() for _ in range(3))
    assert 10 < peak <= cage.most_processes, "it has forked, and came to its limit"
    with_other = name + "-b"
    wire.start(with_other)
    assert wire.run(with_other, "print(6 * 7)") == "42\n", "another session works meanwhile"
    wire("DELETE", f"/session/{with_other}?forced=true")
    assert cage.destroy() < 20


def test_a_memory_hog_is_told_on_the_session(wire, cage):
    server = Process(wire.server.process.pid)
    before = server.resident_mib()
    replies = list(wire.steps(cage.name, "hog = []\nwhile True: hog.append(b'x' * (8 << 20))"))
    told = "".join(text for reply in replies for kind, text in reply["console"] if kind == "stderr")
    assert replies[-1]["exitCode"] == 137 and "Out of memory" in told, replies
    wait_for(lambda: cage.row()["status_info"] == "out-of-memory")
    row = cage.row()
    assert row["status"] == "RUNNING" and row["status_data"]["oom_kills"] >= 1
    info = wire.ok("GET", f"/session/{cage.name}")
    assert info["statusInfo"] == "out-of-memory" and info["statusData"]["oom_kills"] >= 1
    assert wire.run(cage.name, "print('next')") == "next\n", "the session goes on with a new interpreter"
    assert server.resident_mib() < before + 100
    assert cage.destroy() < 20


def test_a_program_that_ignores_sigterm(wire, cage):
    stubborn = "import signal, os\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: os.read(0, 1) or signal.pause()"
    reply = wire.execute(cage.name, stubborn)
    assert reply["status"] == "continued" and cage.processes() >= 2
    assert cage.destroy() < 15, "the grace time is 5 s"
    answer = problem(wire("GET", f"/session/{cage.name}"), 404, "object-not-found", "No such session.", "BAI-S001", wire=wire)
    assert re.search("no such session", answer["msg"])


def test_signals_to_everything_stay_inside(wire, cage, kernel):
    before = processes_in(os.readlink("/proc/self/ns/pid"))
    wire.execute(cage.name, "import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept OSError: pass")
    assert wire.run(kernel, "print(kept)") == "still here\n"
    assert wire.server.process.poll() is None and processes_in(os.readlink("/proc/self/ns/pid")) > before / 2
    assert cage.destroy() < 20
