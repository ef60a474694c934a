"""A Lambda function that does what its records say, for `python -m awslambdaric app.handler`.

A record's data is {"n": NUMBER, "do": WHAT}. Every invocation is first noted in the file that INVOCATIONS names.
"""

import base64
import json
import os
import time


def handler(event, context):
    records = [
        (record["kinesis"]["sequenceNumber"], json.loads(base64.b64decode(record["kinesis"]["data"])))
        for record in event["Records"]
    ]
    note = {"requestId": context.aws_request_id, "records": [data["n"] for _, data in records]}
    with open(os.environ["INVOCATIONS"], "a") as file:
        file.write(json.dumps(note) + "\n")
    for sequence_number, data in records:
        match data.get("do"):
            case "report":
                return {"batchItemFailures": [{"itemIdentifier": sequence_number}]}
            case "raise":
                raise ValueError(f"record {data['n']} is bad")
            case "sleep":
                time.sleep(1000)
            case "exit":
                os._exit(1)
            case "large":
                return "x" * (6 * 1024 * 1024 + 1)
