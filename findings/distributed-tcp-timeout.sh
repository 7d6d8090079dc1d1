#!/usr/bin/env bash
# distributed 2026.8.0: a timeout of a broken connection that is too short makes a cluster that nobody reaches.
#
# Guess: "distributed.comm.timeouts.tcp: 5s" (documented as the delay before an unresponsive connection is
# called dead; 30 s by default) makes the loss of a host known after 5 s, or is refused when it is read.
# Found: below 11 s each connection fails on an assertion ("Timeout too low": ten probes, a second each, and
# one), in the log of the one who accepts it. The scheduler starts, prints its address and goes on
# listening; workers and clients only hear that the connection was closed or took too long. 11 s works.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet distributed==2026.8.0 dask==2026.8.0 2>/dev/null
"$folder/venv/bin/python" - "$folder/log" <<'PY'
import os
import subprocess
import sys
import time

from distributed import Client

SETTING = "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP"


def scheduler(timeout, port):
    """Start one with a timeout; tell whether a client of default settings reaches it, and its log."""
    with open(sys.argv[1], "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1",
             "--port", str(port), "--no-dashboard"],
            env={**os.environ, SETTING: timeout}, stderr=log, stdout=log)
    try:
        deadline = time.monotonic() + 60
        while "Scheduler at" not in open(sys.argv[1]).read():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        try:
            Client(f"tcp://127.0.0.1:{port}", timeout=15).close()
            reached = "reached"
        except OSError as error:
            reached = f"{type(error).__name__}: {str(error)[:60]}"
        return reached, process.poll() is None, open(sys.argv[1]).read()
    finally:
        process.kill()
        process.wait()


for timeout, port in (("5s", 18786), ("11s", 18787)):
    reached, alive, log = scheduler(timeout, port)
    print(f"{timeout}: {reached}; scheduler {'runs' if alive else 'has ended'};",
          "its log says 'Timeout too low'" if "Timeout too low" in log else "nothing in its log")
    assert alive
    assert ("Timeout too low" in log) == (timeout == "5s") == (reached != "reached")
PY
