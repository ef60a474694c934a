#!/usr/bin/env python3
"""Amazon's KCL and the sidecar at once on one lease table, by hand: who has how many leases, what is handled twice.

  mvn -q package dependency:copy-dependencies -DincludeScope=runtime      # here, once
  eval "$(cargo xtask emulators up)" && cargo build
  tests/kcl-interop/together.py 3x 180

The sidecar starts once the KCL worker reads every shard. A third argument, `handoff`, starts a second KCL worker when a third of
the time after that is over and stops the first one after two.
"""

import base64
import collections
import glob
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
KINESIS = os.environ["SHARDMILL_TEST_KINESIS_LOCAL"]
DYNAMODB = os.environ["SHARDMILL_TEST_DYNAMODB_LOCAL"]
BINARY = os.environ.get("SHARDMILL_TEST_SIDECAR", os.path.join(HERE, "../../target/debug/shardmill"))
SHARDS = 8


def call(url, target, body):
    signature = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/x/aws4_request, SignedHeaders=host, Signature=x"
    version = "1.0" if target.startswith("DynamoDB") else "1.1"
    headers = {
        "X-Amz-Target": target,
        "Content-Type": f"application/x-amz-json-{version}",
        "Authorization": signature,
        "X-Amz-Date": "20200101T000000Z",
    }
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    return json.loads(urllib.request.urlopen(request, timeout=30).read() or "{}")


def kinesis(name, body):
    return call(KINESIS, f"Kinesis_20131202.{name}", body)


class Worker:
    """A process that tells what it handles on its standard output."""

    def __init__(self, name, command, read, **more):
        self.name, self.handled, self.events = name, [], collections.Counter()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)
        self.thread = threading.Thread(target=self.follow, args=(read,), daemon=True)
        self.thread.start()

    def follow(self, read):
        for line in self.process.stdout:
            read(self, line)

    def stop(self):
        if self.name.startswith("java"):
            self.process.stdin.write("stop\n")
            self.process.stdin.flush()
        else:
            self.process.terminate()
        self.process.wait(90)
        self.thread.join(10)


def java_line(worker, line):
    words = line.split()
    worker.events[words[0]] += 1
    if words[0] == "record":
        worker.handled.append((words[1], words[2]))


def sidecar_line(worker, line):
    for record in json.loads(line)["Records"]:
        worker.handled.append((record["eventID"].split(":")[0], record["kinesis"]["sequenceNumber"]))


def java(name, stream, table, version):
    paths = [f"{HERE}/target/kcl-interop.jar", f"{HERE}/target/dependency/*"]
    command = ["java", "-Daws.cborEnabled=false", "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
    command += ["-cp", ":".join(paths), "io.shardmill.interop.KclWorker", f"stream={stream}", f"table={table}"]
    command += [f"worker={name}", "region=us-east-1", f"kinesis={KINESIS}", f"dynamodb={DYNAMODB}"]
    return Worker(name, command + [f"version={version}", "failover=10000"], java_line)


def sidecar(name, arn, table, folder):
    config = {
        "EventSourceArn": arn,
        "FunctionName": "together",
        "StartingPosition": "TRIM_HORIZON",
        "Function": {"Stdout": True},
        "Checkpoints": f"kcl:{table}",
        "CheckpointIntervalMilliseconds": 1000,
        "Worker": {"Id": name, "LeaseSeconds": 10},
        "Aws": {"Region": "us-east-1"},
        "Admin": "off",
    }
    path = os.path.join(folder, f"{name}.yaml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    environment = dict(os.environ, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    environment |= {"AWS_ENDPOINT_URL_KINESIS": KINESIS, "AWS_ENDPOINT_URL_DYNAMODB": DYNAMODB}
    log = open(os.path.join(folder, f"{name}.log"), "w", encoding="utf-8")
    return Worker(name, [BINARY, "run", "-c", path], sidecar_line, stderr=log, env=environment, cwd=folder)


def owners(table, handoffs):
    """Who has which lease; graceful handoffs under way are noted."""
    items = call(DYNAMODB, "DynamoDB_20120810.Scan", {"TableName": table, "ConsistentRead": True})["Items"]
    leases = {item["leaseKey"]["S"]: item for item in items if item["leaseKey"]["S"].startswith("shardId-")}
    given = {key: item.get("leaseOwner", {"S": "-"})["S"] for key, item in leases.items()}
    for key, item in leases.items():
        if "checkpointOwner" in item:
            handoffs.add((key, item["checkpointOwner"]["S"], given[key]))
    return given


def has_index(table):
    try:
        described = call(DYNAMODB, "DynamoDB_20120810.DescribeTable", {"TableName": table})["Table"]
    except urllib.error.HTTPError:
        return False
    return any(index["IndexStatus"] == "ACTIVE" for index in described.get("GlobalSecondaryIndexes", []))


def main():
    version, seconds = sys.argv[1], int(sys.argv[2])
    handoff = sys.argv[3:] == ["handoff"]
    run = f"together-{int(time.time())}"
    folder = tempfile.mkdtemp(prefix=run)
    kinesis("CreateStream", {"StreamName": run, "ShardCount": SHARDS})
    time.sleep(3)
    arn = kinesis("DescribeStreamSummary", {"StreamName": run})["StreamDescriptionSummary"]["StreamARN"]
    accepted, workers, started = set(), [java("java-1", run, run, version)], time.time()
    before, moves, handoffs, shown = {}, collections.Counter(), set(), None
    # DynamoDB Local spoils an index that is built while its attributes are written.
    while version == "3x" and not has_index(run):
        time.sleep(1)
    plan = [(0, lambda: workers.append(sidecar("sidecar-1", arn, run, folder)))]
    if handoff:
        plan.append((seconds / 3, lambda: workers.append(java("java-2", run, run, version))))
        plan.append((seconds * 2 / 3, lambda: workers[0].stop()))
    alone, begun = False, time.time()
    while time.time() < begun + seconds:
        if not alone:
            # KCL 3 needs minutes until its first worker reads the whole of a new stream.
            read = {shard for shard, _ in workers[0].handled}
            alone, begun = list(before.values()) == ["java-1"] * SHARDS and len(read) == SHARDS, time.time()
        while alone and plan and time.time() >= begun + plan[0][0]:
            plan.pop(0)[1]()
        data = base64.b64encode(b"x" * 100).decode()
        records = [{"Data": data, "PartitionKey": f"{time.time()}-{n}"} for n in range(20)]
        for record in kinesis("PutRecords", {"StreamName": run, "Records": records})["Records"]:
            if "SequenceNumber" in record:
                accepted.add((record["ShardId"], record["SequenceNumber"]))
        try:
            now = owners(run, handoffs)
        except urllib.error.HTTPError:
            now = {}
        for shard, owner in now.items():
            if before.get(shard, owner) != owner:
                moves[f"{before[shard]} to {owner}"] += 1
        before = now or before
        counts = dict(sorted(collections.Counter(now.values()).items()))
        if counts != shown:
            print(f"{time.time() - started:6.1f} s", counts, flush=True)
            shown = counts
        time.sleep(0.5)
    wanted = begun + seconds + 60
    while time.time() < wanted and accepted - {record for worker in workers for record in worker.handled}:
        time.sleep(1)
    for worker in workers:
        if worker.process.poll() is None:
            worker.stop()
    handled = [record for worker in workers for record in worker.handled]
    print("accepted", len(accepted), "missing", len(accepted - set(handled)), "twice", len(handled) - len(set(handled)))
    print("by worker", {worker.name: len(worker.handled) for worker in workers})
    graceful = collections.Counter(f"{old} to {new}" for _, old, new in handoffs)
    print("moves", dict(moves), "graceful handoffs", dict(graceful), "KCL's events", [dict(w.events) for w in workers if w.events])
    for log in glob.glob(f"{folder}/*.log"):
        with open(log, encoding="utf-8") as file:
            trouble = [line for line in file if '"WARN"' in line or '"ERROR"' in line]
        print(os.path.basename(log), len(trouble), "warnings", "".join(trouble[:5])[:1500])


main()
