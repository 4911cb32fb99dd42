"""A handler in Python, of nothing but the standard library.

The worker posts each event as a CloudEvent and takes the answer as what is to be written: all of it in one transaction, once, however often the
event is delivered. The handler says no more than whether something can be tried again:

    2xx                      handled; the body names the operations
    408, 425, 429, 5xx       may pass: tried again (Retry-After is kept to)
    any other status         does not pass: dead letter and ticket
"""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

CACHES = os.environ.get("AUTONOMY_CACHES_URL", "http://127.0.0.1:8001")


class Retryable(Exception):
    """It may pass."""


class NonRetryable(Exception):
    """It does not pass by itself: somebody must look."""


def triage(ticket):
    """What is to be written for a new ticket: a list of operations, as `/api/transactions` takes them."""
    customer = look_up("customers", number=ticket["customerNumber"])
    if customer is None:
        raise NonRetryable(f"there is no customer {ticket['customerNumber']}")
    urgent = customer["contract"] == "premium" or "down" in ticket["subject"].lower()
    return [
        {
            "op": "patch",
            "model": "desk",
            "entity": "Ticket",
            "id": ticket["id"],
            "object": {"priority": "urgent" if urgent else "normal"},
        },
        {
            "op": "create",
            "model": "desk",
            "entity": "Assignment",
            "object": {"ticketId": ticket["id"], "team": "first-aid" if urgent else "service"},
        },
    ]


def look_up(cache, **member):
    """An object of one of the service's caches, or None."""
    try:
        with urlopen(f"{CACHES}/caches/{cache}?{urlencode(member)}", timeout=2) as answer:
            return json.load(answer)
    except HTTPError as error:
        if error.code == 404:
            return None
        raise Retryable(f"the cache {cache} answered {error.code}") from error
    except URLError as error:
        raise Retryable(f"the cache {cache} can't be asked: {error.reason}") from error


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            if self.headers.get_content_type() == "application/cloudevents-batch+json":
                # Of a service with `batch`: all events of a group, and one transaction for them.
                operations = [operation for event in body for operation in triage(event["data"])]
            else:
                operations = triage(body)
            self.answer(200, {"operations": operations})
        except Retryable as reason:
            self.answer(503, {"detail": str(reason)})
        except NonRetryable as reason:
            self.answer(422, {"detail": str(reason)})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Handler)
    # Kubernetes asks it to stop like that; what is under way is answered first.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
