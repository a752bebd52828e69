#!/usr/bin/env python3
"""Many processes open one shared prefix at the same moment, write once, and leave: again and again, so that first and last coincide.

stress/opening_storm.py [--processes 64] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from counter import PREFIX, Tally, count, total
from processes import SHM, Failure, leftovers, verify

import dbzero as db0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        before = set(os.listdir(SHM))
        for number in range(options.rounds):
            gate, opener = os.pipe()
            started = time.monotonic()
            pids = []
            for who in range(options.processes):
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        os.close(opener)
                        os.read(gate, 1)  # end of file: all at once
                        db0.init(str(root), prefix=PREFIX, shared=True, cache_size=64 << 20)
                        with db0.atomic():
                            count(Tally(), f"s{who}")
                        if who % 2:
                            db0.close()
                        status = 0
                    finally:
                        os._exit(status)
                pids.append(pid)
            os.close(gate)
            os.close(opener)
            ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
            if any(ends):
                raise Failure(f"round {number}: exit statuses {sorted(set(ends))}")
            value, wanted = total(str(root)), (number + 1) * options.processes
            if value != wanted:
                raise Failure(f"round {number}: the counter is {value}, not {wanted}")
            print(f"round {number}: {options.processes} processes in {time.monotonic() - started:.1f} s")
        verify(root)
        left = {name for name in set(os.listdir(SHM)) - before if name.startswith("dbzero-")}
        leftovers(root, set())
        if len(left) > 1:  # another program may use dbzero meanwhile
            print(f"note: new names in {SHM}: {sorted(left)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
