"""Our own command as a person types it: embedded, and against a server on each back end."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

import pytest
from conftest import BACKENDS, Server, bai_binary, need, wait_for

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


class Bai:
    """The command on one cluster, with a directory to work in."""

    def __init__(self, home: pathlib.Path, environ: dict[str, str]):
        self.home, self.is_embedded = home, not environ
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("BACKEND_", "BAI_", "XDG_"))}
        self.environ = clean | {"HOME": str(home)} | environ

    def __call__(self, *args: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess:
        done = subprocess.run([bai_binary(), *args], cwd=self.home, env=self.environ, input=stdin,
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str):
        return json.loads(self("--output", "json", *args).stdout)

    def start(self, *args: str) -> str:
        """Starts a session in the words of `args`; returns its id."""
        return self("start", *args).stdout.strip()

    def background(self, *args: str) -> subprocess.Popen:
        return subprocess.Popen([bai_binary(), *args], cwd=self.home, env=self.environ, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module", params=["embedded", *BACKENDS])
def bai(request):
    home = pathlib.Path(tempfile.mkdtemp(prefix="bai-cli-"))
    os.chmod(home, 0o755)  # kernels of the process back end run as another user
    if request.param == "docker":
        need("DOCKER_HOST")
    if request.param == "embedded":
        bai, server = Bai(home, {}), None
    else:
        server = Server(home / "data", request.param)
        server.start()
        bai = Bai(home, server.environ())
    try:
        yield bai
        if living := bai.json("ps"):
            bai("rm", "--forced", *(row["id"] for row in living))
    finally:
        if server:
            server.stop()
    shutil.rmtree(home)


served = pytest.mark.parametrize("bai", BACKENDS, indirect=True)


@pytest.fixture(scope="module")
def lab(bai):
    """A running session with the state `x` and the file `notes.txt`."""
    bai.start("-t", "lab1", "python")
    (bai.home / "notes.txt").write_text("kept\n")
    bai("upload", "lab1", "notes.txt")
    bai("exec", "lab1", "x = 41")
    yield "lab1"
    assert bai("rm", "lab1").stdout == "lab1\n"
    assert "lab1" not in [row["name"] for row in bai.json("ps")]
    dead = next(row for row in bai.json("ps", "--all") if row["name"] == "lab1")
    assert (dead["status"], dead["status_info"]) == ("TERMINATED", "user-requested")


def redacted(text: str) -> list[str]:
    """Lines with one space between columns, and without what differs from run to run."""
    return [" ".join(TIME.sub("TIME", ID.sub("ID", line)).split()) for line in text.splitlines()]


def test_run_a_snippet(bai):
    done = bai("run", "--rm", "-c", "print('hello world')", "python")
    assert (done.stdout, done.stderr) == ("hello world\n", "")
    failed = bai("run", "--rm", "-c", "1/0", "python")
    assert failed.stdout == "" and "ZeroDivisionError" in failed.stderr


def test_run_for_programs(bai):
    done = bai("--output", "json", "run", "--rm", "-c", "import sys; print('a'); print('b', file=sys.stderr)", "python")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"type": "stdout", "data": "a\n"}, {"type": "stderr", "data": "b\n"}, {"type": "finished", "exit_code": 0}]


def test_run_files_and_their_exit_code(bai):
    (bai.home / "sub").mkdir(exist_ok=True)
    (bai.home / "sub" / "app.py").write_text("import sys; print(sys.argv[1:]); sys.exit(7)")
    done = bai("run", "--rm", "--exec", "python sub/app.py a 'b c'", "python", "sub/app.py", code=7)
    assert done.stdout == "['a', 'b c']\n"
    (bai.home / "main.py").write_text("print('main', input('? '))")
    assert "main bob" in bai("run", "--rm", "python", "main.py", stdin="bob\n").stdout


def test_start_and_reuse(bai, lab):
    again = bai("start", "-t", lab, "python")
    assert ID.fullmatch(again.stdout.strip()) and again.stderr == f"session {lab} is RUNNING (reused)\n"
    taken = bai("start", "-t", lab, "--no-reuse", "python", code=1)
    assert taken.stdout == "" and "a living session has this name (name: lab1)" in taken.stderr and "BAI-S002" in taken.stderr


def test_ps(bai, lab):
    image = bai.json("info", lab)["image"]
    header, *rows = redacted(bai("ps").stdout)
    assert header == "NAME ID IMAGE TYPE STATUS REASON CREATED"
    assert f"{lab} ID {image} interactive RUNNING TIME" in rows
    row = next(row for row in bai.json("ps") if row["name"] == lab)
    assert (row["status"], row["type"], row["image"]) == ("RUNNING", "INTERACTIVE", image)


def test_info(bai, lab):
    lines = redacted(bai("info", lab).stdout)
    for line in [f"session {lab}", "status RUNNING", "resources cpu 1, mem 128 MiB", "created TIME UTC"]:
        assert line in lines, lines
    assert "Decimal" not in str(lines)
    assert bai.json("info", lab)["status"] == "RUNNING"


def test_exec_keeps_state(bai, lab):
    assert bai("exec", lab, "print(x + 1)").stdout == "42\n"
    assert bai("exec", lab, "-c", "print(x + 2)").stdout == "43\n"
    assert "hi bob" in bai("exec", lab, "print('hi', input())", stdin="bob\n").stdout


def test_logs(bai, lab):
    bai("exec", lab, "print('to the log')")
    assert "to the log\n" in bai("logs", lab).stdout
    assert "to the log\n" in bai.json("logs", lab)["logs"]


def test_files(bai, lab):
    (bai.home / "deep").mkdir(exist_ok=True)
    for n in range(25):  # more than one request takes
        (bai.home / "deep" / f"{n}.txt").write_text(str(n))
    done = bai("upload", lab, *(f"deep/{n}.txt" for n in range(25)))
    assert (done.stdout, done.stderr) == ("", "uploaded 25 files\n")
    assert "-rw-r--r-- 1 7.txt" in redacted(bai("ls", lab, "deep").stdout)
    assert {entry["filename"] for entry in bai.json("ls", lab, "deep")} == {f"{n}.txt" for n in range(25)}
    done = bai("download", lab, "deep/7.txt", "notes.txt", "--dest", "back")
    assert (done.stdout, done.stderr) == ("", "downloaded 2 files to back\n")
    assert sorted(path.read_text() for path in (bai.home / "back").rglob("*.txt")) == ["7", "kept\n"]


def test_restart_keeps_files_and_drops_state(bai):
    bai.start("-t", "again", "python")
    bai("exec", "again", "y = 1; open('kept', 'w').close()")
    assert bai("restart", "again").stdout == "again\n"
    assert bai("exec", "again", "import os; print(os.listdir('.').count('kept'), 'y' in globals())").stdout == "1 False\n"
    assert bai.json("rm", "again") == ["again"]


def test_a_session_that_must_wait(bai):
    late = bai("start", "-t", "late", "-r", "cpu=1000", "--max-wait", "1", "python", code=3)
    assert late.stdout == "" and redacted(late.stderr)[0] == "error: the session still waits in the queue (name: late, id: ID)"
    wait_for(lambda: "reason no-available-instances: needs cpu 1000; best agent has" in "\n".join(redacted(bai("info", "late").stdout)))
    assert bai("rm", "late").stdout == "late\n"
    queued = bai("start", "-t", "queued", "-r", "cpu=1000", "--enqueue-only", "python")
    assert queued.stderr == "session queued is PENDING\n"
    bai("rm", "queued")


def test_a_batch_session(bai):
    bai.start("-t", "batch", "-c", "echo done; exit 3", "python")
    ended = lambda: next((row for row in bai.json("ps", "--all") if row["name"] == "batch" and row["status"] == "TERMINATED"), None)
    assert wait_for(ended, 60)["result"] == "FAILURE"
    assert bai("logs", "batch").stdout == "done\n"


def test_rm_goes_on_after_a_failure(bai):
    for name in ("one1", "two2"):
        bai.start("-t", name, "python")
    done = bai("rm", "one1", "nosuch", "two2", code=1)
    assert done.stdout == "one1\ntwo2\n" and "no such session (session: nosuch)" in done.stderr


def test_images_and_agents(bai):
    header, *rows = redacted(bai("images").stdout)
    assert header == "IMAGE ALIASES ARCHITECTURE DIGEST" and any("python" in row and "x86_64 sha256:" in row for row in rows)
    assert any("python" in row["aliases"] for row in bai.json("images"))
    header, row = redacted(bai("agents").stdout)
    assert header == "AGENT STATUS GROUP AVAILABLE OCCUPIED"
    assert re.match(r"\S+ ALIVE default cpu \d+, mem [\d.]+ [KMG]iB", row), row
    assert bai.json("agents")[0]["status"] == "ALIVE"


def test_doctor(bai):
    header, *rows = redacted(bai("doctor").stdout)
    assert header == "FACILITY STATE FOUND CONSEQUENCE" and any(row.startswith("control groups") for row in rows)
    found = {row["facility"]: row for row in bai.json("doctor")}
    assert all(row["ok"] == (row["consequence"] is None) for row in found.values())
    assert found["process sandbox"]["ok"] and "python:" in found["process sandbox"]["found"]
    assert found["Docker engine"]["ok"] and "local/python:" in found["Docker engine"]["found"]


@served
@pytest.mark.parametrize("form", ["table", "json"])
def test_events(bai, form):
    watcher = bai.background("--output", form, "events")
    # Whether the watcher listens already cannot be seen: sessions come and go until it tells of one.
    def told():
        bai.start("-t", f"warm-{form}", "python")
        bai("rm", f"warm-{form}")
        return watcher.stdout.readline()
    try:
        os.set_blocking(watcher.stdout.fileno(), False)
        wait_for(told, 60)
        os.set_blocking(watcher.stdout.fileno(), True)
        bai.start("-t", f"seen-{form}", "python")
        bai("rm", f"seen-{form}")
        seen = []
        while not seen or seen[-1]["event"] != "session_terminated":
            line = watcher.stdout.readline()
            assert line, watcher.stderr.read()
            name, _, data = line.partition(" ")
            event = json.loads(line) if form == "json" else {"event": name, "data": json.loads(data)}
            seen += [event] if event["data"].get("sessionName") == f"seen-{form}" else []
        names = [event["event"] for event in seen]
        assert names.index("session_enqueued") < names.index("session_scheduled") < names.index("session_started")
    finally:
        watcher.kill()
        watcher.wait()


def test_serve_from_start_to_end(tmp_path):
    server = Server(tmp_path / "data", "process")
    server.start()
    # Who works on the directory of a running server is led to the server.
    local = Bai(tmp_path, {})
    assert local("run", "--rm", "--data", str(server.data), "-c", "print(1)", "python").stdout == "1\n"
    second = local("serve", "--data", str(server.data), "--listen", "127.0.0.1:0", code=1)
    assert second.stdout == "" and second.stderr
    busy = server.endpoint.rsplit("/", 1)[1]
    taken = local("serve", "--data", str(tmp_path / "other"), "--listen", busy, code=4)
    assert taken.stdout == "" and "cannot listen" in taken.stderr and busy in taken.stderr
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0
    gone = Bai(tmp_path, server.environ())("ps", code=1)
    assert "the server cannot be reached" in gone.stderr and "help: check BACKEND_ENDPOINT" in gone.stderr


WRONG = [
    (["frob"], 2, ["unrecognized subcommand 'frob'", "Usage: bai"]),
    (["pss"], 2, ["a similar subcommand exists: 'ps'"]),
    (["ps", "--frob"], 2, ["unexpected argument '--frob'"]),
    (["--output", "xml", "ps"], 2, ["invalid value 'xml'", "table, json"]),
    (["run", "python"], 2, ["required arguments", "bai run [OPTIONS] -c <CODE> <IMAGE>"]),
    (["run", "-c", "1"], 2, ["<IMAGE>"]),
    (["run", "-c", "1", "-r", "cpu", "python"], 2, ["invalid value 'cpu'", "SLOT=AMOUNT"]),
    (["run", "-c", "1", "--max-wait", "soon", "python"], 2, ["invalid value 'soon'", "SECONDS"]),
    (["rm"], 2, ["<SESSIONS>"]),
    (["serve", "--listen", "here"], 2, ["invalid value 'here'", "ADDRESS"]),
    (["info", "nosuch"], 1, ["error: no such session (session: nosuch)", "code: BAI-S001", "help: `bai ps`"]),
    (["restart", "nosuch"], 1, ["no such session", "BAI-S001"]),
    (["logs", "nosuch"], 1, ["no such session", "BAI-S001"]),
    (["exec", "nosuch", "1"], 1, ["no such session", "BAI-S001"]),
    (["queue", "--scaling-group", "nosuch"], 1, ["no such resource group", "nosuch"]),
    (["explain", "nosuch"], 1, ["no such session", "BAI-S001"]),
    (["ls", "nosuch"], 1, ["no such session", "BAI-S001"]),
    (["upload", "nosuch", "a.txt"], 1, ["no such session", "BAI-S001"]),
    (["download", "nosuch", "a.txt"], 1, ["no such session", "BAI-S001"]),
    (["run", "-c", "1", "no/such:image"], 1, ["no/such:image", "BAI-I001", "help: `bai images`"]),
    (["start", "-t", "a b", "python"], 4, ["name: ", "BAI-G001"]),
    (["start", "-r", "mem=1k", "python"], 4, ["slot: mem", "given: 1 KiB", "minimum: 128 MiB", "BAI-S009"]),
    (["start", "-r", "cpu=-1", "python"], 4, ["negative", "slot: cpu", "BAI-S009"]),
    (["start", "-r", "gold=1", "python"], 4, ["unknown resource slot (slot: gold)", "BAI-S009"]),
    (["start", "--bootstrap-script", "nofile", "python"], 4, ["cannot read the file (path: nofile", "BAI-C004"]),
]


@pytest.mark.parametrize("args, code, words", WRONG, ids=[" ".join(args) for args, *_ in WRONG])
def test_wrong_input(bai, args, code, words):
    (bai.home / "a.txt").write_text("a")
    before = bai.json("ps")
    done = bai(*args, code=code)
    assert done.stdout == "" and all(word in done.stderr for word in words), done.stderr
    assert bai.json("ps") == before, "nothing was made"


def test_wrong_files(bai, lab):
    (bai.home / "large.bin").write_bytes(bytes(1 << 20))
    for args, code, words in [
        (["upload", lab, "nofile"], 4, ["cannot read the file (path: nofile", "BAI-C004"]),
        (["upload", lab, "../x"], 4, ["below the current directory", "BAI-F001"]),
        (["upload", lab, "/etc/passwd"], 4, ["below the current directory", "BAI-F001"]),
        (["upload", lab, "large.bin"], 4, ["Too large file (path: large.bin, limit: less than 1 MiB)", "BAI-F003"]),
        (["download", lab, "nothing.txt"], 4, ["nothing.txt", "BAI-F002"]),
        (["download", lab, "/etc/passwd"], 4, ["/etc/passwd", "BAI-F001"]),
        (["ls", lab, "nowhere"], 4, ["nowhere", "BAI-F002"]),
    ]:
        done = bai(*args, code=code)
        assert done.stdout == "" and all(word in done.stderr for word in words), (args, done.stderr)


def test_errors_for_programs(bai):
    done = bai("--output", "json", "info", "nosuch", code=1)
    assert done.stdout == ""
    assert json.loads(done.stderr) == {"type": "https://api.backend.ai/probs/object-not-found", "title": "No such session.",
                                       "msg": "no such session (session: nosuch)", "error_code": "BAI-S001"}


@pytest.mark.parametrize("environ, code, words", [
    ({"BACKEND_ENDPOINT": "http://127.0.0.1:9"}, 4, ["not its keypair", "BACKEND_ACCESS_KEY"]),
    ({"BACKEND_ENDPOINT": "nonsense", "BACKEND_ACCESS_KEY": "a", "BACKEND_SECRET_KEY": "b"}, 4, ["not an http or https URL"]),
    ({"BACKEND_ENDPOINT": "http://127.0.0.1:9", "BACKEND_ACCESS_KEY": "a", "BACKEND_SECRET_KEY": "b"}, 1,
     ["cannot be reached", "BAI-C001", "help: check BACKEND_ENDPOINT"]),
], ids=["no keypair", "no URL", "nobody there"])
def test_a_wrong_environment(tmp_path, environ, code, words):
    done = Bai(tmp_path, environ)("ps", code=code)
    assert done.stdout == "" and all(word in done.stderr for word in words), done.stderr


@served
def test_a_wrong_keypair(bai):
    stranger = Bai(bai.home, bai.environ | {"BACKEND_SECRET_KEY": "x" * 40})
    done = stranger("ps", code=1)
    assert done.stdout == "" and "Signature mismatch" in done.stderr and "help: check BACKEND_ACCESS_KEY" in done.stderr
    assert "x" * 40 not in done.stderr
