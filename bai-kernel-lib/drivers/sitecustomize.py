# Put in front of every Python of the kernel by PYTHONPATH.
#
# In batch mode there is no terminal, so input() and getpass.getpass() ask the kernel runner over a unix
# socket: one JSON line out, the answer until the end of the stream back.
import os
import sys

_UNAVAILABLE = "<user-input-unavailable>"


def _ask(prompt, is_password):
    import json
    import socket

    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(os.environ["_BACKEND_INPUT_SOCKET"])
            stream.sendall(json.dumps({"is_password": is_password}).encode() + b"\n")
            data = b""
            while True:
                part = stream.recv(4096)
                if not part:
                    break
                data += part
        return data.decode("utf-8", "replace")
    except (OSError, KeyError):
        return _UNAVAILABLE


class _GetpassFinder:
    """Patches the module getpass when it is first imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "getpass":
            return None
        import importlib.machinery

        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.getpass = lambda prompt="Password: ", stream=None, **options: _ask(prompt, True)

        spec.loader.exec_module = exec_module
        return spec


def _install():
    import builtins

    builtins.input = lambda prompt="": _ask(prompt, False)
    sys.meta_path.insert(0, _GetpassFinder())


def _run_next():
    """An image may have a sitecustomize of its own: it runs as if this one were not there."""
    import importlib.machinery

    here = os.path.dirname(os.path.abspath(__file__))
    path = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        module = type(sys)("sitecustomize")
        module.__file__ = spec.origin
        module.__spec__ = spec
        spec.loader.exec_module(module)


if os.environ.get("_BACKEND_BATCH_MODE") == "1":
    _install()
_run_next()
