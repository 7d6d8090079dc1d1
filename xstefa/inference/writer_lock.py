"""One writer a store: who writes says so beside it, and whoever comes later is refused by name.

The claim is a small file, made in one step that fails if it exists, which folders and object stores
both give. A writer that was killed leaves it behind. Of a process of this machine it is known
whether it still runs; one elsewhere is watched for a while, because a writer renews its claim.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from fsspec.core import url_to_fs

from xstefa.errors import StoreError

# Seconds between renewals; after how many a claim from elsewhere counts as left behind; and how
# long two processes that take one over at the same moment may lie apart.
RENEWED_EVERY = 5.0
LEFT_AFTER = 30.0
TAKEN_WITHIN = 1.0


@contextmanager
def claimed(location: str) -> Iterator[None]:
    """Be the only writer of a store.

    Parameters
    ----------
    location : str
        Absolute path, or URL that fsspec understands. The claim is ``<location>.writer``.

    Raises
    ------
    StoreError
        If another process, or another call in this one, is writing it.
    """
    fs, path = url_to_fs(f"{location.rstrip('/')}.writer")
    claim = _Claim(fs, path)
    if not claim.make():
        there = claim.read()
        if claim.is_held(there):
            raise _refusal(location, path, there)
        with suppress(FileNotFoundError):
            fs.rm(path)
        made = claim.make()
        time.sleep(TAKEN_WITHIN)
        if not made or not claim.is_mine():
            raise _refusal(location, path, claim.read())
    done = threading.Event()
    renewing = threading.Thread(target=claim.renew, args=(done,), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        if claim.is_mine():
            fs.rm(path)


class _Claim:
    def __init__(self, fs: Any, path: str) -> None:
        self.fs, self.path = fs, path
        self.owner = {
            "host": _machine(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "call": os.urandom(8).hex(),
        }

    def make(self) -> bool:
        text = json.dumps(self.owner).encode()
        try:
            if "file" not in self.fs.protocol:
                self.fs.pipe_file(self.path, text, mode="create")
                return True
            # On folders, fsspec asks first and writes later.
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with open(self.path, "xb", buffering=0) as file:
                try:
                    file.write(text)
                except OSError:
                    os.remove(self.path)
                    raise
        except FileExistsError:
            return False
        return True

    def read(self) -> dict[str, Any]:
        """Return who claims the store; empty if nobody does, or the claim is just being written."""
        try:
            owner = json.loads(self.fs.cat_file(self.path))
        except (FileNotFoundError, ValueError):
            return {}
        return owner if isinstance(owner, dict) else {}

    def is_mine(self) -> bool:
        return self.read().get("call") == self.owner["call"]

    def renew(self, done: threading.Event) -> None:
        count = 0
        while not done.wait(RENEWED_EVERY):
            count += 1
            if self.is_mine():
                with suppress(OSError):  # the next time, perhaps
                    self.fs.pipe_file(
                        self.path, json.dumps(self.owner | {"renewed": count}).encode()
                    )

    def is_held(self, owner: dict[str, Any]) -> bool:
        """Whether the one that claims the store still runs."""
        if owner.get("host") == self.owner["host"]:
            try:
                process = psutil.Process(owner["pid"])
                # Numbers of processes are used again.
                same = abs(process.create_time() - owner["started"]) < 2
                return same and process.status() != psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return False
        time.sleep(LEFT_AFTER)
        return self.read() != owner


def _machine() -> str:
    """Name what process numbers are counted in: containers of one host may share its name."""
    counted = Path("/proc/self/ns/pid")
    with suppress(OSError):
        return f"{socket.gethostname()} {os.readlink(counted)}"
    return socket.gethostname()


def _refusal(location: str, path: str, owner: dict[str, Any]) -> StoreError:
    who = f"process {owner.get('pid', 'unknown')} on {str(owner.get('host', 'unknown')).split()[0]}"
    return StoreError(
        "another process writes this store",
        variable=location,
        found=who,
        expected="one writer at a time",
        fix=f"wait until it is done, or choose another path; if it is gone for sure, delete {path}",
    )
