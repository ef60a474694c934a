# python3 server.py
import base64, json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def handle(record):
    order = json.loads(base64.b64decode(record["kinesis"]["data"]))
    if order["amount"] < 0:
        raise ValueError("negative amount")

class Function(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection open

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        failures = []
        for record in event["Records"]:
            try:
                handle(record)
            except Exception:
                failures.append({"itemIdentifier": record["kinesis"]["sequenceNumber"]})
                break
        answer = json.dumps({"batchItemFailures": failures}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

ThreadingHTTPServer(("127.0.0.1", 8080), Function).serve_forever()
