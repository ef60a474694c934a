package io.shardmill.interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.CoordinatorConfig.ClientVersionConfig;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.ShardRecordProcessorFactory;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * A worker of KCL that tells on its standard output what it handles, one line for each event, and stops in order when its
 * standard input has a line or ends. Its settings are name=value arguments.
 */
public final class KclWorker {
    private KclWorker() {}

    /** Runs until it is asked to stop. */
    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = settings(arguments);
        Scheduler scheduler = scheduler(given, Processor::new);
        Thread runs = new Thread(scheduler, "scheduler");
        runs.setDaemon(true);
        runs.start();
        new BufferedReader(new InputStreamReader(System.in)).readLine();
        boolean inOrder = scheduler.startGracefulShutdown().get(60, TimeUnit.SECONDS);
        tell("stopped " + inOrder);
        System.exit(0);
    }

    static Map<String, String> settings(String[] arguments) {
        Map<String, String> given = new HashMap<>();
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            given.put(parts[0], parts[1]);
        }
        return given;
    }

    static Scheduler scheduler(Map<String, String> given, ShardRecordProcessorFactory processors) {
        String stream = given.get("stream");
        long failover = Long.parseLong(given.getOrDefault("failover", "10000"));
        StaticCredentialsProvider credentials =
                StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        Region region = Region.of(given.get("region"));
        KinesisAsyncClient kinesis = KinesisAsyncClient.builder()
                .endpointOverride(URI.create(given.get("kinesis")))
                .httpClientBuilder(NettyNioAsyncHttpClient.builder()
                        .protocol(Protocol.HTTP1_1)
                        // As KCL's own clients: a read for each shard at once.
                        .maxConcurrency(Integer.MAX_VALUE))
                .credentialsProvider(credentials)
                .region(region)
                .build();
        DynamoDbAsyncClient dynamo = DynamoDbAsyncClient.builder()
                .endpointOverride(URI.create(given.get("dynamodb")))
                .credentialsProvider(credentials)
                .region(region)
                .build();
        CloudWatchAsyncClient metrics =
                CloudWatchAsyncClient.builder().credentialsProvider(credentials).region(region).build();
        InitialPositionInStreamExtended start =
                InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        ConfigsBuilder configs = new ConfigsBuilder(
                new SingleStreamTracker(stream, start),
                given.get("table"),
                kinesis,
                dynamo,
                metrics,
                given.get("worker"),
                processors);
        ClientVersionConfig version = given.get("version").equals("2x")
                ? ClientVersionConfig.CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X
                : ClientVersionConfig.CLIENT_VERSION_CONFIG_3X;
        PollingConfig polling = new PollingConfig(stream, kinesis)
                .maxRecords(Integer.parseInt(given.getOrDefault("batch", "10")))
                .idleTimeBetweenReadsInMillis(Long.parseLong(given.getOrDefault("idle", "250")));
        return new Scheduler(
                configs.checkpointConfig(),
                configs.coordinatorConfig().clientVersionConfig(version).parentShardPollIntervalMillis(1000),
                configs.leaseManagementConfig().failoverTimeMillis(failover),
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                configs.retrievalConfig().retrievalSpecificConfig(polling));
    }

    private static synchronized void tell(String line) {
        System.out.println(line);
        System.out.flush();
    }

    /** Tells what it is given, and checkpoints each batch. */
    private static final class Processor implements ShardRecordProcessor {
        private String shard;

        @Override
        public void initialize(InitializationInput input) {
            shard = input.shardId();
            tell("took " + shard + " " + input.extendedSequenceNumber().sequenceNumber());
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            String last = null;
            for (KinesisClientRecord record : input.records()) {
                last = record.sequenceNumber();
                tell("record " + shard + " " + last);
            }
            if (last != null) {
                try {
                    input.checkpointer().checkpoint();
                    tell("checkpoint " + shard + " " + last);
                } catch (Exception error) {
                    tell("refused " + shard + " " + last);
                }
            }
        }

        @Override
        public void leaseLost(LeaseLostInput input) {
            tell("lost " + shard);
        }

        @Override
        public void shardEnded(ShardEndedInput input) {
            try {
                input.checkpointer().checkpoint();
            } catch (Exception error) {
                tell("refused " + shard + " SHARD_END");
            }
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            tell("asked " + shard);
            try {
                input.checkpointer().checkpoint();
            } catch (Exception error) {
                tell("refused " + shard + " stop");
            }
        }
    }
}
