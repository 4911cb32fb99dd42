"""What no schema can tell, made to fit; and which refusals of data that fits its schema are right.

A schema can't say that a customerId is that of a customer who is there. So references are set to objects that are (objects.py makes them), in data
that fits the schema and in data that does not: nothing is refused for another reason than the one that is tested.
"""

import itertools
import json
import uuid

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.core.failures import AcceptedNegativeData

from objects import IDS

# Problems of requests that fit their schemas, each with what no schema can tell.
REFUSED_RIGHTLY = {
    "reference": "an object that is referred to is not there (inside of parts, or deleted by a request before)",
    "still-referenced": "others refer to the object",
    "unique": "a natural key or unique attribute is taken",
    "check": "a condition between two attributes",
    "precondition-failed": "an ETag is an older one",
    "idempotency-key-reused": "the key was used for another request",
    "conflicting-parameters": "each parameter can be used, but not both",
    "invalid-cursor": "a cursor is opaque, and none that was given out",
}
numbers = itertools.count()


def kind_of(response):
    try:
        return response.json()["type"].rsplit("/", 1)[-1]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def failed_for_itself(case, response):
    """Where each unit or row is answered for itself, the request is 200 or 207 and what is wrong stands in the answer."""
    try:
        answer = response.json()
    except ValueError:
        return False
    outcomes = answer.get("units", []) if isinstance(answer, dict) else answer
    by_itself = response.status_code == 207 or case.operation.path == "/api/transactions"
    return by_itself and any(isinstance(outcome, dict) and outcome.get("status", 0) >= 400 for outcome in outcomes)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if isinstance(failure, RejectedPositiveData):
        return kind_of(response) not in REFUSED_RIGHTLY
    if isinstance(failure, AcceptedNegativeData):
        return not failed_for_itself(case, response)
    return True


@schemathesis.hook
def before_load_schema(context, raw_schema):
    # A table's cells depend on its heading, which no schema can tell; runtime/api/tests/api/formats.rs and the fuzz target `body` read tables.
    for path in raw_schema["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict) and "requestBody" in operation:
                operation["requestBody"]["content"].pop("text/csv", None)


def is_uuid(value):
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def refer(value):
    """References to objects that are there, at any depth; the ids of new objects stay."""
    if isinstance(value, list):
        return [refer(item) for item in value]
    if not isinstance(value, dict):
        return value
    fitting = {}
    for name, inner in value.items():
        if isinstance(name, str) and name.endswith("Id") and is_uuid(inner):
            fitting[name] = IDS[uuid.UUID(inner).int % len(IDS)]
        else:
            fitting[name] = refer(inner)
    # The one condition between two attributes in these models.
    if "totalDebit" in fitting and "totalCredit" in fitting and type(fitting["totalDebit"]) is type(fitting["totalCredit"]):
        fitting["totalCredit"] = fitting["totalDebit"]
    return fitting


@schemathesis.hook
def before_call(context, case, kwargs):
    # What everything refers to stays.
    if case.method == "DELETE" and (case.path_parameters or {}).get("id") in IDS:
        case.path_parameters["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, case.path_parameters["id"]))
    if case.meta is not None and case.meta.generation.mode.is_positive:
        reach_further(case)
    if isinstance(case.body, (dict, list)):
        case.body = refer(case.body)
        in_path = (case.path_parameters or {}).get("id")
        if in_path and isinstance(case.body, dict) and is_uuid(case.body.get("id")):
            case.body["id"] = in_path
        # Only objects of a list can fail each for itself.
        if isinstance(case.body, dict) and (case.query or {}).get("onError") == "continue" and case.operation.path != "/api/transactions":
            del case.query["onError"]
    # A key is of one request; that it is kept, and refused for another request, has tests of its own.
    for name in list(case.headers or {}):
        if name.lower() == "idempotency-key" and is_visible(case.headers[name]):
            case.headers[name] = f"{case.headers[name][:400]}-{next(numbers)}"


def reach_further(case):
    """Of what excludes one another one half is kept, so that most requests are refused by nothing and do what they ask for."""
    query, headers = case.query or {}, case.headers or {}
    number = next(numbers)
    if "aggregate" in query and number % 2:
        unfit = ["fields", "cursor", "embed", "count", "sort"]
    elif number % 10:
        unfit = ["aggregate", "groupBy", "cursor"]
    else:
        unfit = []
    for name in unfit:
        query.pop(name, None)
    # An ETag that was drawn is none of the object's.
    for name in [name for name in headers if name.lower() == "if-match"]:
        if number % 10:
            del headers[name]


def is_visible(key):
    return isinstance(key, str) and 0 < len(key) <= 512 and all("!" <= character <= "~" and character != '"' for character in key)


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    if isinstance(value, list):
        return "".join(json.dumps(item) + "\n" for item in value).encode()
    return json.dumps(value).encode()


@schemathesis.deserializer("application/x-ndjson")
def objects_of_lines(context, response):
    return [json.loads(line) for line in response.content.splitlines()]
