"""The confluent-kafka client (librdkafka), as its documentation shows it."""

import os

from confluent_kafka import Consumer, KafkaException, Producer

import contract


def produce(bootstrap, topic, compression, transactional_id, abort):
    settings = {
        "bootstrap.servers": bootstrap,
        "compression.type": compression,
        "enable.idempotence": True,
        "delivery.timeout.ms": contract.DELIVERY_S * 1000,
    }
    if transactional_id:
        settings["transactional.id"] = transactional_id
        settings["transaction.timeout.ms"] = contract.DELIVERY_S * 1000
    producer = Producer(settings)
    refused = []
    acknowledged = []

    def delivered(error, message):
        (refused if error else acknowledged).append(error or message.offset())

    if transactional_id:
        producer.init_transactions()
        producer.begin_transaction()
    sent = 0
    for key, value, headers in contract.records():
        producer.produce(topic, value=value, key=key, headers=headers, on_delivery=delivered)
        producer.poll(0)
        sent += 1
    unsent = producer.flush(contract.DELIVERY_S * 2)
    if refused or unsent or len(acknowledged) != sent:
        contract.fail(f"{len(acknowledged)} of {sent} acknowledged; refused: {refused[:3]}")
    if transactional_id and abort:
        producer.abort_transaction()
    elif transactional_id:
        producer.commit_transaction()


def consume(bootstrap, topic, count, isolation):
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": f"confluent-kafka-{os.urandom(8).hex()}",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "isolation.level": isolation,
    })
    consumer.subscribe([topic])
    enough = contract.Enough(count)
    while not enough.reached():
        for message in consumer.consume(500, timeout=0.2):
            if message.error() and message.error().retriable():
                continue
            if message.error():
                raise KafkaException(message.error())
            contract.show(
                message.partition(), message.offset(), message.key(), message.value(),
                message.headers(),
            )
            enough.took()
    consumer.close()


contract.run(produce, consume)
