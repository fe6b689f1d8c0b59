"""Windows and macOS by construction: calls that POSIX alone has stand in generation/system.py, processes are started
afresh, text files name their encoding, and the output takes whatever encoding it finds.

What is not run here (the other systems themselves) is read out of the sources instead.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("generation", "reconstruction", "exporters", "configs", "scripts")
HOME = "generation/system.py"
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog", "termios", "tty"}
OF_OS = set(
    "WNOHANG chmod chown chroot confstr fchdir fchmod fchown fork forkpty fstatvfs getegid geteuid getgid getgroups "
    "getloadavg getpgid getpgrp getpriority getsid getuid getxattr initgroups kill killpg lchown link listxattr lockf "
    "memfd_create mkfifo mknod name nice openpty pathconf pidfd_open pipe2 posix_fadvise posix_fallocate posix_spawn "
    "pread preadv pwrite pwritev readv register_at_fork removexattr sched_getaffinity sched_setaffinity sched_yield "
    "sendfile setgid setpgid setpriority setsid setuid setxattr splice statvfs symlink sync sysconf ttyname umask "
    "uname wait wait3 wait4 waitid waitpid writev O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC".split()
)
"""Of `os`: what Windows lacks, or what means another thing there (chmod, kill, link, name, symlink, umask)."""
OF_OTHERS = {
    "ctypes": {"CDLL", "PyDLL", "WinDLL"},
    "select": {"devpoll", "epoll", "kqueue", "poll", "select"},
    "shlex": {"join", "quote"},
    "signal": {"alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt", "sigwait"},
    "socket": {"AF_UNIX", "SO_REUSEPORT", "fromfd", "socketpair"},
    "sys": {"platform"},
    "time": {"clock_gettime", "pthread_getcpuclockid", "tzset"},
    "multiprocessing": {"Manager", "Pipe", "Pool", "Process", "Queue", "SimpleQueue", "set_start_method"},
}
"""Of other modules; of multiprocessing what would fork here."""
SIGNALS_EVERYWHERE = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
OF_SUBPROCESSES = ("pass_fds", "preexec_fn", "process_group", "shell", "start_new_session", "umask")
METHODS = {"chmod", "hardlink_to", "lchmod", "mkfifo", "symlink_to"}
PLACES = ("/bin/", "/dev/", "/etc/", "/home/", "/proc/", "/sys/", "/tmp", "/usr/", "/var/")
ALLOWED = {
    "configs/doctor.py": {"ctypes.CDLL", "a place /usr/local/cuda"}  # libraries of Debian, looked for on Linux alone
}
_NEW_PROCESSES = {"Popen", "run", "call", "check_call", "check_output"}


@cache
def _sources() -> dict[str, ast.Module]:
    """Syntax trees of all modules, by their paths."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_bytes()) for path in paths}


def _findings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each call, word or place that another system lacks."""
    documents = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"import {a.name}") for a in node.names if a.name in POSIX_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            if node.module in POSIX_MODULES:
                yield node.lineno, f"import {node.module}"
            yield from ((node.lineno, f"{node.module}.{a.name}") for a in node.names if _is_of(node.module, a.name))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if _is_of(node.value.id, node.attr):
                yield node.lineno, f"{node.value.id}.{node.attr}"
            elif node.attr in METHODS:
                yield node.lineno, f".{node.attr}"
        elif isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield node.lineno, f".{node.attr}"
        elif isinstance(node, ast.Call):
            yield from _findings_in_call(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            if node.value.startswith(PLACES):
                yield node.lineno, f"a place {node.value}"


def _is_of(module: str, name: str) -> bool:
    if module == "os":
        return name in OF_OS
    if module == "signal" and name.startswith("SIG"):
        return name not in SIGNALS_EVERYWHERE
    return name in OF_OTHERS.get(module.rsplit(".", maxsplit=1)[-1], ())


def _findings_in_call(node: ast.Call) -> Iterator[tuple[int, str]]:
    name, keywords = _name(node.func), {word.arg for word in node.keywords}
    yield from ((node.lineno, f"{word}= of a process") for word in OF_SUBPROCESSES if word in keywords)
    if name == "get_context" and [getattr(a, "value", None) for a in node.args] != ["spawn"]:
        yield node.lineno, "processes that are not started afresh"
    if name == "ProcessPoolExecutor" and "mp_context" not in keywords:
        yield node.lineno, "a pool of processes without mp_context"
    if name == "DataLoader" and "num_workers" in keywords and "multiprocessing_context" not in keywords:
        yield node.lineno, "a DataLoader without multiprocessing_context"


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _without_encoding(tree: ast.AST) -> Iterator[int]:
    """Lines that read or write text in whatever encoding the system prefers."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or "encoding" in {word.arg for word in node.keywords}:
            continue
        name, words = _name(node.func), {word.arg: word.value for word in node.keywords}
        is_method = isinstance(node.func, ast.Attribute)
        if (name == "read_text" and not node.args) or (name == "write_text" and len(node.args) < 2):
            yield node.lineno
        elif name in ("open", "fdopen") and not _is_binary(node, is_method):
            yield node.lineno
        elif name in _NEW_PROCESSES and {"text", "universal_newlines"} & set(words):
            yield node.lineno
        elif name in ("NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"):
            mode = words.get("mode", node.args[0] if node.args else None)
            if isinstance(mode, ast.Constant) and "b" not in str(mode.value):
                yield node.lineno
        elif name == "TextIOWrapper" and len(node.args) < 2:
            yield node.lineno


def _is_binary(node: ast.Call, is_method: bool) -> bool:
    """Whether a call of something named open opens no text file."""
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    if isinstance(owner, ast.Name) and owner.id not in ("os", "path", "self", "io"):
        first = node.args[0] if node.args else None
        modes = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
        if not modes or not set(str(modes[0])) <= set("rwaxbt+"):
            return first is not None or owner.id not in ("file", "path")  # Image.open(path), av.open(path) ...
    given = [word.value for word in node.keywords if word.arg == "mode"]
    place = 0 if is_method and not (isinstance(owner, ast.Name) and owner.id in ("os", "io")) else 1
    given += node.args[place : place + 1]
    return any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in given)


def test_what_only_posix_has_stands_in_one_module() -> None:
    trees = _sources()
    found = {(name, line, what) for name, tree in trees.items() if name != HOME for line, what in _findings(tree)}
    assert len(trees) > 300 and len(list(_findings(trees[HOME]))) > 10
    assert sorted(entry for entry in found if entry[2] not in ALLOWED.get(entry[0], ())) == []


def test_text_files_name_their_encoding() -> None:
    assert [f"{name}:{line}" for name, tree in _sources().items() for line in _without_encoding(tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import fcntl",
        "from resource import getrusage",
        "import os\nos.fork()",
        "from os import setsid",
        "os.kill(1, 9)",
        "os.umask(0)",
        "os.chmod(path, 0)",
        "path.chmod(0)",
        "Path(name).symlink_to(other)",
        "signal.SIGKILL",
        "signal.SIGHUP",
        "signal.alarm(3)",
        "sys.platform == 'win32'",
        "if os.name == 'nt': pass",
        "Path('/proc/meminfo')",
        "open('/dev/shm/x', 'rb')",
        "f(folder='/tmp')",
        "subprocess.run(words, preexec_fn=f)",
        "subprocess.Popen(words, start_new_session=True)",
        "subprocess.run('a | b', shell=True)",
        "multiprocessing.Process(target=f)",
        "multiprocessing.get_context('fork')",
        "multiprocessing.get_context()",
        "torch.multiprocessing.get_context(method)",
        "ProcessPoolExecutor(4)",
        "DataLoader(data, num_workers=4)",
        "shlex.quote(path)",
    ],
)
def test_such_a_call_is_found(code: str) -> None:
    assert len(list(_findings(ast.parse(code)))) >= 1


@pytest.mark.parametrize(
    "code",
    [
        "path.read_text()",
        "path.write_text('x')",
        "open(path)",
        "open(path, 'w')",
        "path.open('a')",
        "path.open()",
        "os.fdopen(handle, 'w')",
        "subprocess.run(words, text=True)",
        "tempfile.NamedTemporaryFile('w')",
        "io.TextIOWrapper(file)",
    ],
)
def test_text_without_an_encoding_is_found(code: str) -> None:
    assert list(_without_encoding(ast.parse(code))) == [1]


@pytest.mark.parametrize(
    "code",
    [
        "path.read_text('utf-8')",
        "path.write_text('x', encoding='ascii')",
        "open(path, 'rb')",
        "path.open('ab+', buffering=0)",
        "Image.open(path)",
        "av.open(str(path), 'w', format='mp4')",
        "subprocess.run(words, encoding='utf-8')",
        "os.fdopen(handle, 'wb')",
    ],
)
def test_text_with_an_encoding_is_let_pass(code: str) -> None:
    assert list(_without_encoding(ast.parse(code))) == []


def _command(words: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-m", "dp360.configs.cli", *words], cwd=cwd, env={**kept, **environment}, check=False,
        capture_output=True, timeout=300,
    )  # fmt: skip


ENCODINGS = {
    "cp1252": {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    "c-locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("environment", ENCODINGS.values(), ids=ENCODINGS)
def test_help_and_names_of_files_are_printed_in_any_encoding(environment: dict[str, str], tmp_path: Path) -> None:
    done = _command(["--help"], tmp_path, **environment)
    assert done.returncode == 0 and b"doctor" in done.stdout, done.stderr.decode("utf-8", "replace")
    if environment.get("LC_ALL") == "C":
        return  # names of files themselves are bytes there
    done = _command(["example", "ansicht-\u00e9-\u65e5\u672c.png"], tmp_path, **environment)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert (tmp_path / "ansicht-\u00e9-\u65e5\u672c.png").is_file()
    assert rb"\u65e5\u672c.png" in done.stdout


def test_an_error_names_a_file_in_any_encoding(tmp_path: Path) -> None:
    done = _command(["view", "\u65e5\u672c.ply"], tmp_path, **ENCODINGS["cp1252"])
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr and rb"\u65e5\u672c.ply" in done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="a system without signals")
def test_asked_to_end_is_told_apart_from_ctrl_c() -> None:
    from dp360.configs.console import EXIT_INTERRUPTED, EXIT_TERMINATED, errors_for_people
    from dp360.generation.system import ENDING_SIGNALS

    at_first = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    try:
        for number, code in ((signal.SIGINT, EXIT_INTERRUPTED), *((s, EXIT_TERMINATED) for s in ENDING_SIGNALS)):
            before = signal.getsignal(number)
            with pytest.raises(SystemExit) as ended, errors_for_people():
                signal.raise_signal(number)
            assert ended.value.code == code and signal.getsignal(number) is before
    finally:
        signal.signal(signal.SIGINT, at_first)
