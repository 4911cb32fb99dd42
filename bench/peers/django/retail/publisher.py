"""Changes go to RabbitMQ after the commit: persistent messages, each confirmed by the broker before the next."""

import uuid

import pika
from django.conf import settings
from pika.exceptions import AMQPChannelError, AMQPConnectionError
from rest_framework.renderers import JSONRenderer

EXCHANGE = "retail"
QUEUE = "retail.sales"

# This worker process's, from its first message on.
_channel = None


def is_on():
    return settings.AMQP_URL is not None


def publish(routing_key, body):
    global _channel
    message = JSONRenderer().render(body)
    properties = pika.BasicProperties(
        content_type="application/json", delivery_mode=pika.DeliveryMode.Persistent, message_id=str(uuid.uuid4())
    )
    for last_try in (False, True):
        try:
            if _channel is None:
                _channel = _open_channel()
            _channel.basic_publish(EXCHANGE, routing_key, message, properties, mandatory=True)
            return
        except (AMQPConnectionError, AMQPChannelError):
            _channel = None
            if last_try:
                raise


def _open_channel():
    parameters = pika.URLParameters(settings.AMQP_URL)
    # A worker that waits for its next request answers no heartbeats.
    parameters.heartbeat = 0
    channel = pika.BlockingConnection(parameters).channel()
    channel.confirm_delivery()
    channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
    channel.queue_declare(QUEUE, durable=True)
    channel.queue_bind(QUEUE, EXCHANGE, routing_key="retail.Sale.#")
    return channel
