"""What no schema can tell, made to fit; and which refusals of data that fits its schema are right.

A schema can't say that a customerId is that of a customer who is there. So references are set to objects that are (objects.py makes them), in data
that fits the schema and in data that does not: nothing is refused for another reason than the one that is tested.
"""

import itertools
import json
import uuid

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import EnsureResourceAvailability, RejectedPositiveData, UseAfterFree

from objects import IDS, SPARES

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
    "test-failed": "a JSON Patch tests for what the object does not have",
    "nothing-there": "a JSON Patch names a place that the object does not have",
    "precondition-required": "an entity wants the version named, and where it is named depends on the operation, or on whether the object is there",
    "gone": "the object was deleted by a request before",
}
# Refusals whose kind is also that of data that does not fit, by what they say.
REFUSED_RIGHTLY_FOR = {
    "must not lie in the future": "asOf is a moment that has been",
    "which is the server's own and can only be tested": "where a JSON Patch may write depends on its operation",
    "is inside of what is moved": "a JSON Patch moves an object into itself",
    "The object would have faults after the patch": "what a JSON Patch makes of an object depends on the object",
}
numbers = itertools.count()
# What is deleted in place of what everything refers to: that stays.
IN_PLACE_OF = {id: str(uuid.uuid5(uuid.NAMESPACE_URL, id)) for id in IDS}
# The objects of each entity, by its path, that were not deleted yet.
spares_left = {}


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


def refused_rightly(response):
    return kind_of(response) in REFUSED_RIGHTLY or any(said in response.text for said in REFUSED_RIGHTLY_FOR)


def is_empty_list(case, failure):
    """A list of one empty string is written as an empty list is: `sort=`. That is taken."""
    empty = [name for name, value in (case.query or {}).items() if value in ("", [""])]
    return any(f"parameter `{name}` in query" in failure.message for name in empty)


def is_of_the_past(case):
    """What was is told of deleted objects too."""
    return case.operation.path.endswith("/history") or "asOf" in (case.query or {})


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if isinstance(failure, RejectedPositiveData):
        return not refused_rightly(response)
    if isinstance(failure, AcceptedNegativeData):
        return not failed_for_itself(case, response) and not is_empty_list(case, failure)
    if isinstance(failure, UseAfterFree):
        return not is_of_the_past(case)
    if isinstance(failure, EnsureResourceAvailability):
        return (case.path_parameters or {}).get("id") not in IN_PLACE_OF.values()
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
    if case.method == "DELETE" and (case.path_parameters or {}).get("id") in IDS:
        case.path_parameters["id"] = IN_PLACE_OF[case.path_parameters["id"]]
    if case.meta is not None:
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
    """Most requests are made such that only what is tested can refuse them, and nothing what fits; the rest stay as they were drawn."""
    number = next(numbers)
    fits = case.meta.generation.mode.is_positive
    if fits:
        leave_out_what_excludes(case, number)
    if number % 10:
        name_the_version(case, choose_object(case, number), number)
        if isinstance(case.body, list):
            choose_objects_of_list(case, fits)
        if fits and case.media_type == "application/json-patch+json":
            choose_places(case)


def leave_out_what_excludes(case, number):
    """Of what excludes one another one half is kept."""
    query = case.query or {}
    if "aggregate" in query and number % 2:
        unfit = ["fields", "cursor", "embed", "count", "sort"]
    elif number % 10:
        unfit = ["aggregate", "groupBy", "cursor"]
    else:
        unfit = []
    if "asOf" in query:
        unfit.append("embed" if number % 3 else "asOf")
    for name in unfit:
        query.pop(name, None)


def choose_object(case, number):
    """An object that is there, in place of an id that was drawn; one that can be spared, to be deleted. Gives whether it is there."""
    # Those of a sequence are about the objects that it has made.
    if case.meta.phase.name == TestPhase.STATEFUL:
        return True
    parameters = case.path_parameters or {}
    if is_uuid(parameters.get("id")):
        if case.method == "DELETE" and spares_of(case):
            parameters["id"] = spares_of(case).pop()
            return True
        if case.method == "PATCH" or case.method in ("GET", "PUT") and number % 2:
            parameters["id"] = IDS[number % len(IDS)]
            return True
    return False


def spares_of(case):
    return spares_left.setdefault(case.operation.path.removesuffix("/{id}"), list(SPARES))


def name_the_version(case, there, number):
    """An ETag that was drawn is none of the object's; `*` is that of each that is there, and of no other."""
    if case.headers is None or "id" not in (case.path_parameters or {}) or case.method == "GET":
        return
    needed = any(parameter.name == "If-Match" and parameter.is_required for parameter in case.operation.headers)
    given = [name for name in case.headers if name.lower() == "if-match"]
    for name in given:
        del case.headers[name]
    if needed and given or there and (case.method == "PUT" or given and number % 3):
        case.headers["If-Match"] = "*"
    for name in [name for name in case.headers if name.lower() == "if-none-match" and there]:
        del case.headers[name]


def choose_objects_of_list(case, fits):
    """The same for objects of a list; more of them than there are would be there twice."""
    if case.method == "DELETE" and fits:
        chosen = [spares_of(case).pop() for _ in case.body[:2] if spares_of(case)]
    elif case.method == "PATCH" and "/{id}" not in case.operation.path:
        chosen = IDS
    else:
        return
    if fits and chosen:
        del case.body[len(chosen):]
    for item, id in zip(case.body, chosen):
        if isinstance(item, dict) and is_uuid(item.get("id")):
            item["id"] = id
            if fits and "@ifMatch" in item:
                item["@ifMatch"] = "*"


def choose_places(case):
    """A member of the object, in place of a JSON Pointer that was drawn."""
    entity = case.operation.definition.raw["operationId"].removeprefix("patch")
    members = list(case.operation.schema.raw_schema["components"]["schemas"][f"{entity}Fields"]["properties"])
    for operation in case.body:
        for place in operation.keys() & {"path", "from"}:
            operation[place] = f"/{members[next(numbers) % len(members)]}"


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
