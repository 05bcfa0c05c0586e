"""The official SDK: synchronous and asynchronous sessions, and the execute state machine."""

import asyncio
import base64
import time

import pytest
from ai.backend.client.exceptions import BackendAPIError
from ai.backend.client.session import AsyncSession, Session

pytestmark = pytest.mark.usefixtures("client_environ")


def drive(compute, mode, code="", opts=None, answers=()):
    """The documented client loop; returns console items, statuses and the last reply."""
    console, statuses, run_id, answers = [], [], None, list(answers)
    while True:
        reply = compute.execute(run_id, code, mode=mode, opts=opts)
        run_id = reply["runId"]
        console += reply["console"]
        statuses.append(reply["status"])
        if reply["status"] == "finished":
            return console, statuses, reply
        if reply["status"] == "waiting-input":
            mode, code = "input", answers.pop(0)
        else:
            mode, code = "continue", ""


def text(console, stream="stdout"):
    return "".join(data for kind, data in console if kind == stream)


@pytest.fixture
def compute(name):
    with Session() as session:
        compute = session.ComputeSession.get_or_create("python", name=name)
        yield compute
        compute.destroy(forced=True)


def test_query_keeps_state(compute):
    assert drive(compute, "query", "a = 20")[1] == ["finished"]
    console, _, last = drive(compute, "query", "print(a + 1)\na * 2")
    assert text(console) == "21\n40\n" and last["exitCode"] == 0


def test_long_query_continues(compute):
    console, statuses, _ = drive(compute, "query", "import time\nprint('one', flush=True)\ntime.sleep(3)\nprint('two')")
    assert text(console) == "one\ntwo\n" and "continued" in statuses


def test_input_and_password(compute):
    console, statuses, _ = drive(compute, "query", "print('got', input('name? '))", answers=["bob"])
    assert statuses.count("waiting-input") == 1 and "got bob" in text(console)
    reply = compute.execute(None, "import getpass; print(len(getpass.getpass()))", mode="query")
    while reply["status"] == "continued":
        reply = compute.execute(reply["runId"], "", mode="continue")
    assert reply["status"] == "waiting-input" and reply["options"]["is_password"] is True
    reply = compute.execute(reply["runId"], "secret", mode="input")
    console = reply["console"]
    while reply["status"] != "finished":
        reply = compute.execute(reply["runId"], "", mode="continue")
        console += reply["console"]
    assert "6" in text(console)


def test_batch_steps(compute, tmp_path):
    (tmp_path / "main.py").write_text("print('ran')")
    compute.upload([tmp_path / "main.py"], basedir=tmp_path)
    opts = {"clean": "echo cleaning", "build": "echo building", "buildLog": True, "exec": "*"}
    console, statuses, last = drive(compute, "batch", opts=opts)
    assert [s for s in statuses if s.endswith("finished")] == ["clean-finished", "build-finished", "finished"]
    assert "ran" in text(console) and last["exitCode"] == 0
    _, _, last = drive(compute, "batch", opts={"clean": None, "build": "exit 7", "buildLog": False, "exec": "echo no"})
    assert last["exitCode"] == 127


def test_complete(compute):
    drive(compute, "query", "import collections")
    result = compute.complete("collections.Ord", opts={"row": 0, "col": 15, "line": "collections.Ord", "post": ""})
    completions = result["result"]["completions"] if "result" in result else result["completions"]
    assert any("OrderedDict" in item for item in completions)


def test_interrupt_of_a_busy_loop(compute):
    reply = compute.execute(None, "while True: pass", mode="query")
    assert reply["status"] == "continued"
    compute.interrupt()
    started = time.monotonic()
    console = []
    while reply["status"] != "finished":
        reply = compute.execute(reply["runId"], "", mode="continue")
        console += reply["console"]
    assert time.monotonic() - started < 10 and "KeyboardInterrupt" in text(console, "stderr")
    assert text(drive(compute, "query", "print('alive')")[0]) == "alive\n"


def test_matplotlib_figure_is_media(compute):
    console, _, _ = drive(compute, "query", "import importlib.util as u; print(u.find_spec('matplotlib') is not None)")
    if "True" not in text(console):
        return  # the tiny container image has none; the process back end's interpreter is checked by the runner's tests
    console, _, _ = drive(compute, "query", "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")
    media = [data for kind, data in console if kind == "media"]
    assert media and media[0][0] == "image/png" and media[0][1].startswith("data:image/png;base64,")
    assert base64.b64decode(media[0][1].split(",", 1)[1]).startswith(b"\x89PNG")


def test_problem_bodies(compute):
    with pytest.raises(BackendAPIError) as failure:
        compute.execute("no-such-run", "", mode="continue")
    assert failure.value.status == 400


async def run_async(compute, mode, code):
    run_id, console = None, []
    while True:
        reply = await compute.execute(run_id, code, mode=mode)
        run_id = reply["runId"]
        console += reply["console"]
        if reply["status"] == "finished":
            return text(console), time.monotonic()
        mode, code = "continue", ""


def test_asynchronous_session_and_two_overlapping_runs(name):
    async def scenario():
        async with AsyncSession() as session:
            compute = await session.ComputeSession.get_or_create("python", name=name)
            try:
                first = asyncio.create_task(run_async(compute, "query", "import time; time.sleep(1.5); print('first')"))
                await asyncio.sleep(0.3)
                second = asyncio.create_task(run_async(compute, "query", "print('second')"))
                (one, one_at), (two, two_at) = await asyncio.gather(first, second)
                assert (one, two) == ("first\n", "second\n") and one_at <= two_at + 0.1
                stream_console = []
                async with compute.stream_execute("print(6 * 7)", mode="query") as stream:
                    async for result in stream:
                        import json
                        stream_console += json.loads(result.data)["console"] if hasattr(result, "data") else result["console"]
                assert text(stream_console) == "42\n"
            finally:
                await compute.destroy(forced=True)
    asyncio.run(scenario())
