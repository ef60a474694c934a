#!/usr/bin/env python3
"""A fleet of sidecars on one lease table: how long its shards take to settle, and what it costs while they are idle.

  cargo build --release --workspace --bins
  bench/fleet.py [WORKERS] [SHARDS] [SECONDS]       # 5 workers, 2,000 shards, 60 s by default

Stream and table are `shardmill-fake`'s; with SHARDMILL_TEST_DYNAMODB_LOCAL set, the table is DynamoDB Local's. At the end one worker
is killed. The sidecars poll as they do by default; SHARDMILL_BENCH_IDLE=MILLISECONDS makes them poll more rarely, so that the
machine has time for the leases.
"""

import collections
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
BINARIES = os.environ.get("SHARDMILL_BINARIES", os.path.join(HERE, "../target/release"))
DYNAMODB = os.environ.get("SHARDMILL_TEST_DYNAMODB_LOCAL")
IDLE = os.environ.get("SHARDMILL_BENCH_IDLE")
PATIENCE, LEASE = 300, 15


def fetch(url, body=None):
    return urllib.request.urlopen(url, body and json.dumps(body).encode(), timeout=30).read().decode()


class Worker:
    def __init__(self, number, fake, table, folder):
        self.port = 19500 + number
        config = {
            "EventSourceArn": f"arn:aws:kinesis:us-east-1:000000000000:stream/{table}",
            "FunctionName": "fleet",
            "StartingPosition": "TRIM_HORIZON",
            "Function": {"Stdout": True},
            "Checkpoints": f"dynamodb:{table}",
            "Worker": {"Id": f"worker-{number}", "LeaseSeconds": LEASE},
            "Aws": {"Region": "us-east-1"},
            "Admin": {"Listen": f"127.0.0.1:{self.port}"},
        }
        if IDLE:
            config["Polling"] = {"IdleIntervalMilliseconds": int(IDLE), "MaximumIdleIntervalMilliseconds": int(IDLE)}
        path = os.path.join(folder, f"{number}.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        environment = dict(os.environ, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
        environment |= {"AWS_ENDPOINT_URL_KINESIS": fake, "AWS_ENDPOINT_URL_DYNAMODB": DYNAMODB or fake}
        log = open(os.path.join(folder, f"{number}.log"), "w", encoding="utf-8")
        command = [os.path.join(BINARIES, "shardmill"), "run", "-c", path]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)

    def metric(self, name):
        lines = [line for line in fetch(f"http://127.0.0.1:{self.port}/metrics").splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) / 1000 for line in file if line.startswith("VmRSS"))


def held(workers):
    def one(worker):
        try:
            return int(worker.metric("shardmill_leases_held"))
        except (urllib.error.URLError, OSError):
            return 0

    return [one(worker) for worker in workers]


def settle(what, workers, shards):
    """Waits until every shard has an owner and no worker has more than one more than another."""
    began, shown = time.time(), None
    while time.time() < began + PATIENCE:
        now = held(workers)
        if now != shown:
            print(f"  {time.time() - began:5.1f} s {now}", flush=True)
            shown = now
        if sum(now) == shards and max(now) - min(now) <= 1:
            print(f"{what}: {time.time() - began:.1f} s", flush=True)
            return
        time.sleep(0.5)
    sys.exit(f"{what}: not within {PATIENCE} s: {shown}")


def costs(workers, seconds):
    counted = ["table_read_units_total", "table_write_units_total", "table_calls_total"]

    def look():
        totals = collections.Counter(cpu=sum(worker.cpu() for worker in workers))
        for name in counted:
            totals[name] = sum(worker.metric(f"shardmill_{name}") for worker in workers)
        return totals

    before, began = look(), time.time()
    time.sleep(seconds)
    after, took = look(), time.time() - began
    spent = {name: round((after[name] - before[name]) / took, 2) for name in after}
    print("idle, all workers, a second:", spent)
    print("resident memory of each, MB:", [round(worker.resident()) for worker in workers])


def main():
    count, shards, seconds = (int(given) for given in (sys.argv[1:] + ["5", "2000", "60"][len(sys.argv) - 1 :]))
    run = f"fleet-{int(time.time())}"
    folder = tempfile.mkdtemp(prefix=run)
    fake = subprocess.Popen([os.path.join(BINARIES, "shardmill-fake"), "--keep-calls", "10"], stdout=subprocess.PIPE, text=True)
    workers = []
    try:
        url = fake.stdout.readline().strip()
        fetch(f"{url}/control/kinesis/create-stream", {"stream": run, "shards": shards})
        workers = [Worker(number, url, run, folder) for number in range(count)]
        settle(f"{count} workers that start together share {shards} shards", workers, shards)
        costs(workers, seconds)
        workers[0].process.kill()
        settle("the shards of a killed worker are shared by the others", workers[1:], shards)
        workers.append(Worker(count, url, run, folder))
        settle("a worker in its place has its share", workers[1:], shards)
        for worker in workers[1:]:
            with open(os.path.join(folder, f"{worker.port - 19500}.log"), encoding="utf-8") as file:
                trouble = [line for line in file if '"WARN"' in line or '"ERROR"' in line]
            print(f"worker-{worker.port - 19500}:", len(trouble), "warnings", "".join(trouble[:3])[:900])
    finally:
        for process in [worker.process for worker in workers] + [fake]:
            process.kill()
            process.wait()


main()
