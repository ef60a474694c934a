"""A minimal runtime for tests: GET /next, do what the event asks for, POST the result."""
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time

BASE = "/2018-06-01/runtime/"
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])


def call(method, path, body=None, headers=None):
    connection.request(method, BASE + path, body, headers or {})
    reply = connection.getresponse()
    return reply.status, reply.headers, reply.read()


def run(event, headers):
    do = event.get("do")
    if do == "environment":
        return dict(os.environ)
    if do == "headers":
        return {name.lower(): value for name, value in headers.items()}
    if do == "pid":
        return os.getpid()
    if do == "sleep":
        time.sleep(event["seconds"])
        return os.getpid()
    if do == "raise":
        raise ValueError(event["text"])
    if do == "exit":
        print("leaving", flush=True)
        os._exit(event["status"])
    if do == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if do == "hang":
        child = subprocess.Popen(["sleep", "1000"])
        with open(event["file"] + ".new", "w") as file:
            file.write("%d %d" % (os.getpid(), child.pid))
        os.rename(event["file"] + ".new", event["file"])
        time.sleep(1000)
    if do == "hang-apart":
        # What it starts leaves the process group, and once with a parent that ends at once.
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        script = "import subprocess as s; print(s.Popen(['sleep', '1000'], start_new_session=True, stdout=s.DEVNULL).pid)"
        orphan = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout
        with open(event["file"] + ".new", "w") as file:
            file.write("%d %d %d" % (os.getpid(), child.pid, int(orphan)))
        os.rename(event["file"] + ".new", event["file"])
        if event["leave"]:
            os._exit(1)
        time.sleep(1000)
    if do == "browser":
        # What a page in a browser can make it send.
        address = os.environ["AWS_LAMBDA_RUNTIME_API"]
        answers = []
        for headers in [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Host": address}]:
            other = http.client.HTTPConnection(address)
            other.request("GET", BASE + "nothing", headers=headers)
            answers.append(other.getresponse().status)
        return answers
    if do == "two-loops":
        # Two that wait at once, where one is waited for.
        waiting = [http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"]) for _ in range(2)]
        call("POST", event["invocation"] + "response", "{}")
        for one in waiting:
            one.request("GET", BASE + "invocation/next")
        ready, _, _ = select.select([one.sock for one in waiting], [], [])
        refused = next(one for one in waiting if one.sock in ready)
        with open(event["file"] + ".new", "w") as file:
            file.write(str(refused.getresponse().status))
        os.rename(event["file"] + ".new", event["file"])
        os._exit(0)
    if do == "late-answer":
        stale = {"Lambda-Runtime-Invocation-Id": "of-an-earlier-attempt"}
        status, _, _ = call("POST", event["invocation"] + "response", "{}", stale)
        with open(event["file"], "w") as file:
            file.write(str(status))
        return {}
    if do == "large":
        return "x" * event["bytes"]
    if do == "answer":
        return event["answer"]
    raise KeyError(do)


if "init-error" in sys.argv:
    body = json.dumps({"errorType": "Runtime.ImportModuleError", "errorMessage": "no module app"})
    assert call("POST", "init/error", body)[0] == 202
    sys.exit(1)

# A process for each invocation that may be held at once, as awslambdaric does it. None is connected yet.
for _ in range(int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", 1)) - 1):
    if os.fork() == 0:
        break

while True:
    status, headers, body = call("GET", "invocation/next")
    if status != 200:
        sys.exit(3)
    invocation = "invocation/" + headers["Lambda-Runtime-Aws-Request-Id"] + "/"
    event = json.loads(body)
    event["invocation"] = invocation
    if event["do"] == "raw-api":
        # How the API answers invalid requests.
        probe = [
            call("POST", "invocation/unknown/response", "{}"),
            call("GET", "invocation/next"),
            call("POST", "init/error", "{}"),
            call("GET", "nothing"),
            call("POST", invocation + "response", "{}", {"Lambda-Runtime-Function-Response-Mode": "odd"}),
        ]
        with open(event["file"], "w") as file:
            json.dump([[s, json.loads(b)] for s, _, b in probe], file)
        continue
    if event["do"] == "stream":
        mode = {"Lambda-Runtime-Function-Response-Mode": "streaming", "Transfer-Encoding": "chunked"}
        connection.putrequest("POST", BASE + invocation + "response")
        for name, value in mode.items():
            connection.putheader(name, value)
        connection.putheader("Trailer", "Lambda-Runtime-Function-Error-Type")
        connection.endheaders()
        connection.send(b'6\r\n{"batc\r\n')
        connection.send(b'11\r\nhItemFailures":[]\r\n1\r\n}\r\n0\r\n')
        connection.send(event["trailer"].encode() + b"\r\n")
        reply = connection.getresponse()
        assert reply.status == 202, reply.status
        reply.read()
        continue
    try:
        result = json.dumps(run(event, headers))
    except Exception as error:
        report = json.dumps({"errorType": type(error).__name__, "errorMessage": str(error), "stackTrace": []})
        status, _, reply = call("POST", invocation + "error", report)
        assert (status, json.loads(reply)) == (202, {"status": "OK"})
        continue
    status, _, reply = call("POST", invocation + "response", result)
    if event["do"] == "large":
        with open(event["file"], "w") as file:
            json.dump([status, json.loads(reply)], file)
    else:
        assert (status, json.loads(reply)) == (202, {"status": "OK"})
