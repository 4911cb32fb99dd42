"""The check of a Sale's lines. A plain function: nested serializers would cost far more."""

from decimal import Decimal, InvalidOperation
from uuid import UUID

from django.core.exceptions import ValidationError

MOST_LINES = 500


def are_sale_lines(lines):
    if not isinstance(lines, list) or not 1 <= len(lines) <= MOST_LINES:
        raise ValidationError(f"a list of 1 to {MOST_LINES} lines is wanted")
    for place, line in enumerate(lines):
        if not _is_sale_line(line):
            raise ValidationError(f"line {place} is not well formed")


def _is_sale_line(line):
    try:
        UUID(line["productId"])
        return (
            type(line["lineNumber"]) is int
            and line["lineNumber"] >= 1
            and type(line["quantity"]) is int
            and 1 <= line["quantity"] <= 10_000
            and Decimal(str(line["unitPrice"])) >= 0
            and Decimal(str(line["amount"])) >= 0
        )
    except (AttributeError, KeyError, TypeError, ValueError, InvalidOperation):
        return False
