"""Every command of the issue's list, as a person types it."""

import json
import re
import stat
import subprocess
import time

from conftest import wait_for


def session_id(done) -> str:
    """The session id that `start` prints."""
    return re.search(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", done.stdout + done.stderr)[0]


def test_ready_and_env_file(server):
    mode = (server.data / "env.sh").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    environ = server.environ()
    assert environ["BACKEND_ENDPOINT"] == server.endpoint
    assert environ["BACKEND_ENDPOINT_TYPE"] == "api"
    assert environ["BACKEND_ACCESS_KEY"].startswith("AKIA")


def test_config(cli):
    out = cli("config").stdout
    assert "v7.20230615" in out and cli.server.environ()["BACKEND_ACCESS_KEY"] in out


def test_ps(cli, session):
    assert session in cli("ps").stdout
    detail = cli("ps", "--detail").stdout
    assert session in detail and "RUNNING" in detail


def test_run_code_in_query_mode(cli):
    done = cli("run", "--rm", "-c", "print('hello world')", "python")
    assert "hello world" in done.stdout


def test_run_keeps_state_in_a_named_session(cli, name):
    cli("run", "-t", name, "-c", "x = 41", "python")
    assert "42" in cli("run", "-t", name, "-c", "print(x + 1)", "python").stdout
    assert "ZeroDivisionError" in cli("run", "-t", name, "-c", "1/0", "python", check=False).stderr
    cli("rm", name)


def test_run_asks_for_input(cli):
    done = cli("run", "--rm", "-c", "name = input('who? '); print('hi', name)", "python", stdin="bob\n", check=False)
    assert "hi bob" in done.stdout + done.stderr


def test_run_a_file_with_arguments(cli):
    (cli.workdir / "app.py").write_text("import sys; print('args', sys.argv[1:])")
    done = cli("run", "--rm", "--exec", "python app.py a b", "python", "app.py")
    assert "args ['a', 'b']" in done.stdout


def test_run_main_py_by_default(cli):
    (cli.workdir / "main.py").write_text("print('from main')")
    assert "from main" in cli("run", "--rm", "python", "main.py").stdout


def test_run_shows_the_exit_code_of_a_failing_build(cli):
    (cli.workdir / "main.py").write_text("print('never')")
    done = cli("run", "--rm", "--build", "exit 3", "python", "main.py", check=False)
    assert "never" not in done.stdout


def test_run_over_an_environment_range(cli):
    code = "import os; print('case', os.environ['CASENO'], 'done')"
    done = cli("run", "--rm", "-e", "CASENO=$X", "--env-range=X=case:1,2,3,4", "-c", code, "python", timeout=240)
    # With several cases the client writes each output to a file of its own.
    shown = done.stdout + done.stderr + "".join(p.read_text() for p in cli.workdir.rglob("*") if p.is_file())
    for case in "1234":
        assert f"CASENO={case}" in done.stdout
        assert f"case {case} done" in shown


def test_start_reuses_and_refuses(cli, session):
    again = cli("start", "-t", session, "python")
    assert "already running" in again.stderr + again.stdout
    refused = cli("start", "-t", session, "--no-reuse", "python", check=False)
    assert refused.returncode != 0 and "already exists" in refused.stderr


def test_start_enqueue_only_and_max_wait(cli, name):
    queued = cli("start", "-t", name, "--enqueue-only", "-r", "cpu=1000", "python")
    assert "enqueued" in queued.stderr + queued.stdout
    reason = wait_for(lambda: next(filter(lambda out: "no-available-instances" in out, [cli("info", session_id(queued)).stdout]), ""))
    assert "PENDING" in reason
    cli("rm", name)
    waited = cli("start", "-t", name + "b", "--max-wait", "1", "-r", "cpu=1000", "python", check=False)
    assert "still on the job queue" in waited.stderr + waited.stdout
    cli("rm", name + "b")


def test_info(cli, session):
    out = cli("info", session_id(cli("start", "-t", session, "python"))).stdout  # the client wants the id here
    assert session in out and "RUNNING" in out
    missing = cli("info", "00000000-0000-4000-8000-000000000000", check=False)
    assert missing.returncode != 0


def test_logs(cli, session):
    cli("run", "-t", session, "-c", "print('to the log')", "python")
    assert "to the log" in cli("session", "logs", session).stdout


def test_files(cli, session):
    (cli.workdir / "sub").mkdir()
    (cli.workdir / "sub" / "data.txt").write_text("payload")
    cli("session", "upload", session, "sub/data.txt")
    assert "data.txt" in cli("session", "ls", session, "sub").stdout
    (cli.workdir / "dl").mkdir()
    cli("session", "download", session, "sub/data.txt", "--dest", "dl")
    found = list((cli.workdir / "dl").rglob("data.txt"))
    assert found and found[0].read_text() == "payload"
    assert "no-such-dir" in cli("session", "ls", session, "no-such-dir", check=False).stderr


def test_download_of_a_missing_file_says_so(cli, session):
    done = cli("session", "download", session, "nothing.txt", check=False)
    assert done.returncode != 0 and "nothing.txt" in done.stderr


def test_rename(cli, session):
    new = session + "-new"
    cli("session", "rename", session, new)
    assert new in cli("ps").stdout
    cli("session", "rename", new, session)


def test_restart_keeps_files_and_drops_state(cli, session):
    cli("run", "-t", session, "-c", "open('kept', 'w').write('x'); y = 1", "python")
    cli("restart", session)
    done = cli("run", "-t", session, "-c", "import os; print(os.path.exists('kept'), 'y' in globals())", "python")
    assert "True False" in done.stdout


def test_events(cli, name):
    watcher = subprocess.Popen(
        ["timeout", "60", __import__("os").environ["BAI_TEST_CLIENT"], "events", name],
        env=__import__("os").environ | cli.server.environ() | {"HOME": str(cli.workdir), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    time.sleep(2)
    cli("start", "-t", name, "python")
    cli("rm", name)
    seen = []
    for line in watcher.stdout:
        seen.append(line.split(" ", 1)[0])
        if seen[-1] == "session_terminated":
            break
    watcher.kill()
    watcher.wait()
    for event in ["session_enqueued", "session_scheduled", "session_started", "session_terminating", "session_terminated"]:
        assert event in seen, seen
    assert seen.index("session_enqueued") < seen.index("session_started") < seen.index("session_terminated")


def test_rm_one_many_unknown_forced(cli, name):
    for suffix in "abc":
        cli("start", "-t", name + suffix, "python")
    cli("rm", name + "a")
    cli("rm", name + "b", name + "c")
    unknown = cli("rm", name + "a", check=False)
    assert unknown.returncode != 0 and "No such session" in unknown.stderr
    cli("start", "-t", name + "d", "python")
    cli("rm", "--forced", name + "d")
    assert name not in cli("ps", check=False).stdout  # `rm` returns when they have ended


def test_rm_shows_statistics(cli, name):
    cli("start", "-t", name, "python")
    done = cli("rm", "-s", name)
    for metric in ["cpu_used", "cpu_util", "mem", "io_read", "io_write", "net_rx", "net_tx"]:
        assert metric in done.stdout, (metric, done.stdout)


def test_status_history(cli, session):
    done = cli("session", "status-history", session)
    text = done.stdout + done.stderr
    assert "PENDING" in text and "RUNNING" in text


def test_admin_session_list(cli, name):
    for suffix in "ab":
        cli("start", "-t", name + suffix, "python")
    cli("rm", name + "b")
    running = cli("admin", "session", "list", "--running", "--format", "name,status,type").stdout
    assert name + "a" in running and name + "b" not in running and "INTERACTIVE" in running
    dead = cli("admin", "session", "list", "--dead", "--format", "name,status").stdout
    assert re.search(name + r"b\s+TERMINATED", dead)
    filtered = cli("admin", "session", "list", "-a", "--filter", f'name ilike "{name}%"', "--order", "-name", "--format", "name").stdout
    assert filtered.index(name + "b") < filtered.index(name + "a")
    as_json = json.loads(cli("--output=json", "admin", "session", "list", "-a", "--filter", f'name == "{name}a"').stdout)
    assert as_json["total_count"] == 1 and as_json["items"][0]["name"] == name + "a"
    cli("rm", name + "a")


def test_images_and_agents(cli):
    assert "python" in cli("admin", "image", "list").stdout
    assert "ALIVE" in cli("admin", "agent", "list").stdout


def test_a_batch_session_ends_by_itself(cli, name):
    cli("start", "-t", name, "--type", "batch", "-c", "echo out; exit 0", "python")
    def row():
        items = json.loads(cli("--output=json", "admin", "session", "list", "-a", "--format", "name,status,result",
                               "--filter", f'name == "{name}"').stdout)["items"]
        return items and items[0]["status"] == "TERMINATED" and items[0]
    assert wait_for(row)["result"] == "SUCCESS"
    assert "out" in cli("session", "logs", name).stdout


def test_bad_input_is_named(cli):
    for args, text in [
        (["start", "-t", "bad name!", "python"], "name"),
        (["start", "-t", "goodname", "no/such:image"], "No such environment image"),
        (["start", "-t", "goodname", "-r", "mem=1k", "python"], "mem"),
        (["start", "-t", "goodname", "-r", "cpu=-1", "python"], "cpu"),
        (["start", "-t", "goodname", "-r", "nosuch.slot=1", "python"], "nosuch.slot"),
    ]:
        done = cli(*args, check=False)
        assert done.returncode != 0 and text in done.stdout + done.stderr, (args, done.stdout, done.stderr)
