"""What is installed, for reports of problems."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TextIO

from xstefa.version import __version__


def show_versions(file: TextIO | None = None) -> None:
    """Print versions of Python, xstefa and what it is built on, as issues should have them.

    Parameters
    ----------
    file : file-like, optional
        By default standard output.
    """
    lines = {
        "xstefa": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
    }
    for requirement in requires("xstefa") or ():
        name = re.split(r"[^\w.-]", requirement)[0]
        try:
            lines[name] = version(name)
        except PackageNotFoundError:
            lines[name] = "not installed"
    for name, found in lines.items():
        print(f"{name}: {found}", file=file or sys.stdout)


def _processor() -> str:
    """Return which instructions torch uses, and the GPUs that it sees."""
    import torch

    found = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    if torch.cuda.is_available():
        gpus = (torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        found += ", " + ", ".join(gpus)
    return found
