#!/usr/bin/env python3
"""A web application whose workers count in transactions, under load, with workers killed at random.

    stress/web_workers.py [--server gunicorn|gthread|preload|recycle|uwsgi|lazy] [--requests 50000] [--workers 4] [--clients 8] [--no-kills]

Each request counts a counter and an entry of a nested dict. At the end acknowledged <= value <= acknowledged + requests that were in flight at the kills;
without kills they are equal. Counter and dict must agree, the store must pass the check, and nothing may stay in shared memory.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from processes import SHM, Failure, verify

import dbzero as db0

APP = """
import json, os
import dbzero as db0

db0.init(os.environ["DBZERO_ROOT"], prefix="site", shared=True, cache_size=64 << 20)


@db0.memo(singleton=True, id="stress/Site")
class Site:
    def __init__(self):
        self.hits = 0
        self.pages = {}


with db0.atomic():
    site = Site()


@db0.transaction
def hit(page, visitor):
    site.hits += 1
    visitors = site.pages.setdefault(page, {})
    visitors[visitor] = visitors.get(visitor, 0) + 1
    return site.hits


def app(environ, start_response):
    _, page, visitor = environ["PATH_INFO"].split("/")
    body = json.dumps({"hits": hit(page, visitor), "pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""
LISTENING = re.compile(r"(?:Listening at: http://|bound to TCP address )127\.0\.0\.1:(\d+)")
GUNICORN = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--bind", "127.0.0.1:0", "--workers", "{workers}"]
UWSGI = [
    *(str(Path(sys.executable).parent / "uwsgi"), "--http-socket", "127.0.0.1:0", "--master", "--enable-threads"),
    *("--py-call-uwsgi-fork-hooks", "--need-app"),
    *("--die-on-term", "--disable-logging", "--virtualenv", sys.prefix, "--processes", "{workers}"),
]
SERVERS = {
    "gunicorn": [*GUNICORN, "app:app"],
    "gthread": [*GUNICORN, "--worker-class", "gthread", "--threads", "4", "app:app"],
    "preload": [*GUNICORN, "--preload", "app:app"],
    "recycle": [*GUNICORN, "--max-requests", "200", "--max-requests-jitter", "50", "app:app"],
    "uwsgi": [*UWSGI, "--module", "app:app"],
    "lazy": [*UWSGI, "--lazy-apps", "--max-requests", "1000", "--module", "app:app"],
}


@db0.memo(singleton=True, id="stress/Site")
class Site:
    """What the application stores: read back here under the same identity."""

    hits: int
    pages: dict[str, dict[str, int]]


class Server:
    """The server's master process. Its workers are its children."""

    def __init__(self, kind: str, workers: int, scratch: Path) -> None:
        (scratch / "app.py").write_text(APP)
        self.log = scratch / "server.log"
        command = [word.replace("{workers}", str(workers)) for word in SERVERS[kind]]
        environment = {**os.environ, "DBZERO_ROOT": str(scratch / "root"), "PYTHONUNBUFFERED": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=scratch, env=environment, stdout=log, stderr=log)
        self.port = 0

    def start(self, workers: int) -> None:
        """Wait for the port and the workers."""
        end = time.monotonic() + 60
        while not self.port or len(self.workers()) < workers:
            found = LISTENING.search(self.log.read_text())
            self.port = int(found[1]) if found else 0
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure(f"the server does not start:\n{self.tail()}")
            time.sleep(0.05)

    def workers(self) -> list[psutil.Process]:
        """The workers that live."""
        try:
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def segments(self) -> set[str]:
        """Names in /dev/shm that the workers have mapped."""
        found = set()
        for worker in self.workers():
            try:
                paths = [
                    Path(region.path.split()[0])
                    for region in worker.memory_maps()
                    if region.path.startswith("/dev/shm/")
                ]
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            found |= {path.name for path in paths}
        return found

    def stop(self, killed: bool) -> None:
        """In order; by force when that takes more than half a minute, which is a failure unless workers were killed: uwsgi
        waits for ever for one that it started again while it ended."""
        workers = self.workers()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                if not killed:
                    raise Failure(f"the server did not stop:\n{self.tail()}") from None
            finally:
                for worker in workers:
                    if worker.is_running():
                        worker.kill()

    def tail(self) -> str:
        return "\n".join(f"    {line}" for line in self.log.read_text().splitlines()[-30:])


class Load:
    """Clients that send requests until so many have an answer."""

    def __init__(self, port: int, requests: int, clients: int) -> None:
        self.port, self.left = port, requests
        self.acknowledged, self.unanswered, self.refused = 0, 0, 0
        self.pids: set[int] = set()
        self.problems: list[str] = []
        self.slowest = 0.0
        self._lock = threading.Lock()
        self.threads = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(clients)]

    def running(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def _client(self, number: int) -> None:
        highest = lost = 0
        connection: http.client.HTTPConnection | None = None
        while not self.problems:
            with self._lock:
                if self.left <= 0:
                    return
                self.left -= 1
            began = time.monotonic()
            connected = False
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.connect()
                connected = True
                connection.request("POST", f"/page{number % 3}/visitor{number}")
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.left += 1
                    if isinstance(error, TimeoutError):
                        self.problems.append(f"no answer within 60 s: {error!r}")
                    elif connected:
                        self.unanswered += 1
                        lost += 1
                        if lost > 50:
                            self.problems.append(f"client {number} got no answer {lost} times in a row: {error!r}")
                    else:
                        self.refused += 1
                time.sleep(0.01)
                continue
            finally:
                if connection is not None:
                    connection.close()
            with self._lock:
                self.slowest = max(self.slowest, time.monotonic() - began)
                if response.status != 200:
                    self.problems.append(f"status {response.status}: {body[:300]!r}")
                    return
                answer = json.loads(body)
                if answer["hits"] <= highest:
                    self.problems.append(f"client {number} was told {answer['hits']} after {highest}")
                highest = answer["hits"]
                self.acknowledged += 1
                lost = 0
                self.pids.add(answer["pid"])


def stored(root: Path) -> tuple[int, int]:
    """(counter, sum of the nested dict) of the store."""
    db0.init(str(root))
    db0.open("site", "r")
    site = db0.fetch(Site)
    values = site.hits, sum(sum(visitors.values()) for visitors in site.pages.values())
    db0.close()
    return values


def run(options: argparse.Namespace, scratch: Path) -> None:
    dice = random.Random(options.seed)
    server = Server(options.server, options.workers, scratch)
    kills, segments = 0, set()
    began = time.monotonic()
    try:
        server.start(options.workers)
        load = Load(server.port, options.requests, options.clients)
        began = time.monotonic()
        for thread in load.threads:
            thread.start()
        while load.running():
            time.sleep(dice.uniform(0.2, 1.0) if not options.no_kills else 0.1)
            segments |= server.segments()
            if time.monotonic() - began > options.minutes * 60:
                load.left = 0
            workers = server.workers()
            if not options.no_kills and load.running() and workers:
                try:
                    dice.choice(workers).kill()
                    kills += 1
                except psutil.NoSuchProcess:
                    pass
            if server.process.poll() is not None:
                raise Failure(f"the server ended by itself with {server.process.returncode}:\n{server.tail()}")
        taken = time.monotonic() - began
    finally:
        server.stop(kills > 0)
    counter, nested = stored(scratch / "root")
    verify(scratch / "root")
    print(
        f"{options.server}: {load.acknowledged:,} acknowledged, value {counter:,}, {kills} kills with {load.unanswered} requests in flight, "
        f"{load.refused} refused, {len(load.pids)} workers, {load.acknowledged / taken:,.0f}/s, slowest {load.slowest:.2f} s"
    )
    if load.problems:
        raise Failure(f"{load.problems[:3]}\n{server.tail()}")
    if not load.acknowledged <= counter <= load.acknowledged + load.unanswered:
        raise Failure("the counter does not fit the acknowledgements")
    if options.no_kills and options.server not in ("recycle", "lazy") and load.unanswered:
        raise Failure("requests without answer although nobody was killed")
    if counter != nested:
        raise Failure(f"counter and nested dict differ: {counter} and {nested}")
    if kept := {name for name in segments if (SHM / name).exists()}:
        raise Failure(f"shared memory left behind: {sorted(kept)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=sorted(SERVERS), default="gunicorn")
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=15, help="stop sending then")
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run(options, Path(scratch))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
