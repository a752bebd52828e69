"""Random programs on ours and on the original dbzero 0.7.0: every difference has to be one that the facts document explains.

Each program (25 steps, deterministic from the seed) runs in a process of its own with either, since the original aborts
or hangs on many inputs. Outcomes are compared step by step: values in plain form, exceptions by what a handler catches.
The first difference that changes what comes after ends the comparison of that program. Prints how often each rule of
``differing/rules.py`` explained one, and every difference that none explains with a minimal program; exits with 1 if there is any.

The original comes from PyPI, into an environment of its own:

    python3.11 -m venv peer && peer/bin/pip install dbzero==0.7.0
    python stress/differential.py --peer-python peer/bin/python --rounds 2000 --seed 1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from differing.programs import Step, program
from differing.rules import Difference, Outcome, Rule, explain, same

WORKER = Path(__file__).resolve().parent / "differing" / "worker.py"
TIMEOUT = 10.0  # seconds for a program


class Engine:
    """A process that runs programs with one of the two."""

    def __init__(self, python: str, *options: str) -> None:
        self.python = python
        self.process = subprocess.Popen(
            [python, str(WORKER), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tempfile.gettempdir(),
        )

    def run(self, steps: list[Step]) -> tuple[list[Outcome], str]:
        """Outcomes of the steps that ended, and how the program ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"steps": [step.source for step in steps], "timeout": TIMEOUT}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker of {self.python} ended with status {self.process.wait()}")
        answer = json.loads(line)
        return answer["outcomes"], answer["end"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Comparison:
    """Both engines, and what was found so far."""

    def __init__(self, ours: Engine, theirs: Engine, builtin: Engine) -> None:
        self.ours = ours
        self.theirs = theirs
        self.builtin = builtin
        self.explained: Counter[Rule] = Counter()
        self.steps = 0
        self.crashes = 0
        self.unexplained: list[tuple[int, Difference]] = []

    def differences(self, steps: list[Step]) -> list[tuple[Difference, Rule | None]]:
        """Differences of one program, up to the first that changes what comes after."""
        ours, our_end = self.ours.run(steps)
        theirs, their_end = self.theirs.run(steps)
        found = []
        for i, outcome in enumerate(ours):
            if i == len(theirs):
                difference = Difference(steps[: i + 1], outcome, None, their_end)
                return [*found, (difference, explain(difference))]
            self.steps += 1
            if same(outcome, theirs[i]):
                continue
            difference = Difference(steps[: i + 1], outcome, theirs[i], their_end)
            rule = explain(difference)
            if rule is None:  # does Python's own collection do as ours?
                expected, _ = self.builtin.run(difference.steps)
                difference = replace(difference, builtin=expected[i] if i < len(expected) else None)
                rule = explain(difference)
            found.append((difference, rule))
            if rule is None or rule.parts:
                return found
        if our_end != "ok":  # ours has to live through everything
            found.append((Difference(steps[: len(ours) + 1], ["ended", our_end], None, "ok"), None))
        return found

    def one(self, seed: int) -> None:
        """Compare the program of a seed."""
        for difference, rule in self.differences(program(seed)):
            if rule is not None:
                self.explained[rule] += 1
                self.crashes += difference.theirs is None
                continue
            minimal = self.minimize(difference)
            self.unexplained.append((seed, minimal))
            report(seed, minimal)

    def minimize(self, difference: Difference) -> Difference:
        """The same difference by fewer steps, found by leaving out one after the other."""
        best = difference
        steps = list(difference.steps)
        i = len(steps) - 2
        while i >= 0:
            shorter = steps[:i] + steps[i + 1 :]
            for found, rule in self.differences(shorter):
                if rule is None and found.steps == shorter and found.ours[:1] == difference.ours[:1]:
                    steps, best = shorter, found
            i -= 1
        return best


def report(seed: int, difference: Difference) -> None:
    print(f"\nUNEXPLAINED, seed {seed}, operation {difference.operation}:")
    for step in difference.steps:
        print("   ", step.source)
    print("  ours:  ", *shown(difference.ours))
    print("  theirs:", *shown(difference.theirs) if difference.theirs else [difference.end], flush=True)


def shown(outcome: Outcome) -> list[str]:
    if outcome[0] == "raised":
        return ["raised", outcome[1][0], outcome[2].strip()]
    return [str(part)[:400] for part in outcome]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="interpreter of the environment that holds the original")
    parser.add_argument("--rounds", type=int, default=2000, help="number of programs")
    parser.add_argument("--seed", type=int, default=1, help="of the first program; the others follow")
    parser.add_argument("--limit", type=int, default=20, help="stop after so many unexplained differences")
    options = parser.parse_args()
    version = subprocess.run(
        [options.peer_python, "-c", "import importlib.metadata as m; print(m.version('dbzero'))"],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        check=False,
    ).stdout.strip()
    if version != "0.7.0":
        parser.error(f"{options.peer_python} has dbzero {version or 'not at all'}, not 0.7.0; see --help")
    started = time.monotonic()
    comparison = Comparison(Engine(sys.executable), Engine(options.peer_python), Engine(sys.executable, "--builtin"))
    done = 0
    for seed in range(options.seed, options.seed + options.rounds):
        comparison.one(seed)
        done += 1
        if len(comparison.unexplained) >= options.limit:
            break
    comparison.ours.close()
    comparison.theirs.close()
    comparison.builtin.close()
    print(
        f"\n{done} programs, {comparison.steps} steps compared in {time.monotonic() - started:.0f} s, seed {options.seed}"
    )
    for rule, count in comparison.explained.most_common():
        print(f"{count:6}  {rule.name}: {rule.facts}")
    print(f"{comparison.crashes:6}  of these the original did not survive")
    print(f"{len(comparison.unexplained):6}  unexplained")
    return 1 if comparison.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
