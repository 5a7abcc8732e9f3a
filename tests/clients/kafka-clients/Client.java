// Apache Kafka's own client, as its documentation shows it. README.md in the parent folder describes
// the command line.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.PrintWriter;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

import static java.nio.charset.StandardCharsets.UTF_8;

public final class Client {
    private static final List<String> COMPRESSIONS =
            List.of("none", "gzip", "snappy", "lz4", "zstd");

    /** How long a reader waits for the requested records. */
    private static final Duration PATIENCE = Duration.ofSeconds(60);
    /** How long it continues after them, to find surplus records. */
    private static final Duration QUIET = Duration.ofSeconds(1);
    /** How long the broker may take to acknowledge a record. */
    private static final int DELIVERY_MS = 30_000;

    private static final ObjectMapper JSON = new ObjectMapper();

    private Client() {}

    public static void main(String[] args) throws Exception {
        String verb = args.length == 0 ? "" : args[0];
        if (verb.equals("compressions")) {
            COMPRESSIONS.forEach(System.out::println);
        } else if (verb.equals("produce") && args.length >= 4 && COMPRESSIONS.contains(args[3])) {
            String transactionalId = args.length > 4 ? args[4] : null;
            boolean abort = args.length > 5 && args[5].equals("abort");
            produce(settings(args[1], args[3], transactionalId), args[2], abort);
        } else if (verb.equals("consume") && args.length >= 4) {
            String isolation = args.length > 4 ? args[4] : "read_committed";
            consume(args[1], args[2], Integer.parseInt(args[3]), isolation);
        } else {
            System.err.println("usage: see tests/clients/README.md");
            System.exit(2);
        }
    }

    private static Properties settings(String bootstrap, String compression, String id) {
        Properties settings = new Properties();
        settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, compression);
        settings.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class);
        settings.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class);
        settings.put(ProducerConfig.MAX_BLOCK_MS_CONFIG, DELIVERY_MS);
        settings.put(ProducerConfig.REQUEST_TIMEOUT_MS_CONFIG, DELIVERY_MS / 2);
        settings.put(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, DELIVERY_MS);
        if (id != null) {
            settings.put(ProducerConfig.TRANSACTIONAL_ID_CONFIG, id);
            settings.put(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG, DELIVERY_MS);
        }
        return settings;
    }

    private static void produce(Properties settings, String topic, boolean abort) throws Exception {
        boolean transactional = settings.containsKey(ProducerConfig.TRANSACTIONAL_ID_CONFIG);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            if (transactional) {
                producer.initTransactions();
                producer.beginTransaction();
            }
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                sent.add(producer.send(record(topic, JSON.readTree(line))));
            }
            producer.flush();
            for (Future<RecordMetadata> record : sent) {
                record.get();
            }
            if (transactional && abort) {
                producer.abortTransaction();
            } else if (transactional) {
                producer.commitTransaction();
            }
        }
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, JsonNode line) {
        byte[] key = line.get("key").isNull() ? null : line.get("key").textValue().getBytes(UTF_8);
        byte[] value = line.get("value").textValue().getBytes(UTF_8);
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, key, value);
        line.get("headers").properties().forEach(header -> record.headers()
                .add(header.getKey(), header.getValue().textValue().getBytes(UTF_8)));
        return record;
    }

    private static void consume(String bootstrap, String topic, int count, String isolation)
            throws IOException {
        Properties settings = new Properties();
        settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(ConsumerConfig.GROUP_ID_CONFIG, "kafka-clients-" + UUID.randomUUID());
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, isolation);
        settings.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        settings.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        int left = count;
        long deadline = System.nanoTime() + (left > 0 ? PATIENCE : QUIET).toNanos();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings);
                PrintWriter out = new PrintWriter(
                        new BufferedWriter(new OutputStreamWriter(System.out, UTF_8)))) {
            consumer.subscribe(List.of(topic));
            while (System.nanoTime() < deadline) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    out.println(shown(record));
                }
                left -= records.count();
                if (left <= 0 && !records.isEmpty()) {
                    deadline = System.nanoTime() + QUIET.toNanos();
                }
            }
        }
    }

    private static ObjectNode shown(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode shown = JSON.createObjectNode();
        shown.put("partition", record.partition());
        shown.put("offset", record.offset());
        shown.put("key", record.key() == null ? null : new String(record.key(), UTF_8));
        shown.put("value_base64", record.value());
        ObjectNode headers = shown.putObject("headers");
        for (Header header : record.headers()) {
            headers.put(header.key(), new String(header.value(), UTF_8));
        }
        return shown;
    }
}
