"""What every result file says of its run: date, machine and command."""

import platform
import sys
from datetime import date
from pathlib import Path

import torch

__all__ = ["describe_run"]


def describe_run(script):
    """Date, machine, version of torch and command; paths are places on one machine, so left out."""
    words = ["PATH" if Path(word).is_absolute() or "/" in word else word for word in sys.argv[1:]]
    return {
        "date": str(date.today()),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "command": " ".join(["python", f"benchmarks/{script}", *words]),
    }
