"""How long `import headcount` takes beside `import numpy`, which any user of it has paid for already.

Process CPU time of the import statement alone, in a fresh interpreter each time, best of five: wall time would measure the neighbours.
Prints a table and, as the last line, the same as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys

REPEATS = 5
STATEMENTS = {"numpy": "import numpy", "headcount": "import headcount", "headcount.parameters": "import headcount; headcount.parameters"}
PROGRAM = "import time; start = time.process_time(); {statement}; print(time.process_time() - start)"


def cpu_seconds(statement: str) -> float:
    """CPU seconds of one statement in a fresh interpreter; the first run, which may compile bytecode, is thrown away."""
    command = [sys.executable, "-c", PROGRAM.format(statement=statement)]
    times = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(REPEATS + 1)]
    return min(times[1:])


def main() -> None:
    """Measures and prints."""
    seconds = {name: cpu_seconds(statement) for name, statement in STATEMENTS.items()}
    print(f"{'import':<22} {'CPU ms':>8} {'x numpy':>8}")
    for name, value in seconds.items():
        print(f"{name:<22} {value * 1e3:>8.1f} {value / seconds['numpy']:>8.2f}")
    print(json.dumps({"bench": "import_time", "repeats": REPEATS, "cpu_s": seconds, "ratio": seconds["headcount"] / seconds["numpy"]}))


if __name__ == "__main__":
    main()
