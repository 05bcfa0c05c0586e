# Query mode of Python: one interpreter that lives as long as its kernel and runs cells for the runner.
#
# Two inherited sockets connect it to the runner, beside standard output and error, which are pipes:
#
#   control      requests of the runner (exec, answers to ours) and our messages (begin, done, media, input, …)
#   completion   requests for completions; SIGURG says that one is there, so a busy cell answers too
#
# A message is a little-endian 32-bit length and JSON. Messages that must keep their place in the output
# (media, input, a change from stdout to stderr) wait until the runner has read all output before them.
import _thread
import ast
import builtins
import io
import json
import keyword
import linecache
import os
import re
import select
import signal
import sys
import traceback
import types

DRIVER = "<bai-driver>"
MAX_MEDIA = 10 << 20
KEPT_SOURCES = 200
CO_COROUTINE = 0x80
TOP_LEVEL_AWAIT = getattr(ast, "PyCF_ALLOW_TOP_LEVEL_AWAIT", 0)

main_thread = _thread.get_ident()


class State:
    running = False  # a cell is being executed
    shielded = 0  # how many sections may not be interrupted now
    owed = False  # an interrupt came inside such a section
    child = False  # this is a forked copy of the interpreter
    last_stream = None
    completing = False  # completions are being answered


class Shield:
    """Messages must be whole: an interrupt waits until the end of the section."""

    def __enter__(self):
        if _thread.get_ident() == main_thread:
            State.shielded += 1

    def __exit__(self, *exc):
        if _thread.get_ident() == main_thread:
            State.shielded -= 1
            if State.running and not State.shielded:
                raise_owed()


shield = Shield()


def on_interrupt(signum, frame):
    if not State.running:
        return
    # Never in the middle of our own bookkeeping: the cell's code, or the end of the section, gets it then.
    if State.shielded or frame.f_code in BOOKKEEPING:
        State.owed = True
        return
    raise KeyboardInterrupt


def raise_owed():
    if State.owed:
        State.owed = False
        raise KeyboardInterrupt


class Channel:
    def __init__(self, fd):
        os.set_inheritable(fd, False)
        self.fd = fd
        self.lock = _thread.allocate_lock()
        self.buffer = b""
        self.poll = select.poll()
        self.poll.register(fd, select.POLLIN)
        self.beside = None

    def listen_beside(self, channel, action):
        """While waiting here, `action` is called when something is there on another channel."""
        self.beside = (channel.fd, action)
        self.poll.register(channel.fd, select.POLLIN)

    def send(self, message):
        data = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
        view = memoryview(len(data).to_bytes(4, "little") + data)
        with shield:
            with self.lock:
                while view:
                    view = view[os.write(self.fd, view):]

    def _fill(self, timeout):
        ready = [fd for fd, _ in self.poll.poll(timeout)]
        if self.beside and self.beside[0] in ready:
            # Its signal may have come just before the waiting began, and then would not end it.
            self.beside[1]()
        if self.fd not in ready:
            return bool(ready)
        with shield:
            part = os.read(self.fd, 1 << 16)
            if not part:
                raise EOFError
            self.buffer += part
        return True

    def receive(self, timeout=None):
        """The next message; None when there is none within the milliseconds of the timeout."""
        while True:
            with shield:
                size = 4 + int.from_bytes(self.buffer[:4], "little")
                if len(self.buffer) >= max(size, 4) and len(self.buffer) >= 4:
                    data, self.buffer = self.buffer[4:size], self.buffer[size:]
                    return json.loads(data.decode())
            if not self._fill(timeout):
                return None


control = Channel(int(sys.argv[2]))
completion = Channel(int(sys.argv[3]))
waiting = []  # exec messages that came while an answer was awaited
calls = 0


def can_call():
    return State.running and not State.child and _thread.get_ident() == main_thread


def call(message):
    """Sends a message and waits for its answer."""
    global calls
    calls += 1
    number = message["id"] = calls
    control.send(message)
    while True:
        answer = control.receive()
        if answer.get("op") == "exec":
            waiting.append(answer)
        elif answer.get("id") == number:
            return answer


def after_fork():
    State.child = True
    for channel in (control, completion):
        os.close(channel.fd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGURG, signal.SIG_DFL)


# ---- standard streams ------------------------------------------------------------------------------------------


class Stream(io.TextIOWrapper):
    """Standard output or error. A change from one to the other is synchronised, so that their order is kept."""

    def write(self, text):
        if State.last_stream is not self:
            self.take_turn()
        return io.TextIOWrapper.write(self, text)

    def take_turn(self):
        if _thread.get_ident() != main_thread:
            return
        previous, State.last_stream = State.last_stream, self
        if previous is not None and can_call() and not previous.closed:
            previous.flush()
            call({"op": "sync"})


def open_stream(fd):
    raw = io.BufferedWriter(io.FileIO(fd, "w", closefd=False), 1 << 16)
    stream = Stream(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    stream.mode = "w"
    return stream


def restore_streams():
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name, None)
        if stream is None or getattr(stream, "closed", False):
            stream = open_stream(fd)
            setattr(sys, name, stream)
            setattr(sys, "__%s__" % name, stream)


def flush_streams():
    for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}:
        try:
            stream.flush()
        except Exception:
            pass


# ---- input -----------------------------------------------------------------------------------------------------


def ask(prompt, password):
    if not can_call():
        raise EOFError("input is only available to the main thread while a cell is running")
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    return call({"op": "input", "password": password})["text"]


def input_(prompt=""):
    """Reads a line of text from the user."""
    return ask(prompt, False)


def getpass_(prompt="Password: ", stream=None, **options):
    """Reads a line of text from the user that should not be shown."""
    return ask(prompt, True)


input_.__name__ = "input"
getpass_.__name__ = "getpass"


# ---- rich output -----------------------------------------------------------------------------------------------


def publish(mime, data):
    """Sends an item to the client: HTML as such, images as data URIs, other texts as they are."""
    if isinstance(data, tuple):
        data = data[0]
    if isinstance(data, (bytes, bytearray)):
        if mime.startswith("image/") and mime != "image/svg+xml":
            import base64

            data = base64.b64encode(data).decode()
        else:
            data = bytes(data).decode("utf-8", "replace")
    data = str(data)
    if mime in ("image/png", "image/jpeg", "image/gif", "image/webp"):
        data = "data:%s;base64,%s" % (mime, "".join(data.split()))
    if len(data) > MAX_MEDIA:
        sys.stderr.write("an item of type %s is too large to be shown\n" % mime)
        return
    message = {"op": "html", "data": data} if mime == "text/html" else {"op": "media", "mime": mime, "data": data}
    if can_call():
        sys.stdout.flush()
        sys.stderr.flush()
        call(message)
    elif not State.child:
        control.send(message)


def publish_figure(figure):
    data = io.BytesIO()
    figure.canvas.print_figure(data, format="png", bbox_inches="tight", dpi=figure.dpi)
    publish("image/png", data.getvalue())


def is_figure(value):
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(value, getattr(module, "Figure", ()))


def open_figures():
    pyplot = sys.modules.get("matplotlib._pylab_helpers")
    return [] if pyplot is None else [m.canvas.figure for m in pyplot.Gcf.get_all_fig_managers()]


def show_open_figures():
    if open_figures():
        backend = sys.modules.get("bai_mpl_backend")
        if backend is not None:
            backend.show()


def rich_form(value):
    """The first form other than plain text that a value offers, as (mime, data)."""
    if isinstance(value, type):
        return None
    bundle = getattr(value, "_repr_mimebundle_", None)
    if callable(bundle):
        data = bundle()
        data = data[0] if isinstance(data, tuple) else data
        for mime, item in (data or {}).items():
            if mime != "text/plain" and item is not None:
                return mime, item if isinstance(item, (str, bytes)) else json.dumps(item)
    for name, mime in (
        ("_repr_html_", "text/html"),
        ("_repr_svg_", "image/svg+xml"),
        ("_repr_png_", "image/png"),
        ("_repr_jpeg_", "image/jpeg"),
    ):
        method = getattr(value, name, None)
        data = method() if callable(method) else None
        if data is not None:
            return mime, data
    return None


def display(*values):
    """Shows values in their richest form."""
    for value in values:
        if is_figure(value):
            if value not in open_figures():  # an open one is shown at the end of the cell
                publish_figure(value)
            continue
        try:
            form = rich_form(value)
        except Exception:
            form = None
        if form is not None:
            publish(*form)
        else:
            sys.stdout.write(repr(value) + "\n")


# ---- running cells ---------------------------------------------------------------------------------------------


user_main = types.ModuleType("__main__")
user_main.__builtins__ = builtins
namespace = user_main.__dict__
future_flags = 0
event_loop = None
sources = []


def future_mask():
    import __future__

    mask = 0
    for name in __future__.all_feature_names:
        mask |= getattr(__future__, name).compiler_flag
    return mask


FUTURES = future_mask()


def remember_source(name, source):
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    sources.append(name)
    if len(sources) > KEPT_SOURCES:
        linecache.cache.pop(sources.pop(0), None)


def await_(coroutine):
    global event_loop
    import asyncio

    if event_loop is None or event_loop.is_closed():
        event_loop = asyncio.new_event_loop()
        asyncio.set_event_loop(event_loop)
    task = event_loop.create_task(coroutine)
    try:
        return event_loop.run_until_complete(task)
    except KeyboardInterrupt:
        task.cancel()
        try:
            event_loop.run_until_complete(task)
        except BaseException:
            pass
        raise


def evaluate(tree, name, mode):
    global future_flags
    code = compile(tree, name, mode, future_flags | TOP_LEVEL_AWAIT, True)
    future_flags |= code.co_flags & FUTURES
    raise_owed()
    result = eval(code, namespace)
    return await_(result) if code.co_flags & CO_COROUTINE and result is not None else result


def parse(source, name):
    flags = ast.PyCF_ONLY_AST | TOP_LEVEL_AWAIT | future_flags
    try:
        return compile(source, name, "exec", flags, True)
    except SyntaxError:
        changed = re.sub(r"^([ \t]*)([!%][^\n]*)", rewrite_magic, source, flags=re.M)
        if changed == source:
            raise
        try:
            return compile(changed, name, "exec", flags, True)
        except SyntaxError:
            pass
        raise


def run_source(source, name):
    tree = parse(source, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        last = ast.Expression(tree.body.pop().value)
    if tree.body:
        evaluate(tree, name, "exec")
    if last is not None:
        value = evaluate(last, name, "eval")
        if value is not None:
            builtins._ = value
            display(value)


def report(error):
    """Prints an exception as Python does, without the frames of this file."""
    sys.last_type, sys.last_value = type(error), error
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename == DRIVER:
        tb = tb.tb_next
    last, frame = tb, tb
    while frame is not None:
        if frame.tb_frame.f_code.co_filename != DRIVER:
            last = frame
        frame = frame.tb_next
    if last is not None:
        last.tb_next = None
    sys.last_traceback = error.__traceback__ = tb
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, tb)
    else:
        traceback.print_exception(type(error), error, tb)


def exit_code(value):
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFF
    sys.stderr.write("%s\n" % (value,))
    return 1


def attempt(action, *args):
    """Runs a part of a cell. Whatever it raises is shown; the result is an exit code."""
    try:
        try:
            action(*args)
            return 0
        except SystemExit as error:
            return exit_code(error.code)
        except BaseException as error:
            report(error)
            return 1
    except BaseException as error:  # an interrupt during the report, a broken hook, a closed stream
        try:
            os.write(2, ("%s\n" % type(error).__name__).encode())
        except OSError:
            pass
        return 1


def run_cell(message):
    number = message["cell"]
    name = "<cell-%d>" % number
    remember_source(name, message["code"])
    sys.modules["__main__"] = user_main
    State.last_stream = None
    State.owed = False
    signal.signal(signal.SIGINT, on_interrupt)
    State.shielded += 1  # from here on interrupts are noted, and raised in the cell's code
    State.running = True
    control.send({"op": "begin", "cell": number})
    State.shielded -= 1
    code = attempt(run_source, message["code"], name)
    code = attempt(show_open_figures) or code
    attempt(flush_streams)
    State.running = False
    restore_streams()
    signal.signal(signal.SIGINT, on_interrupt)
    flush_streams()
    if State.child:  # a forked copy that fell out of the cell does not go on as a second interpreter
        os._exit(0)
    control.send({"op": "done", "cell": number, "code": code if message.get("strict") else 0})


# ---- lines that are not Python ---------------------------------------------------------------------------------


def rewrite_magic(match):
    return "%s__bai_line__(%r)" % (match.group(1), match.group(2))


def run_line(line):
    import subprocess

    if line.startswith("!"):
        subprocess.call(line[1:], shell=True)
        return
    name, _, rest = line.lstrip("%").strip().partition(" ")
    if name == "pip":
        subprocess.call("%s -m pip %s" % (sys.executable, rest), shell=True)
    elif name == "cd":
        os.chdir(os.path.expanduser(rest.strip() or "~"))
    elif name == "env":
        key, _, value = rest.partition("=")
        os.environ[key.strip()] = value.strip()
    elif name not in ("matplotlib", "config", "load_ext", "autoreload"):
        raise SyntaxError("unknown command: %" + name)


# ---- completion ------------------------------------------------------------------------------------------------


def name_matches(word):
    names = set(keyword.kwlist) | set(dir(builtins)) | set(namespace)
    return [name for name in names if name.startswith(word) and (word or not name.startswith("_"))]


def attribute_matches(path, word):
    parts = path.split(".")
    if parts[0] in namespace:
        value = namespace[parts[0]]
    else:
        value = getattr(builtins, parts[0])
    for part in parts[1:]:
        value = getattr(value, part)
    names = [n for n in dir(value) if n.startswith(word) and (word.startswith("_") or not n.startswith("_"))]
    return ["%s.%s" % (path, name) for name in names]


def module_matches(word):
    import pkgutil

    path, _, tail = word.rpartition(".")
    if path:
        module = sys.modules.get(path) or __import__(path, fromlist=["_"])
        found = pkgutil.iter_modules(getattr(module, "__path__", []))
        return ["%s.%s" % (path, m.name) for m in found if m.name.startswith(tail)]
    names = {m.name for m in pkgutil.iter_modules()} | set(sys.builtin_module_names)
    return [name for name in names if name.startswith(word) and (word or not name.startswith("_"))]


def complete(request):
    line = request.get("line") or (request.get("code") or "").rpartition("\n")[2]
    word = re.search(r"[\w.]*$", line).group()
    imported = re.match(r"\s*from\s+([\w.]+)\s+import\s+(?:.*,\s*)?(\w*)$", line)
    try:
        if imported:
            module = sys.modules.get(imported.group(1)) or __import__(imported.group(1), fromlist=["_"])
            found = [n for n in dir(module) if n.startswith(imported.group(2)) and not n.startswith("_")]
        elif re.match(r"\s*(import|from)\s+[\w.,\s]*$", line):
            found = module_matches(word)
        elif "." in word:
            found = attribute_matches(*word.rpartition(".")[::2])
        else:
            found = name_matches(word)
    except Exception:
        found = []
    return sorted(found)[:1000]


def on_completion(signum=None, frame=None):
    """Answers the requests that are there: called by a signal, or by who waits for the runner."""
    while not State.completing and completion.poll.poll(0):
        State.completing = True
        State.shielded += 1
        try:
            request = completion.receive(0)
            if request is not None:
                completion.send({"id": request["id"], "suggestions": complete(request)})
            State.completing = False
        except (EOFError, OSError):
            pass  # the runner is gone, and so will this process be; `completing` stays set
        finally:
            State.shielded -= 1
    if State.running and not State.shielded:
        raise_owed()


BOOKKEEPING = {
    f.__code__ for f in (run_cell, attempt, on_completion, Shield.__enter__, Shield.__exit__, raise_owed)
}


# ---- main ------------------------------------------------------------------------------------------------------


def prepare():
    sys.argv = [""]
    sys.stdout = sys.__stdout__ = open_stream(1)
    sys.stderr = sys.__stderr__ = open_stream(2)
    display_module = types.ModuleType("_bai_display")
    display_module.display = display
    display_module.publish = publish
    display_module.publish_figure = publish_figure
    sys.modules["_bai_display"] = display_module
    sys.modules["__main__"] = user_main
    namespace["__name__"] = "__main__"
    namespace["__bai_line__"] = run_line
    builtins.display = display
    builtins.input = input_
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=after_fork)
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGURG, on_completion)
    control.listen_beside(completion, on_completion)


def main():
    prepare()
    control.send({"op": "hello"})
    try:
        import getpass

        getpass.getpass = getpass_
    except ImportError:
        pass
    on_completion()
    while True:
        try:
            message = waiting.pop(0) if waiting else control.receive()
        except EOFError:
            return
        if message.get("op") == "exec":
            run_cell(message)


main()
