"""Objects for others to refer to: of every entity the same few ids, so that any of them is a good reference to anything. And some to be deleted."""

import json
import string
import sys
import urllib.request


def id_of(number):
    return f"01900000-0000-7000-8000-0000000000{number:02}"


IDS = [id_of(number) for number in range(1, 4)]
# Nothing refers to most of them.
SPARES = [id_of(number) for number in range(4, 21)]


def units():
    """A unit an object, in the order in which they refer to one another; only what has to be one's own is referred to among those to be deleted."""
    for number, id in enumerate(IDS + SPARES, start=1):
        common = "common-business-entities"
        other = IDS[(number - 1) % len(IDS)]
        of_sale = {"saleId": id, "currency": "EUR"}
        for model, entity, members in [
            (common, "Person", {"partyNumber": f"PERSON-{number}", "givenName": "Eva", "familyName": "Jansen"}),
            (common, "Organisation", {"partyNumber": f"ORG-{number}", "name": "Bakery"}),
            (common, "Account", {"accountNumber": f"CONFORMANCE-{number}", "name": "Debtor", "accountType": "asset"}),
            ("retail", "Customer", {"customerNumber": f"C99999{number:02}", "personId": other, "accountId": other}),
            ("retail", "Store", {"storeNumber": f"S9999{number:02}", "name": "Centre", "city": "Utrecht"}),
            ("retail", "Product", {"productCode": f"P9999{number:02}", "name": "Bread", "category": "food", "unitPrice": 2.5}),
            ("retail", "Sale", {
                "receiptNumber": f"99999{number}", "soldAt": "2026-11-26T10:00:00Z", "businessDate": "2026-11-26", "totalAmount": 5, "storeId": other,
                "customerId": other, "lines": [{"lineNumber": 1, "quantity": 2, "unitPrice": 2.5, "amount": 5, "productId": other}],
            }),
            ("retail", "Payment", {**of_sale, "method": "card", "amount": 5, "paidAt": "2026-11-26T10:00:00Z"}),
            ("retail", "LoyaltyTier", {"code": string.ascii_lowercase[number] * 9, "name": "Gold", "pointsPerUnit": 1.5, "pointValue": 0.01}),
            ("retail", "LoyaltyMembership", {"membershipNumber": f"M999999{number:02}", "joinedOn": "2026-01-01", "customerId": id, "tierId": other}),
            ("retail", "LedgerBatch", {
                "batchNumber": f"conformance-{number}", "businessDate": "2026-11-26", "accrualCount": 1, "totalDebit": 1, "totalCredit": 1, "storeId": other,
                "entries": [
                    {"entryNumber": 1, "description": "expense", "debit": 1, "credit": 0, "accountId": other},
                    {"entryNumber": 2, "description": "liability", "debit": 0, "credit": 1, "accountId": other},
                ],
            }),
            ("retail", "LoyaltyAccrual", {
                **of_sale, "businessDate": "2026-11-26", "points": 7, "amount": 1, "providerTransactionId": f"conformance-{number}", "membershipId": other,
                "storeId": other, "ledgerBatchId": other,
            }),
            ("retail", "Invoice", {
                **of_sale, "invoiceNumber": f"conformance-{number}", "invoiceDate": "2026-11-26", "amount": 5, "customerId": other, "accountId": other,
            }),
            ("records", "Contract", {"contractNumber": f"conformance-{number}", "amount": 5}),
            ("records", "Permit", {"holder": "Eva Jansen", "contractId": other}),
        ]:
            yield {"operations": [{"op": "create", "model": model, "entity": entity, "object": {"id": id, **members}}]}


def main(api):
    body = json.dumps({"units": list(units())}).encode()
    request = urllib.request.Request(f"{api}/api/transactions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    failed = [unit for unit in answer["units"] if unit["status"] != 200]
    if failed:
        sys.exit(f"objects.py: these objects could not be made: {json.dumps(failed, indent=1)}")


if __name__ == "__main__":
    main(sys.argv[1])
