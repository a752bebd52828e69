#!/usr/bin/env python3
"""Check the protocol models with spin: every model must hold, and every mutation named in its head must fail.

    stress/models/run.py [--only MODEL] [--time SECONDS]

Needs `spin` and `gcc`. Exits with 1 on any surprise, 77 when spin isn't installed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MUTATIONS = {
    "lease": ["BLIND_MOVE", "NO_EPOCH_CHECK", "BLIND_PUBLISH"],
    "delta_recycle": ["NO_RECHECK", "FREE_FIRST", "RETIRE_FIRST", "ROOT_IN_PLACE", "HEAD_FIRST"],
    "pin_floor": ["CHECK_FIRST", "SCAN_FIRST", "TRUST_ANNOUNCED"],
    "turn": ["LOOK_FIRST", "SCAN_FIRST", "NO_PASS_ON", "SET_LATE", "CLEAR_EARLY", "NO_RECOVERY"],
    "group_commit": ["NO_NUMBER", "NUMBER_FIRST", "SYNC_FIRST", "LATE_NUMBER", "NO_SYNC_OLD"],
    "frame": ["NO_RECHECK", "TAKE_LIVE", "SAME_COUNT", "SLOT_ONLY"],
}


def check(model: str, mutation: str | None, limit: float) -> tuple[bool, bool, str]:
    """Run one exhaustive search. Returns: no error found, search complete, figures."""
    with tempfile.TemporaryDirectory() as scratch:
        define = [f"-D{mutation}"] if mutation else []
        subprocess.run(
            ["spin", *define, "-a", str(HERE / f"{model}.pml")],
            cwd=scratch,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=limit,
        )
        gcc = ["gcc", "-O2", "-w", "-DSAFETY", "-DNOFAIR", "-DCOLLAPSE", "-DMEMLIM=4096", "-o", "pan", "pan.c"]
        subprocess.run(gcc, cwd=scratch, check=True)
        # -E: a process that never goes on is no error (it was killed); -m: search depth.
        done = subprocess.run(
            ["./pan", "-E", "-m2000000", "-w24"],
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    states = re.search(r"([\d.e+]+) states, stored", done.stdout)
    errors = re.search(r"errors: (\d+)", done.stdout)
    if errors is None:
        raise RuntimeError(f"{model}: pan said nothing useful\n{done.stdout}{done.stderr}")
    complete = "max search depth too small" not in done.stdout and "Search not completed" not in done.stdout
    return errors[1] == "0", complete, f"{float(states[1]) if states else 0:,.0f} states"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(MUTATIONS))
    parser.add_argument("--time", type=float, default=120, help="limit for one search, seconds (default 120)")
    options = parser.parse_args()
    if shutil.which("spin") is None or shutil.which("gcc") is None:
        print("spin or gcc is not installed (Debian: apt-get install spin gcc)")
        return 77
    surprises = 0
    for model, mutations in MUTATIONS.items():
        if options.only not in (None, model):
            continue
        for mutation in (None, *mutations):
            started = time.monotonic()
            holds, complete, figures = check(model, mutation, options.time)
            good = (holds and complete) if mutation is None else not holds
            surprises += not good
            verdict = "holds" if holds else "fails"
            if holds and not complete:
                verdict = "not searched to the end"
            mark = "ok " if good else "BAD"
            took = time.monotonic() - started
            print(
                f"{mark} {model:14} {mutation or '(as built)':16} {verdict:24} {figures:>20} {took:6.1f} s", flush=True
            )
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
