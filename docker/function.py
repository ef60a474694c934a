"""A function behind HTTP: takes Lambda's Kinesis event, reports the first record that it cannot handle.

Standard library only. Any web framework does the same: answer 200 with `batchItemFailures`, or an error status to
have the whole batch again.
"""

import base64
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def handle(record):
    order = json.loads(base64.b64decode(record["kinesis"]["data"]))
    if order["amount"] < 0:
        raise ValueError(f"order {order['number']} has a negative amount")


class Function(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        failures = []
        handled = 0
        for record in event["Records"]:
            try:
                handle(record)
                handled += 1
            except (ValueError, KeyError) as error:
                print(f"failed: {error}")
                # Everything from here on is redelivered, so there is no point in continuing.
                failures.append({"itemIdentifier": record["kinesis"]["sequenceNumber"]})
                break
        print(f"handled {handled} of {len(event['Records'])} records")
        body = json.dumps({"batchItemFailures": failures}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer((os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8080"))), Function).serve_forever()
