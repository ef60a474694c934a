"""A Lambda function that counts the records of a tumbling window, for `python -m awslambdaric counting.handler`.

Every event is first written to the file that EVENTS names.
"""

import json
import os


def handler(event, context):
    with open(os.environ["EVENTS"], "a") as file:
        file.write(json.dumps(event) + "\n")
    return {"state": {"count": event["state"].get("count", 0) + len(event["Records"])}}
