"""Loyalty accrual as a plain consumer: a message at a time, as hand-built systems do it.

Fills a queue with Sales, then handles them: looks up customer, membership and tier, calls the loyalty provider, writes the accrual and marks the
Sale in one transaction, and acknowledges. Prints `rate <Sales/s>`.
"""

import http.client
import json
import os
import time
import uuid
from decimal import Decimal
from urllib.parse import urlparse

import pika
import psycopg

MESSAGES = int(os.environ["MESSAGES"])
CUSTOMERS = int(os.environ["CUSTOMERS"])
QUEUE = "sales"

TABLES = """
CREATE TABLE customer (id uuid PRIMARY KEY, customer_number text UNIQUE NOT NULL);
CREATE TABLE loyalty_tier (id uuid PRIMARY KEY, points_per_unit numeric NOT NULL, point_value numeric NOT NULL);
CREATE TABLE loyalty_membership (id uuid PRIMARY KEY, membership_number text UNIQUE NOT NULL,
    customer_id uuid UNIQUE NOT NULL REFERENCES customer, tier_id uuid NOT NULL REFERENCES loyalty_tier);
CREATE TABLE sale (id uuid PRIMARY KEY, customer_number text, total_amount numeric NOT NULL, loyalty text NOT NULL);
CREATE TABLE loyalty_accrual (id uuid PRIMARY KEY, sale_id uuid UNIQUE NOT NULL REFERENCES sale,
    membership_id uuid NOT NULL REFERENCES loyalty_membership, points bigint NOT NULL, amount numeric NOT NULL,
    provider_transaction_id text UNIQUE NOT NULL);
"""

MEMBER = """
SELECT m.id, m.membership_number, t.points_per_unit, t.point_value
FROM customer c JOIN loyalty_membership m ON m.customer_id = c.id JOIN loyalty_tier t ON t.id = m.tier_id
WHERE c.customer_number = %s
"""


def main():
    database = psycopg.connect(os.environ["DATABASE_URL"])
    parameters = pika.URLParameters(os.environ["AMQP_URL"])
    parameters.heartbeat = 0
    channel = pika.BlockingConnection(parameters).channel()
    channel.queue_declare(QUEUE, durable=True)
    fill(database, channel)

    provider = Provider(os.environ["LOYALTY_PROVIDER_URL"])
    channel.basic_qos(prefetch_count=1)
    begun = time.monotonic()
    for method, _, body in channel.consume(QUEUE, inactivity_timeout=10):
        if method is None:
            raise SystemExit("the queue gave no message for ten seconds")
        handle(database, provider, json.loads(body, parse_float=Decimal))
        channel.basic_ack(method.delivery_tag)
        if method.delivery_tag == MESSAGES:
            break
    seconds = time.monotonic() - begun
    count = database.execute("SELECT count(*) FROM loyalty_accrual").fetchone()[0]
    if count != MESSAGES:
        raise SystemExit(f"{MESSAGES} messages made {count} accruals")
    print(f"rate {MESSAGES / seconds:.1f}")


def fill(database, channel):
    database.execute(TABLES)
    tier = uuid.uuid4()
    database.execute("INSERT INTO loyalty_tier VALUES (%s, 1.5, 0.01)", [tier])
    customers = [uuid.uuid4() for _ in range(CUSTOMERS)]
    sales = [(uuid.uuid4(), f"C{number % CUSTOMERS:07}", Decimal(100 + number * 1237 % 29900) / 100) for number in range(MESSAGES)]
    with database.cursor() as cursor:
        with cursor.copy("COPY customer FROM STDIN") as copy:
            for number, customer in enumerate(customers):
                copy.write_row((customer, f"C{number:07}"))
        with cursor.copy("COPY loyalty_membership FROM STDIN") as copy:
            for number, customer in enumerate(customers):
                copy.write_row((uuid.uuid4(), f"M{number:08}", customer, tier))
        with cursor.copy("COPY sale FROM STDIN") as copy:
            for sale, customer_number, amount in sales:
                copy.write_row((sale, customer_number, amount, "pending"))
    database.commit()
    database.execute("ANALYZE")
    database.commit()
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=pika.DeliveryMode.Persistent)
    for sale, customer_number, amount in sales:
        message = f'{{"id": "{sale}", "customerNumber": "{customer_number}", "totalAmount": {amount}, "currency": "EUR"}}'
        channel.basic_publish("", QUEUE, message, properties)


def handle(database, provider, sale):
    membership, number, points_per_unit, point_value = database.execute(MEMBER, [sale["customerNumber"]]).fetchone()
    points = int(sale["totalAmount"] * points_per_unit)
    booked = provider.book(sale, number, points)
    database.execute(
        "INSERT INTO loyalty_accrual VALUES (%s, %s, %s, %s, %s, %s)",
        [uuid.uuid4(), sale["id"], membership, points, points * point_value, booked["transactionId"]],
    )
    database.execute("UPDATE sale SET loyalty = 'accrued' WHERE id = %s AND loyalty = 'pending'", [sale["id"]])
    database.commit()


class Provider:
    """The loyalty provider, over one connection that stays open."""

    def __init__(self, url):
        address = urlparse(url)
        self.connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)

    def book(self, sale, membership_number, points):
        body = {"reference": sale["id"], "membershipNumber": membership_number, "points": points, "amount": str(sale["totalAmount"])}
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"accrual/{sale['id']}"}
        self.connection.request("POST", "/accruals", json.dumps(body), headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"the provider answered {answer.status}")
        return json.loads(text)


if __name__ == "__main__":
    main()
