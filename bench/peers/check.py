"""See `check`."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pika
import psycopg
from psycopg import sql

HERE = Path(__file__).parent
STOP_SECONDS = 30


@dataclass(frozen=True)
class Peer:
    name: str
    collection: str
    headers: dict
    created: int
    # What Directus puts around an object; lists are in there too.
    envelope: str | None = None
    # What DRF puts around a page.
    page: str | None = None
    # Query and headers of a bulk POST that gives no objects back.
    minimal: tuple = ("", {})
    environment: tuple = ()
    publishes: bool = False

    def object_in(self, answer):
        return answer[self.envelope] if self.envelope else answer

    def page_in(self, answer):
        return answer[self.page or self.envelope]


DJANGO = {"collection": "/api/retail/sales", "headers": {}, "created": 201, "page": "results", "minimal": ("", {"Prefer": "return=minimal"})}
PEERS = [
    Peer("django", **DJANGO, publishes=True),
    Peer("django", **DJANGO, environment=(("PUBLISH", "0"),)),
    Peer("directus", "/items/sale", {"Authorization": "Bearer bench-token"}, 200, envelope="data", minimal=("?fields=id", {})),
]


def main(server):
    for peer in PEERS:
        name = " ".join([peer.name, *map("=".join, peer.environment)])
        with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder, database(server) as url:
            with started(peer, url, folder) as (process, base):
                requests(peer, base, url)
                if peer.publishes:
                    expect(messages(folder), 1 + 500 + 500 + 1, "messages in the queue, one a change")
                process.send_signal(signal.SIGTERM)
                expect(process.wait(STOP_SECONDS), 0, "exit code after SIGTERM")
                nothing_stays(folder)
        with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder, database(server) as url, started(peer, url, folder) as (process, _):
            process.kill()
            process.wait()
            nothing_stays(folder)
        print(f"{name}: ok")


def requests(peer, base, url):
    def send(method, path="", body=None, headers=None):
        return call(method, base + peer.collection + path, body, {**peer.headers, **(headers or {})})

    sale = new_sale("1")
    status, answer = send("POST", body=sale)
    expect(status, peer.created, "status of a single POST")
    made = peer.object_in(answer)
    # Both give decimals as text, and Directus milliseconds too.
    wanted = {**sale, "totalAmount": "25.50", "soldAt": made["soldAt"]}
    expect({name: made[name] for name in sale}, wanted, "the new Sale")
    expect(made["soldAt"].replace(".000", ""), sale["soldAt"], "when it was sold")

    status, answer = send("POST", body=[new_sale(str(n)) for n in range(1000, 1500)])
    expect(status, peer.created, "status of a bulk POST")
    expect(len({sale["id"] for sale in peer.object_in(answer)}), 500, "new Sales in its answer")
    query, headers = peer.minimal
    status, answer = send("POST", query, [new_sale(str(n)) for n in range(2000, 2500)], headers)
    expect(status, peer.created, "status of a bulk POST with a minimal answer")
    expect("receiptNumber" in json.dumps(answer), False, "whether it has the objects")
    expect(count(url), 1001, "Sales in the table")

    status, answer = send("GET", f"/{made['id']}")
    expect((status, peer.object_in(answer)), (200, made), "GET by id")
    status, answer = send("GET", "?limit=100" if peer.envelope else "")
    expect((status, len(peer.page_in(answer))), (200, 100), "a page of the list")

    status, answer = send("PATCH", f"/{made['id']}", {"loyalty": "accrued"})
    expect((status, peer.object_in(answer)["loyalty"]), (200, "accrued"), "PATCH")
    _, answer = send("GET", f"/{made['id']}")
    expect(peer.object_in(answer)["loyalty"], "accrued", "the patched attribute, read again")

    for what, bad in {
        "a Sale that is there already": sale,
        "a list with a Sale that is there already": [new_sale("3000"), sale],
        "a list with a Sale without a store": [new_sale("3000"), {**new_sale("3001"), "storeId": None}],
        "an unknown status": {**new_sale("3000"), "status": "lost"},
        "no lines": {**new_sale("3000"), "lines": []},
        "a negative total": {**new_sale("3000"), "totalAmount": -1},
    }.items():
        status, _ = send("POST", body=bad)
        expect(status >= 400, True, f"whether {what} is refused (status {status})")
    expect(count(url), 1001, "Sales in the table after what was refused")


STORE, PRODUCT = str(uuid4()), str(uuid4())


def new_sale(receipt):
    line = {"productId": PRODUCT, "quantity": 1, "unitPrice": 12.75, "amount": 12.75}
    return {
        "receiptNumber": receipt,
        "status": "completed",
        "businessDate": "2026-11-25",
        "customerNumber": "C0000001",
        "totalAmount": 25.5,
        "currency": "EUR",
        "loyalty": "pending",
        "settlement": "paid",
        "storeId": STORE,
        "customerId": None,
        "soldAt": "2026-11-25T10:00:00Z",
        "lines": [{"lineNumber": 1, **line}, {"lineNumber": 2, **line}],
    }


def call(method, url, body, headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    return status, json.loads(text) if text else None


@contextmanager
def database(server):
    name = f"bench_peers_check_{os.getpid()}"
    url = urlunsplit(urlsplit(server)._replace(path="/" + name))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield url
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def started(peer, url, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "DATABASE_URL": url, "PORT": str(port), "DATA_DIR": folder, **dict(peer.environment)}
    process = subprocess.Popen([HERE / peer.name / "start"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline().strip()
        expect(line, f"ready http://127.0.0.1:{port}", "the start script's line")
        yield process, line.removeprefix("ready ")
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def count(url):
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT count(*) FROM sale").fetchone()[0]


def messages(folder):
    settings = (Path(folder) / "rabbitmq" / "rabbitmq.conf").read_text()
    port = int(re.search(r"127\.0\.0\.1:(\d+)", settings)[1])
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as connection:
        return connection.channel().queue_declare("retail.sales", passive=True).method.message_count


def nothing_stays(folder):
    """No process that was started for this folder, by its environment."""
    deadline = time.monotonic() + STOP_SECONDS
    while left := processes_of(folder):
        expect(time.monotonic() < deadline, True, f"whether all processes have ended; these have not: {left}")
        time.sleep(0.1)


def processes_of(folder):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"DATA_DIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            pass
    return found


def expect(found, wanted, what):
    if found != wanted:
        sys.exit(f"{what}: wanted {wanted!r}, found {found!r}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: check postgres://SUPERUSER:PASSWORD@HOST:PORT/postgres")
    main(sys.argv[1])
