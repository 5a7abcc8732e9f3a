"""The kafka-python client (plain Python), as its documentation shows it."""

import os

from kafka import KafkaConsumer, KafkaProducer

import contract


def produce(bootstrap, topic, compression, transactional_id, abort):
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if compression == "none" else compression,
        delivery_timeout_ms=contract.DELIVERY_S * 1000,
        request_timeout_ms=contract.DELIVERY_S * 500,
        max_block_ms=contract.DELIVERY_S * 1000,
        linger_ms=5,
        transactional_id=transactional_id,
        transaction_timeout_ms=contract.DELIVERY_S * 1000,
    )
    if transactional_id:
        producer.init_transactions()
        producer.begin_transaction()
    sent = [
        producer.send(topic, value=value, key=key, headers=headers)
        for key, value, headers in contract.records()
    ]
    producer.flush(contract.DELIVERY_S * 2)
    for future in sent:
        future.get(timeout=0)
    if transactional_id and abort:
        producer.abort_transaction()
    elif transactional_id:
        producer.commit_transaction()
    producer.close()


def consume(bootstrap, topic, count, isolation):
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=f"kafka-python-{os.urandom(8).hex()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level=isolation,
    )
    enough = contract.Enough(count)
    while not enough.reached():
        # A poll returns with the first records. One that times out while the group is being joined
        # leaves kafka-python 3.0 without partitions for ever, so none is short.
        timeout_ms = int(enough.seconds_left() * 1000) + 1
        for partition, messages in consumer.poll(timeout_ms=timeout_ms).items():
            for message in messages:
                contract.show(
                    partition.partition, message.offset, message.key, message.value,
                    message.headers,
                )
            enough.took(len(messages))
    consumer.close()


contract.run(produce, consume)
