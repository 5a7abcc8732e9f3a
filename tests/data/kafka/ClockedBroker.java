import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.reflect.Field;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Supplier;
import kafka.server.BrokerServer;
import kafka.server.KafkaConfig;
import kafka.server.KafkaRaftServer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.utils.Exit;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.storage.internals.log.LogCleaner;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.UnifiedLog;
import scala.Option;

/**
 * Kafka's own server with a wall clock that a test sets forward, so that retention and compaction
 * can be seen at work without waiting for hours. Nothing of the server is replaced: it takes its
 * clock as an argument.
 *
 * <p>Usage: {@code ClockedBroker server.properties AHEAD_MS}. A line {@code pass MS} on standard
 * input sets the clock forward and has each log do what it would do by and by in that time; when
 * it is done, {@code passed} is printed. Logs are rolled first, which the next append would do,
 * because neither retention nor compaction looks at a segment that is still written.
 */
public final class ClockedBroker {
    private static final long CLEANING_MAX_MS = 30_000;

    private static final class Clock implements Time {
        private final AtomicLong aheadMs;

        private Clock(long aheadMs) {
            this.aheadMs = new AtomicLong(aheadMs);
        }

        @Override
        public long milliseconds() {
            return System.currentTimeMillis() + aheadMs.get();
        }

        @Override
        public long nanoseconds() {
            return System.nanoTime();
        }

        @Override
        public void sleep(long ms) {
            Utils.sleep(ms);
        }

        @Override
        public void waitObject(Object object, Supplier<Boolean> condition, long deadlineMs)
                throws InterruptedException {
            synchronized (object) {
                while (!condition.get()) {
                    long leftMs = deadlineMs - milliseconds();
                    if (leftMs <= 0) {
                        throw new TimeoutException("the condition did not come true in time");
                    }
                    object.wait(leftMs);
                }
            }
        }
    }

    private ClockedBroker() {}

    public static void main(String[] arguments) throws Exception {
        KafkaConfig config = KafkaConfig.fromProps(Utils.loadProps(arguments[0]), false);
        Clock clock = new Clock(Long.parseLong(arguments[1]));
        KafkaRaftServer server = new KafkaRaftServer(config, clock);
        Exit.addShutdownHook("server-shutdown", server::shutdown);
        server.startup();
        Thread listener = new Thread(() -> listen(clock, server));
        listener.setDaemon(true);
        listener.start();
        server.awaitShutdown();
    }

    private static void listen(Clock clock, KafkaRaftServer server) {
        try (var lines = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                clock.aheadMs.addAndGet(Long.parseLong(line.substring("pass ".length())));
                keepUp(cleaner(server));
                System.out.println("passed");
            }
        } catch (Exception error) {
            error.printStackTrace();
            // The test that waits for an answer learns that there will be none.
            System.out.close();
        }
    }

    /** The one thing the server does not offer. */
    private static LogCleaner cleaner(KafkaRaftServer server) throws ReflectiveOperationException {
        Field broker = KafkaRaftServer.class.getDeclaredField("broker");
        broker.setAccessible(true);
        return ((BrokerServer) ((Option<?>) broker.get(server)).get()).logManager().cleaner();
    }

    private static void keepUp(LogCleaner cleaner) throws IOException, InterruptedException {
        var logs = new HashMap<>(cleaner.logs());
        logs.keySet().removeIf(partition -> partition.topic().startsWith("__"));
        for (var entry : logs.entrySet()) {
            UnifiedLog log = entry.getValue();
            if (log.activeSegment().size() > 0) {
                log.roll();
            }
            if (log.config().compact) {
                compact(cleaner, entry.getKey(), log);
            } else {
                log.deleteOldSegments();
            }
        }
    }

    /**
     * Compacts the whole log again: what was compacted before may hold tombstones whose time is
     * over by now. Of a log that has retention too, segments are kept apart, as they are in a log
     * of real size; as small as they are here the cleaner would put them together, and retention
     * could then never part the old from the new.
     */
    private static void compact(LogCleaner cleaner, TopicPartition partition, UnifiedLog log)
            throws IOException, InterruptedException {
        LogConfig config = log.config();
        cleaner.abortAndPauseCleaning(partition);
        try {
            cleaner.maybeTruncateCheckpoint(
                    log.parentDirFile(), partition, log.logStartOffset());
            if (config.delete) {
                log.deleteOldSegments();
                Map<String, Object> apart = new HashMap<>(config.originals());
                apart.put(LogConfig.INTERNAL_SEGMENT_BYTES_CONFIG, 1);
                log.updateConfig(new LogConfig(apart));
            }
        } finally {
            cleaner.resumeCleaning(Set.of(partition));
        }
        try {
            long end = log.activeSegment().baseOffset();
            boolean closed = log.size() > log.activeSegment().size();
            if (closed && !cleaner.awaitCleaned(partition, end, CLEANING_MAX_MS)) {
                throw new IllegalStateException(partition + " was not compacted in time");
            }
        } finally {
            log.updateConfig(config);
        }
    }
}
