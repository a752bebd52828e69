"""docs/gunicorn.md and docs/uwsgi.md: the servers run as the pages say, and the client's output is the pages'."""

from __future__ import annotations

import configparser
import importlib.util
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from dbzero.storage.verify import check_root
from tests.scripts import run

from .pages import ADDRESS, page
from .servers import Server

COMMANDS = [
    (f"{server}.md", command) for server in ("gunicorn", "uwsgi") for command in page(f"{server}.md").starting(server)
]

FIRST = [page("gunicorn.md").starting("gunicorn")[0]]  # started once more, with data


WORKERS = {"gevent": "gevent", "uvicorn_worker.UvicornWorker": "uvicorn_worker"}  # worker class -> package


def missing(server: str, command: list[str] | None = None) -> str:
    """Why the server can't be tested here, or nothing."""
    for word in command or ():
        if word in WORKERS and importlib.util.find_spec(WORKERS[word]) is None:
            return f"{WORKERS[word]} is not installed"
    if importlib.util.find_spec("flask") is None:
        return "flask is not installed"
    if server == "gunicorn":
        return "" if importlib.util.find_spec("gunicorn") else "gunicorn is not installed"
    return "" if (Path(sys.executable).parent / server).exists() else f"{server} is not installed"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[" ".join(command[5:-1]) for _, command in COMMANDS])
def test_the_load_is_counted_and_outlives_the_server(tmp_path: Path, name: str, command: list[str]) -> None:
    if reason := missing(command[0], command):
        pytest.skip(reason)
    guide = page("gunicorn.md")
    guide.write(tmp_path)
    page(name).write(tmp_path)
    ((client, printed),) = guide.printed
    for _ in range(2 if command in FIRST else 1):
        with Server(command, tmp_path) as server:
            arguments = [word.replace(f"http://{ADDRESS}", server.url) for word in client[1:]]
            assert run(*arguments, cwd=tmp_path) == printed, server.log.read_text()
        log = server.log.read_text()
        assert "Traceback" not in log, log
        assert server.process.returncode == 0, log
    assert check_root(str(tmp_path / "data")) == []


def test_a_fork_without_hooks_is_a_typed_error(tmp_path: Path) -> None:
    """As docs/uwsgi.md says."""
    if reason := missing("uwsgi"):
        pytest.skip(reason)
    page("gunicorn.md").write(tmp_path)
    command = [word for word in page("uwsgi.md").starting("uwsgi")[0] if word != "--py-call-uwsgi-fork-hooks"]
    with Server(command, tmp_path) as server:
        request = urllib.request.Request(f"{server.url}/hit/page/visitor", method="POST")
        with pytest.raises(urllib.error.HTTPError) as failed:
            urllib.request.urlopen(request, timeout=30)
        failed.value.close()
        assert failed.value.code == 500
        assert (
            psutil.Process(server.process.pid).num_threads() == 1
        )  # one that has the GIL at the fork is the end of all workers
    log = server.log.read_text()
    assert "dbzero.errors.ForkedError: prefix 'site'" in log, log
    assert "--py-call-uwsgi-fork-hooks" in log


def test_the_file_of_uwsgi_says_what_the_command_does() -> None:
    guide = page("uwsgi.md")
    parser = configparser.ConfigParser()
    parser.read_string(guide.files["uwsgi.ini"])
    words = [
        part
        for name, value in parser["uwsgi"].items()
        for part in ([f"--{name}"] if value == "true" else [f"--{name}", value])
    ]
    assert words == guide.starting("uwsgi")[0][1:]


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 8
