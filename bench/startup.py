"""How long the command takes to say anything: `theracast --help` and `import theracast` beside a bare interpreter.

python bench/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import theracast": ["-c", "import theracast"],
    "theracast --help": ["-m", "theracast", "--help"],
    "import pandas": ["-c", "import pandas"],
}


def median_seconds(arguments: list[str], *, runs: int = 15) -> float:
    """Return the median wall time of a fresh interpreter."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    measured = {title: median_seconds(arguments) for title, arguments in COMMANDS.items()}
    floor = measured["python -c pass"]
    print(f"{'':22}{'seconds':>9}{'ratio':>8}")
    for title, seconds in measured.items():
        print(f"{title:22}{seconds:9.3f}{seconds / floor:8.1f}")


if __name__ == "__main__":
    main()
