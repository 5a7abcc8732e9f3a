// The peer of the DERIVE benchmark: Kafka Streams counts per key, exactly once, on one thread, with
// defaults for everything that is not set here.
//
// Usage: CountByKey BOOTSTRAP IN OUT APPLICATION_ID FOLDER COMMIT_MS
//
// Keys and values stay bytes, so that nothing is decoded that the count does not need. It runs
// until its standard input ends. It prints `running` when it runs, and `restored RECORDS
// MILLISECONDS`, from the start of the first store's restore to the end of the last one.

import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;

public final class CountByKey {
    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, args[3]);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, args[4]);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args[5]);
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        // A static member, like Tidewire: a restarted one gets its partitions back at once.
        properties.put(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG, "only");

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(args[1], Consumed.with(Serdes.Bytes(), Serdes.ByteArray()))
                .groupByKey(Grouped.with(Serdes.Bytes(), Serdes.ByteArray()))
                .count(Materialized.<Bytes, Long, KeyValueStore<Bytes, byte[]>>as("counts")
                        .withKeySerde(Serdes.Bytes())
                        .withValueSerde(Serdes.Long()))
                .toStream()
                .to(args[2], Produced.with(Serdes.Bytes(), Serdes.Long()));

        Restored restored = new Restored();
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        streams.setGlobalStateRestoreListener(restored);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                restored.tell();
                System.out.println("running");
            }
        });
        streams.start();
        while (System.in.read() >= 0) {
            // Only the end of the input matters.
        }
        System.exit(streams.close(Duration.ofSeconds(30)) ? 0 : 1);
    }

    private static final class Restored implements StateRestoreListener {
        private final AtomicLong records = new AtomicLong();
        private final AtomicLong first = new AtomicLong(Long.MAX_VALUE);
        private final AtomicLong last = new AtomicLong();

        void tell() {
            if (last.get() > 0) {
                long ms = (last.get() - first.get()) / 1_000_000;
                System.out.println("restored " + records.get() + " " + ms);
            }
        }

        @Override
        public void onRestoreStart(TopicPartition at, String store, long from, long end) {
            first.accumulateAndGet(System.nanoTime(), Math::min);
        }

        @Override
        public void onBatchRestored(TopicPartition at, String store, long end, long count) {
            records.addAndGet(count);
        }

        @Override
        public void onRestoreEnd(TopicPartition at, String store, long total) {
            last.accumulateAndGet(System.nanoTime(), Math::max);
        }
    }
}
