#!/usr/bin/env python3
"""Shardmill and its peers on one server of prepared pages, one after the other, in one table.

  bench/peers/run.py                      # builds everything, installs and starts DynamoDB Local for KCL: ten minutes or more
  bench/peers/run.py --rounds 1 --only bare,library-cbor,go
  bench/peers/run.py --help

What the machine cannot build is skipped by name. See docs/benchmarks.md, "Next to its peers".
"""

import argparse
import collections
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
STREAM = "bench"
# What `cargo xtask emulators with` was asked for; set once it was.
SUITES, ASKED = "dynamodb_local,kcl_java", "SHARDMILL_PEERS_EMULATORS"
KCL, DYNAMODB = "SHARDMILL_TEST_KCL_JAVA", "SHARDMILL_TEST_DYNAMODB_LOCAL"
# The first start of KCL on a new table takes a minute and a half where nothing else is at work.
PATIENCE = 600

Run = collections.namedtuple("Run", "rate cpu resident first")


class Failed(Exception):
    """Why a consumer gave no figures."""


class Counter(threading.Thread):
    """Follows the running count that a process prints, one number on each line."""

    def __init__(self, lines):
        super().__init__(daemon=True)
        self.lines, self.changed = lines, threading.Condition()
        self.count, self.at, self.ended = 0, None, False
        self.start()

    def run(self):
        for line in self.lines:
            with self.changed:
                self.count, self.at = int(line), time.monotonic()
                self.changed.notify()
        with self.changed:
            self.ended = True
            self.changed.notify()

    def reach(self, count):
        """When the count was at least this, and what it was."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.count >= count or self.ended, PATIENCE):
                raise Failed(f"{count:,} records did not come within {PATIENCE} s")
            if self.count < count:
                raise Failed(f"it ended after {self.count:,} records")
            return self.at, self.count


class Place:
    """Where the consumers run: what they read, and a folder for what they write."""

    def __init__(self, options, folder):
        self.folder, self.options, self.processes = folder, options, []
        serve = ["serve", "--stream", STREAM, "--shards", options.shards, "--records-per-page", options.page]
        self.server = self.spawn("server", [self.binary("shardmill-bench"), *map(str, serve)])
        self.url = self.server.stdout.readline().strip()

    def binary(self, name):
        return os.path.join(self.options.binaries, name)

    def log(self, name):
        return os.path.join(self.folder, f"{name}.log")

    def spawn(self, name, command, **environment):
        with open(self.log(name), "w", encoding="utf-8") as log:
            environment = dict(os.environ, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", **environment)
            pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": log}
            process = subprocess.Popen(command, text=True, env=environment, cwd=self.folder, **pipes)
        self.processes.append(process)
        return process

    def stop(self, keep=()):
        for process in self.processes:
            if process not in keep:
                process.kill()
                process.wait()
        self.processes = list(keep)


def itself(command):
    """A consumer that prints its own count."""

    def start(place, name):
        process = place.spawn(name, command(place, name))
        return process, process.stdout

    return start


def sidecar(place, name):
    """The sidecar, whose records are counted by the function that it invokes, in another process."""
    function = place.spawn("function", [place.binary("shardmill-bench"), "count-function"])
    config = {
        "EventSourceArn": f"arn:aws:kinesis:us-east-1:000000000000:stream/{STREAM}",
        "FunctionName": "peers",
        "StartingPosition": "TRIM_HORIZON",
        "Function": {"Url": function.stdout.readline().strip()},
        "Checkpoints": f"sqlite:{place.folder}/{name}.db",
        "Aws": {"Region": "us-east-1", "EndpointUrl": place.url},
        "Admin": "off",
    }
    path = os.path.join(place.folder, f"{name}.yaml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return place.spawn(name, [place.binary("shardmill"), "run", "-c", path], RUST_LOG="error"), function.stdout


def kcl(place, name):
    settings = {
        "stream": STREAM,
        # Every start is KCL's first on its table.
        "table": f"peers-{os.getpid()}-{name}",
        "worker": "peers",
        "region": "us-east-1",
        "kinesis": place.url,
        "dynamodb": os.environ[DYNAMODB],
        "version": "3x",
        "batch": 10_000,
        # The least that KCL accepts.
        "idle": 200,
    }
    java = ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", os.environ[KCL]]
    return [*java, "io.shardmill.interop.KclCounter", *(f"{key}={value}" for key, value in settings.items())]


def bench(*words):
    return itself(lambda place, _: [place.binary("shardmill-bench"), words[0], place.url, *words[1:]])


GO_CONSUMER = os.path.join(TARGET, "peers", "go-consumer")
START = {
    "bare": bench("count-bare"),
    "library-json": bench("count-library", "json"),
    "library-cbor": bench("count-library", "cbor"),
    "sidecar": sidecar,
    "go": itself(lambda place, _: [GO_CONSUMER, place.url, STREAM]),
    "kcl": itself(kcl),
}


def version(file, pattern):
    with open(os.path.join(ROOT, file), encoding="utf-8") as text:
        return re.search(pattern, text.read())[1]


def titles():
    go = version("bench/peers/go/go.mod", r"harlow/kinesis-consumer v(\S+)")
    java = version("tests/kcl-interop/pom.xml", r"amazon-kinesis-client</artifactId>\s*<version>([^<]+)")
    return {
        "bare": "AWS SDK for Rust, bare loop",
        "library-json": "Shardmill, library, JSON",
        "library-cbor": "Shardmill, library, CBOR",
        "sidecar": "Shardmill, sidecar with a Url function (paced)",
        "go": f"Go, harlow/kinesis-consumer {go}",
        "kcl": f"KCL Java {java}, polling (paced)",
    }


def build_rust(options):
    if options.binaries:
        options.binaries = os.path.abspath(options.binaries)
        return
    options.binaries = os.path.join(TARGET, "release")
    if ASKED not in os.environ:
        packages = ["-p", "shardmill-bench", "-p", "shardmill-sidecar"]
        subprocess.run(["cargo", "build", "--release", "--locked", "--bins", *packages], cwd=ROOT, check=True)


def ask_for_emulators():
    """Starts this program again with KCL and DynamoDB Local in its environment, unless they are or were asked for."""
    if ASKED in os.environ or (KCL in os.environ and DYNAMODB in os.environ):
        return
    xtask = ["cargo", "run", "--quiet", "--manifest-path", os.path.join(ROOT, "Cargo.toml"), "-p", "xtask", "--"]
    again = [sys.executable, os.path.abspath(__file__), *sys.argv[1:]]
    sys.stdout.flush()
    os.execvpe("cargo", [*xtask, "emulators", "with", SUITES, *again], dict(os.environ, **{ASKED: "1"}))


def lacks(key, options):
    """Why a consumer cannot run here. Builds what is only for it."""
    for binary in ["shardmill-bench"] + ["shardmill"] * (key == "sidecar"):
        if not os.path.isfile(os.path.join(options.binaries, binary)):
            return f"{binary} is not in {options.binaries}"
    if key == "kcl" and not (KCL in os.environ and DYNAMODB in os.environ):
        tools = {"java": "Java 17", "mvn": "Maven", "npm": "Node with npm"}
        missing = [what for tool, what in tools.items() if not shutil.which(tool)]
        return f"this machine lacks {', '.join(missing)}" if missing else "it could not be installed, see above"
    if key == "go":
        if not shutil.which("go"):
            return "this machine lacks Go"
        built = subprocess.run(["go", "build", "-o", GO_CONSUMER, "."], cwd=os.path.join(HERE, "go"), check=False)
        return "it could not be built, see above" if built.returncode else None
    return None


def cpu(pid):
    """CPU seconds of a process and of its children that have ended."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def highest_resident(pid):
    """The most memory that a process ever had, in MB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith("VmHWM"))


def measure(place, key, number):
    name, began = f"{key}-{number}", time.monotonic()
    try:
        process, lines = START[key](place, name)
        counter = Counter(lines)
        first, _ = counter.reach(1)
        time.sleep(place.options.warm_up)
        start, before = counter.reach(counter.count + 1)
        spent = cpu(process.pid)
        end, after = counter.reach(before + place.options.records)
        spent = cpu(process.pid) - spent
        return Run((after - before) / (end - start), spent / (after - before), highest_resident(process.pid), first - began)
    except (Failed, OSError) as error:
        with open(place.log(name), encoding="utf-8") as log:
            sys.stderr.write("".join(log.readlines()[-40:]))
        raise Failed(f"round {number}: {error}") from error
    finally:
        place.stop(keep=[place.server])


def rounds(place, keys, failed):
    """The runs of each consumer, one after the other; the order rotates, so that a machine that slows down slows all."""
    found = {key: [] for key in keys}
    for number in range(place.options.rounds):
        turn = number % len(keys)
        for key in keys[turn:] + keys[:turn]:
            if key in failed:
                continue
            try:
                run = measure(place, key, number + 1)
            except Failed as error:
                failed[key] = str(error)
                continue
            found[key].append(run)
            shown = f"{run.rate:,.0f} records/s, {run.cpu * 1e6:.2f} µs, {run.resident:,.0f} MB, {run.first:.2f} s"
            print(f"round {number + 1}, {key}: {shown}", file=sys.stderr, flush=True)
    return found


def table(found, skipped, failed, names):
    """The medians as Markdown. A ratio is the median of those of each round."""
    lines = [
        "| consumer | records/s | ÷ bare | CPU a record | ÷ bare | highest RSS | start to first record |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    bare = found.get("bare", [])
    for key, name in names.items():
        reason = f"skipped: {skipped[key]}" if key in skipped else f"FAILED: {failed[key]}" if key in failed else None
        if reason:
            lines.append(f"| {name} | {reason} | | | | | |")
        if reason or not found.get(key):
            continue
        rate, spent, resident, first = (statistics.median(column) for column in zip(*found[key]))
        pairs = list(zip(found[key], bare)) if "bare" not in failed else []
        faster = f"{statistics.median(own.rate / of.rate for own, of in pairs):.2f}" if pairs else ""
        dearer = f"{statistics.median(own.cpu / of.cpu for own, of in pairs):.2f}" if pairs and all(of.cpu for of in bare) else ""
        cells = [f"{rate:,.0f}", faster, f"{spent * 1e6:.2f} µs", dearer, f"{resident:,.0f} MB", f"{first:.2f} s"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def at_least(least, most=10**9):
    def read(text):
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{number} must be between {least} and {most}")
        return number

    return read


def consumers(text):
    keys = text.split(",")
    unknown = [key for key in keys if key not in START]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(START)}")
    return [key for key in START if key in keys]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=at_least(1), default=3, metavar="N", help="figures are medians over these (3)")
    parser.add_argument("--records", type=at_least(1), default=1_000_000, metavar="N", help="measured in each run (1,000,000)")
    parser.add_argument("--warm-up", type=at_least(0), default=5, metavar="SECONDS", help="after the first record (5)")
    parser.add_argument("--shards", type=at_least(1, 1_000), default=32, metavar="N", help="of the stream (32)")
    parser.add_argument("--page", type=at_least(1, 10_000), default=2_000, metavar="N", help="records of 1 KB on a page (2,000)")
    parser.add_argument("--only", type=consumers, default=list(START), metavar="KEYS", help=f"of {','.join(START)}")
    parser.add_argument("--binaries", metavar="FOLDER", help="use the Rust programs there instead of building them")
    return parser.parse_args()


def main():
    options = arguments()
    build_rust(options)
    if "kcl" in options.only:
        ask_for_emulators()
    names = {key: title for key, title in titles().items() if key in options.only}
    skipped = {key: reason for key in options.only if (reason := lacks(key, options))}
    for key, reason in skipped.items():
        print(f"skipped: {names[key]}: {reason}", file=sys.stderr, flush=True)
    keys, failed, found = [key for key in options.only if key not in skipped], {}, {}
    if keys:
        with tempfile.TemporaryDirectory(prefix="shardmill-peers-") as folder:
            place = Place(options, folder)
            try:
                found = rounds(place, keys, failed)
            finally:
                place.stop()
    print(table(found, skipped, failed, names))
    sys.exit(1 if failed else 0)


main()
