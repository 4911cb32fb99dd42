"""Objects for others to refer to: of every entity the same few ids, so that any of them is a good reference to anything."""

import json
import sys
import urllib.request

IDS = [f"01900000-0000-7000-8000-00000000000{number}" for number in (1, 2, 3)]


def units():
    """A unit an object, in the order in which they refer to one another."""
    for number, id in enumerate(IDS, start=1):
        common = "common-business-entities"
        of_sale = {"saleId": id, "currency": "EUR"}
        for model, entity, members in [
            (common, "Person", {"partyNumber": f"PERSON-{number}", "givenName": "Eva", "familyName": "Jansen"}),
            (common, "Organisation", {"partyNumber": f"ORG-{number}", "name": "Bakery"}),
            (common, "Account", {"accountNumber": f"CONFORMANCE-{number}", "name": "Debtor", "accountType": "asset"}),
            ("retail", "Customer", {"customerNumber": f"C999999{number}", "personId": id, "accountId": id}),
            ("retail", "Store", {"storeNumber": f"S99999{number}", "name": "Centre", "city": "Utrecht"}),
            ("retail", "Product", {"productCode": f"P99999{number}", "name": "Bread", "category": "food", "unitPrice": 2.5}),
            ("retail", "Sale", {
                "receiptNumber": f"99999{number}", "soldAt": "2026-11-26T10:00:00Z", "businessDate": "2026-11-26", "totalAmount": 5, "storeId": id,
                "customerId": id, "lines": [{"lineNumber": 1, "quantity": 2, "unitPrice": 2.5, "amount": 5, "productId": id}],
            }),
            ("retail", "Payment", {**of_sale, "method": "card", "amount": 5, "paidAt": "2026-11-26T10:00:00Z"}),
            ("retail", "LoyaltyTier", {"code": "abc"[number - 1] * 9, "name": "Gold", "pointsPerUnit": 1.5, "pointValue": 0.01}),
            ("retail", "LoyaltyMembership", {"membershipNumber": f"M9999999{number}", "joinedOn": "2026-01-01", "customerId": id, "tierId": id}),
            ("retail", "LedgerBatch", {
                "batchNumber": f"conformance-{number}", "businessDate": "2026-11-26", "accrualCount": 1, "totalDebit": 1, "totalCredit": 1, "storeId": id,
                "entries": [
                    {"entryNumber": 1, "description": "expense", "debit": 1, "credit": 0, "accountId": id},
                    {"entryNumber": 2, "description": "liability", "debit": 0, "credit": 1, "accountId": id},
                ],
            }),
            ("retail", "LoyaltyAccrual", {
                **of_sale, "businessDate": "2026-11-26", "points": 7, "amount": 1, "providerTransactionId": f"conformance-{number}", "membershipId": id,
                "storeId": id, "ledgerBatchId": id,
            }),
            ("retail", "Invoice", {
                **of_sale, "invoiceNumber": f"conformance-{number}", "invoiceDate": "2026-11-26", "amount": 5, "customerId": id, "accountId": id,
            }),
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
