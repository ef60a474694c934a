"""Creates the stream and the queue of the example, then puts ten orders a second. Every hundredth one is bad.

Standard library only: an emulator does not check signatures, so a plain HTTP request is enough. Against AWS use an SDK.
"""

import base64
import json
import os
import time
import urllib.error
import urllib.request

ENDPOINT = os.environ.get("ENDPOINT", "http://localstack:4566")
REGION = "us-east-1"


def call(service, target, body):
    request = urllib.request.Request(
        ENDPOINT,
        data=json.dumps(body).encode(),
        headers={
            "content-type": "application/x-amz-json-1.1" if service == "kinesis" else "application/x-amz-json-1.0",
            "x-amz-target": target,
            "authorization": f"AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/{service}/aws4_request, "
            "SignedHeaders=host, Signature=none",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"{}")


def until_it_works(what, *arguments):
    while True:
        try:
            return call(*arguments)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if "ResourceInUseException" in text:  # it exists already
                return None
            print(f"{what}: {error.code} {text}; again in a second")
        except (OSError, ValueError) as error:
            print(f"{what}: {error}; again in a second")
        time.sleep(1)


def order(number):
    amount = -1 if number % 100 == 99 else number % 50 + 1
    data = json.dumps({"number": number, "customer": number % 7, "amount": amount})
    return {"PartitionKey": f"customer-{number % 7}", "Data": base64.b64encode(data.encode()).decode()}


if __name__ == "__main__":
    until_it_works("create the queue", "sqs", "AmazonSQS.CreateQueue", {"QueueName": "orders-dlq"})
    stream = {"StreamName": "orders", "ShardCount": 2}
    until_it_works("create the stream", "kinesis", "Kinesis_20131202.CreateStream", stream)
    for number in range(0, 1_000_000_000, 10):
        records = [order(n) for n in range(number, number + 10)]
        body = {"StreamName": "orders", "Records": records}
        until_it_works("put records", "kinesis", "Kinesis_20131202.PutRecords", body)
        time.sleep(1)
