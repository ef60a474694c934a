#!/bin/sh
# Runs a function against a stream in memory: sh try.sh 'Url: "http://127.0.0.1:8080/"'
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
FAKE=http://127.0.0.1:4580 ARN=arn:aws:kinesis:us-east-1:000000000000:stream/orders
cat > try.yaml <<END
{EventSourceArn: "$ARN", FunctionName: orders, StartingPosition: TRIM_HORIZON, Checkpoints: memory,
 MaximumRetryAttempts: 2, BisectBatchOnFunctionError: true, FunctionResponseTypes: [ReportBatchItemFailures],
 DestinationConfig: {OnFailure: {Destination: "file:dead.jsonl"}}, Aws: {EndpointUrl: "$FAKE"}, Function: {$1}}
END
shardmill-fake --port 4580 & sleep 1
curl -s $FAKE/control/kinesis/create-stream -d '{"stream": "orders", "shards": 1}'
for amount in 1 2 -1 3; do
  curl -s $FAKE/control/kinesis/put -d "{\"stream\": \"orders\", \"key\": \"k\", \"data\": \"{\\\"amount\\\": $amount}\"}"
done
timeout 8 shardmill run -c try.yaml
kill $!
cat dead.jsonl # one line: the order of -1
