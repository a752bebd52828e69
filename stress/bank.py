"""A bank whose objects must agree with each other in every committed state, and the two processes that the stress scripts run on it.

Transaction number `serial` moves money between a few accounts, mirrors the balances in a list, appends a journal entry, and writes a digest of it all
into the root object. So one look at a view tells whether it is a whole committed state, and the serial tells which one.

    python stress/bank.py writer ROOT --seed N     prints "found SERIAL" once, then "ack SERIAL" after each commit that returned
    python stress/bank.py reader ROOT              prints "seen SERIAL CHECKS" now and then, and "torn ..." before it fails
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import zlib

import dbzero as db0

PREFIX = "bank"
ACCOUNTS = 16
TOTAL = ACCOUNTS * 1000
JOURNAL = 400  # entries after which the older half is dropped
BIG = 3 << 19  # bytes of a big attachment: more than goes through the redo log inline


@db0.memo
class Account:
    def __init__(self, number: int, balance: int) -> None:
        self.number = number
        self.balance = balance
        self.serial = 0


@db0.memo
class Entry:
    def __init__(self, serial: int, parts: list[int], attachment: bytes) -> None:
        self.serial = serial
        self.parts = parts
        self.attachment = attachment
        self.attachment_sum = zlib.crc32(attachment)


@db0.memo(singleton=True)
class Bank:
    def __init__(self) -> None:
        self.accounts = [Account(number, TOTAL // ACCOUNTS) for number in range(ACCOUNTS)]
        self.balances = [TOTAL // ACCOUNTS] * ACCOUNTS
        self.by_serial = {}
        self.journal = []
        self.serial = 0
        self.digest = digest(0, [TOTAL // ACCOUNTS] * ACCOUNTS)


def digest(serial: int, balances: list[int]) -> int:
    return zlib.crc32(f"{serial}:{balances}".encode())


def transact(bank: Bank, rng: random.Random) -> int:
    """One transaction, not committed. Returns its serial."""
    serial = bank.serial + 1
    numbers = rng.sample(range(ACCOUNTS), rng.randint(2, 6))
    amounts = [rng.randint(-50, 50) for _ in numbers[1:]]
    amounts.append(-sum(amounts))
    for number, amount in zip(numbers, amounts, strict=True):
        account = bank.accounts[number]
        account.balance += amount
        account.serial = serial
        bank.balances[number] = account.balance
    draw = rng.random()
    size = BIG if draw < 0.01 else rng.randint(1000, 60000) if draw < 0.1 else rng.randint(0, 64)
    entry = Entry(serial, numbers, rng.randbytes(size))
    bank.journal.append(entry)
    bank.by_serial[serial] = entry
    if len(bank.journal) > JOURNAL:
        for old in list(bank.journal)[: JOURNAL // 2]:
            del bank.by_serial[old.serial]
        del bank.journal[: JOURNAL // 2]
    bank.serial = serial
    bank.digest = digest(serial, [bank.accounts[number].balance for number in range(ACCOUNTS)])
    return serial


def problems(bank: Bank) -> list[str]:
    """What does not fit in a bank that no transaction is changing, every object looked at."""
    found = []
    balances = [account.balance for account in bank.accounts]
    if sum(balances) != TOTAL:
        found.append(f"balances add up to {sum(balances)}, not {TOTAL}")
    if balances != list(bank.balances):
        found.append(f"accounts hold {balances}, the mirror {list(bank.balances)}")
    if digest(bank.serial, balances) != bank.digest:
        found.append("the digest is of other balances or another serial")
    serials = [entry.serial for entry in bank.journal]
    if serials != list(range(bank.serial - len(serials) + 1, bank.serial + 1)):
        found.append(f"the journal up to {bank.serial} has serials {serials[:3]}..{serials[-3:]}")
    if sorted(bank.by_serial) != serials or any(bank.by_serial[entry.serial] is not entry for entry in bank.journal):
        found.append("the journal and its dict differ")
    damaged = [entry.serial for entry in bank.journal if zlib.crc32(entry.attachment) != entry.attachment_sum]
    if damaged:
        found.append(f"attachments of {damaged} are damaged")
    newest: dict[int, int] = {}
    for entry in bank.journal:
        newest.update(dict.fromkeys(entry.parts, entry.serial))
    late = [number for number, serial in newest.items() if bank.accounts[number].serial != serial]
    if late:
        found.append(f"accounts {late} miss their newest transaction")
    return found


def say(text: str) -> None:
    """One write system call: what the parent reads is whole lines, and nothing waits in a buffer when this process is killed."""
    os.write(1, (text + "\n").encode())


def write(root: str, seed: int, limit: int, pause: float) -> int:
    """Open, verify what is there, then commit transactions until killed."""
    rng = random.Random(seed)
    db0.init(root, autocommit=False)
    db0.open(PREFIX, "rw")
    bank = Bank()
    found = problems(bank)
    for problem in found:
        say(f"torn {problem}")
    if found:
        return 1
    db0.commit()
    say(f"found {bank.serial}")
    for _ in range(limit):
        serial = transact(bank, rng)
        db0.commit()
        say(f"ack {serial}")
        if pause:
            time.sleep(pause)
    db0.close()
    return 0


def read(root: str) -> int:
    """Follow the writer for ever, testing every state that holds still for as long as a look at it takes."""
    db0.init(root, autocommit=False)
    patience = time.monotonic() + 20
    while True:
        try:
            db0.open(PREFIX, "r")
            if db0.exists(Bank):
                break
        except RuntimeError:  # not created yet
            if time.monotonic() > patience:
                raise
        time.sleep(0.01)
    bank = db0.fetch(Bank)
    checks = seen = 0
    told = time.monotonic()
    while True:
        before = db0.get_state_num(PREFIX, finalized=True)
        serial, expected = bank.serial, bank.digest
        balances = [account.balance for account in bank.accounts]
        mirror = list(bank.balances)
        newest = bank.journal[-1].serial if serial else 0
        # A view never goes back, so equal numbers around the reads mean that all of them saw one state.
        if db0.get_state_num(PREFIX, finalized=True) == before:
            checks += 1
            if digest(serial, balances) != expected or mirror != balances or sum(balances) != TOTAL or newest != serial:
                say(f"torn state {before}: serial {serial}, journal {newest}, balances {balances}, mirror {mirror}")
                return 1
            if serial < seen:
                say(f"torn state {before}: serial went back from {seen} to {serial}")
                return 1
            seen = serial
        if time.monotonic() - told > 0.02:
            told = time.monotonic()
            say(f"seen {seen} {checks}")
            db0.wait(PREFIX, before + 1, 20)


def main() -> int:
    parser = argparse.ArgumentParser(description="Roles of the stress scripts; started by them.")
    parser.add_argument("role", choices=("writer", "reader"))
    parser.add_argument("root")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--limit", type=int, default=sys.maxsize, help="transactions after which the writer closes and ends"
    )
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two commits")
    options = parser.parse_args()
    if options.role == "writer":
        return write(options.root, options.seed, options.limit, options.pause)
    return read(options.root)


if __name__ == "__main__":
    sys.exit(main())
