package io.shardmill.interop;

import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.LongAdder;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.processor.ShardRecordProcessor;

/**
 * A worker of KCL that counts records, for bench/peers: prints each new count, and ends when nobody reads it any more. Its
 * settings are those of {@link KclWorker}.
 */
public final class KclCounter {
    private static final LongAdder RECORDS = new LongAdder();

    private KclCounter() {}

    /** Runs until it is killed. */
    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = KclWorker.settings(arguments);
        Scheduler scheduler = KclWorker.scheduler(given, Processor::new);
        Thread runs = new Thread(scheduler, "scheduler");
        runs.setDaemon(true);
        runs.start();
        long shown = 0;
        while (runs.isAlive() && !System.out.checkError()) {
            long now = RECORDS.sum();
            if (now != shown) {
                System.out.println(now);
                shown = now;
            }
            Thread.sleep(10);
        }
        System.exit(1);
    }

    /** Counts what it is given, and checkpoints every five seconds, as Shardmill does with a table. */
    private static final class Processor implements ShardRecordProcessor {
        private static final long INTERVAL = TimeUnit.SECONDS.toNanos(5);
        private long checkpointed = System.nanoTime();

        @Override
        public void initialize(InitializationInput input) {}

        @Override
        public void processRecords(ProcessRecordsInput input) {
            RECORDS.add(input.records().size());
            if (System.nanoTime() - checkpointed < INTERVAL) {
                return;
            }
            checkpointed = System.nanoTime();
            try {
                input.checkpointer().checkpoint();
            } catch (Exception error) {
                System.err.println("a checkpoint was refused: " + error);
            }
        }

        @Override
        public void leaseLost(LeaseLostInput input) {}

        @Override
        public void shardEnded(ShardEndedInput input) {
            try {
                input.checkpointer().checkpoint();
            } catch (Exception error) {
                System.err.println("the end of a shard was refused: " + error);
            }
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {}
    }
}
