"""Where instances go: keys, spots, shards, and what is refused."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dbzero as db0
from dbzero.model.placement import canonical, jump, spot_of
from tests.worker import RemoteError, Worker


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


Color = db0.enum("tests/sharding/Color", ["RED", "BLUE"])

atoms = st.one_of(
    st.text(),
    st.integers(-(1 << 70), 1 << 70),
    st.booleans(),
    st.binary(),
    st.uuids(),
    st.dates(),
    st.sampled_from([*Size, *Color.values()]),
)
keys = st.recursive(atoms, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types throughout."""
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(keys, keys)
def test_different_keys_have_different_bytes(a: Any, b: Any) -> None:
    assert (canonical(a) == canonical(b)) == same(a, b)


@given(st.integers(0, (1 << 64) - 1), st.integers(1, 200), st.integers(1, 100))
def test_more_shards_move_only_what_goes_to_new_ones(spot: int, shards: int, more: int) -> None:
    before, after = jump(spot, shards), jump(spot, shards + more)
    assert 0 <= before < shards
    assert after == before or shards <= after < shards + more


def test_shards_get_equal_parts() -> None:
    counts = [0] * 10
    for number in range(20_000):
        counts[jump(spot_of(f"owner {number}"), 10)] += 1
    assert min(counts) > 1800 and max(counts) < 2200


def test_spots_are_for_ever() -> None:
    """Stored data depends on these numbers: they may never change."""
    known = {
        "ann": 9702838217241599275,
        "": 4925240895422735071,
        7: 11115511745594396948,
        True: 10104172908833255575,
        b"ann": 18319726381463414790,
        1 << 80: 7583133588824947922,
        uuid.UUID(int=5): 15663887101282918146,
        dt.date(2024, 2, 29): 18436882636573406971,
        ("eu", 12): 12730292475501859083,
        Size.LARGE: 16304796996091334334,
        Color["BLUE"]: 11828422904327117299,
    }
    assert {key: spot_of(key) for key in known} == known
    # From the test of github.com/dgryski/go-jump, which follows the paper.
    vectors = [(1, 1, 0), (42, 57, 43), (0xDEAD10CC, 1, 0), (0xDEAD10CC, 666, 361), (256, 1024, 520)]
    assert [jump(spot, shards) for spot, shards, _ in vectors] == [number for _, _, number in vectors]


@pytest.mark.parametrize("key", [None, 1.5, [1], {"a": 1}, object(), dt.datetime(2024, 1, 1), ("a", None), {1}])
def test_keys_that_cannot_be(key: Any) -> None:
    with pytest.raises(db0.UnsupportedTypeError, match="cannot be the key of a shard"):
        spot_of(key)


# --- classes ---------------------------------------------------------------------------------------------------------


@db0.memo(id="tests/sharding/Account", shards=4, shard_by="owner")
class Account:
    def __init__(self, owner: str, balance: int = 0, *, region: str = "eu") -> None:
        self.owner = owner
        self.balance = balance
        self.region = region
        db0.tags(self).add("account")


@db0.memo(id="tests/sharding/Savings")
class Savings(Account):
    def __init__(self, rate: int, owner: str) -> None:
        super().__init__(owner)
        self.rate = rate


@db0.memo(
    id="tests/sharding/Fixed", shards=3, shard_by=lambda region, code: (region, code), prefix="fixed", immutable=True
)
class Fixed:
    def __init__(self, region: str, code: int) -> None:
        self.text = f"{region}-{code}"
        db0.tags(self).add("fixed")


@pytest.fixture
def bank(root: str) -> Iterator[str]:
    db0.init(root, prefix="bank", autocommit=False)
    yield root


def test_an_instance_is_in_the_shard_of_its_key(bank: str) -> None:
    for number in range(60):
        account = Account(f"owner {number}")
        shard = jump(spot_of(f"owner {number}"), 4)
        assert db0.shard_of(account) == db0.shard_of(Account, account.owner) == shard
        assert db0.get_prefix_of(account).name == f"bank/tests%2Fsharding%2FAccount/shard-{shard}"
    assert {db0.shard_of(account) for account in db0.find(Account)} == {0, 1, 2, 3}
    assert db0.get_current_prefix().name == "bank"


def test_arguments_by_name_by_place_and_by_default(bank: str) -> None:
    assert db0.shard_of(Account("x")) == db0.shard_of(Account(owner="x", balance=5))
    account = Savings(3, "x")
    assert db0.shard_of(account) == db0.shard_of(Account, "x") == db0.shard_of(Savings, "x")
    assert len(db0.find(Account)) == 3 and list(db0.find(Savings)) == [account]
    with pytest.raises(TypeError, match=r"missing the argument 'owner'"):
        Account(balance=5)  # type: ignore[call-arg]
    with pytest.raises(db0.UnsupportedTypeError, match=r"Account: a list cannot be the key"):
        Account([1])  # type: ignore[arg-type]
    assert len(db0.find(Account)) == 3


def test_the_key_is_the_constructor_s_for_good_and_hidden(bank: str) -> None:
    account = Account("ann")
    before = db0.shard_of(account)
    account.owner = next(f"x{n}" for n in range(99) if db0.shard_of(Account, f"x{n}") != before)
    db0.commit()
    assert db0.shard_of(account) == before
    assert vars(account).keys() == {"owner", "balance", "region"} == db0.load(account).keys()
    assert db0.reshard(Account, 4) == 0


def test_a_function_and_a_static_prefix(bank: str) -> None:
    thing = Fixed("eu", 5)
    assert db0.get_prefix_of(thing).name.startswith("fixed/tests%2Fsharding%2FFixed/shard-")
    assert db0.shard_of(thing) == db0.shard_of(Fixed, ("eu", 5))
    with pytest.raises(db0.ImmutableError):
        thing.text = "x"
    db0.commit()
    db0.close()
    db0.init(bank)
    assert [found.text for found in db0.find(Fixed)] == ["eu-5"]


def test_an_init_that_fails_leaves_nothing(bank: str) -> None:
    @db0.memo(id="tests/sharding/Fails", shards=2, shard_by="n")
    class Fails:
        def __init__(self, n: int) -> None:
            db0.tags(self).add("x")
            raise KeyError(n)

    with pytest.raises(KeyError):
        Fails(1)
    db0.commit()
    assert len(db0.find(Fails)) == len(db0.find(Fails, "x")) == 0


def test_bad_declarations() -> None:
    class Plain:
        def __init__(self, owner: str) -> None:
            pass

    for options, error, text in (
        ({"shards": 0, "shard_by": "owner"}, ValueError, "at least 1"),
        ({"shards": True, "shard_by": "owner"}, TypeError, "must be an int"),
        ({"shards": 2}, TypeError, "go together"),
        ({"shard_by": "owner"}, TypeError, "go together"),
        ({"shards": 2, "shard_by": "other"}, TypeError, "no argument 'other'"),
        ({"shards": 2, "shard_by": 5}, TypeError, "name of a constructor argument"),
        ({"shards": 2, "shard_by": "owner", "singleton": True}, TypeError, "exclude each other"),
        ({"shards": 2, "shard_by": "owner", "no_default_tags": True}, TypeError, "exclude each other"),
    ):
        with pytest.raises(error, match=text):
            db0.memo(**options)(Plain)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="has the shards of"):

        @db0.memo(shards=2, shard_by="owner")
        class Other(Account):
            pass

    for more in ({"singleton": True}, {"prefix": "x"}, {"no_default_tags": True}):
        with pytest.raises(TypeError, match="cannot be a singleton"):
            db0.memo(**more)(type("Special", (Account,), {}))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="no argument 'owner'"):

        @db0.memo
        class Narrow(Account):
            def __init__(self) -> None:
                pass


def test_shard_of_refuses(bank: str) -> None:
    @db0.memo
    class Plain:
        pass

    for arguments in ((Plain(),), (5,), (Account,), (Plain, "x"), ("x", "y")):
        with pytest.raises(TypeError, match="shard"):
            db0.shard_of(*arguments)
    with pytest.raises(TypeError, match="sharded"):
        db0.reshard(Plain, 3)
    with pytest.raises(TypeError, match="must be an int"):
        db0.reshard(Account, "3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        db0.reshard(Account, 0)
    with db0.atomic(), pytest.raises(db0.AtomicError):
        db0.reshard(Account, 3)


def test_two_classes_of_one_name_are_told_apart(bank: str) -> None:
    def make(key: str) -> Any:
        @db0.memo(id=key, shards=2, shard_by="n")
        class Twin:
            def __init__(self, n: int) -> None:
                self.n = n

        return Twin

    make("a/b")(1)
    # What an id and a qualified name could only have in common by mischief: a directory put there by hand.
    path = Path(bank, "bank", "a%2Fb", "shards.json")
    Path(bank, "bank", "c%2Fd").mkdir()
    Path(bank, "bank", "c%2Fd", "shards.json").write_bytes(path.read_bytes())
    with pytest.raises(db0.Error, match="belong to the class '=a/b', not to '=c/d'"):
        make("c/d")(1)


# --- the layout file -------------------------------------------------------------------------------------------------


def layout_file(root: str) -> Path:
    return Path(root, "bank", "tests%2Fsharding%2FAccount", "shards.json")


def test_the_number_of_a_fresh_store_is_durable(bank: str) -> None:
    Account("ann")
    db0.commit()
    assert json.loads(layout_file(bank).read_text())["shards"] == 4
    db0.close()

    with Worker(root=bank) as worker:
        shards = worker.run("""
            import dbzero as db0
            @db0.memo(id="tests/sharding/Account", shards=9, shard_by="owner")
            class Other:
                def __init__(self, owner):
                    self.owner = owner
            db0.init(root, prefix="bank")
            result = [sorted({db0.shard_of(Other, f"o{n}") for n in range(100)}),
                      sorted({db0.shard_of(Other(f"o{n}")) for n in range(100)})]
        """)
    assert shards == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_a_damaged_layout_file(bank: str) -> None:
    Account("ann")
    db0.commit()
    db0.close()
    path = layout_file(bank)
    good = path.read_text()
    for bad in ("", "{}", good[:-9], good.replace('"shards": 4', '"shards": 5'), "[]", "null", "\x00" * 30):
        path.write_text(bad)
        db0.init(bank, prefix="bank", autocommit=False)
        with pytest.raises(db0.CorruptError, match=r"shards\.json"):
            Account("bob")
        assert len(db0.find(Account)) == 1
        db0.close()
    path.write_text(good.replace('"format": 1', '"format": 2'))
    db0.init(bank, prefix="bank", autocommit=False)
    with pytest.raises(db0.FormatVersionError):
        Account("bob")
    path.unlink()
    with pytest.raises(db0.CorruptError, match="missing"):
        Account("bob")
    assert db0.reshard(Account, 4) == 0
    Account("bob")
    assert len(db0.find(Account)) == 2


# --- who may write ---------------------------------------------------------------------------------------------------


def test_a_read_only_base(bank: str) -> None:
    for number in range(20):
        Account(f"o{number}")
    db0.commit()
    db0.close()
    db0.init(bank, autocommit=False)
    db0.open("bank", "r")
    assert len(db0.find(Account)) == 20
    with pytest.raises(db0.ReadOnlyError, match=r"shard \d of .*Account.*its base 'bank' is open read-only"):
        Account("x")
    with pytest.raises(db0.ReadOnlyError, match="base of the shards"):
        db0.reshard(Account, 3)
    shard = db0.shard_of(Account, "x")
    db0.open(f"bank/tests%2Fsharding%2FAccount/shard-{shard}", "rw")
    account = Account("x")  # though the shard is the current prefix now
    assert db0.shard_of(account) == shard and len(db0.find(Account)) == 21
    other = next(f"y{n}" for n in range(99) if db0.shard_of(Account, f"y{n}") != shard)
    with pytest.raises(db0.ReadOnlyError):
        Account(other)


def test_a_shard_that_another_process_writes(bank: str) -> None:
    Account("ann")
    db0.commit()
    shard = db0.shard_of(Account, "ann")
    name = f"bank/tests%2Fsharding%2FAccount/shard-{shard}"
    db0.close(name)
    with Worker(root=bank, name=name) as worker:
        worker.run("import dbzero as db0\ndb0.init(root, autocommit=False)\ndb0.open(name)")
        assert len(db0.find(Account)) == 1  # read-only then
        with pytest.raises(db0.LeaseError, match=rf"shard {shard} of .*Account.*{worker.pid}"):
            Account("ann")
        with pytest.raises(db0.LeaseError, match=rf"reshard needs all shards.*shard {shard}.*{worker.pid}"):
            db0.reshard(Account, 2)
        worker.run("db0.close()")
        Account("ann")
    assert len(db0.find(Account)) == 2


def test_a_forked_or_foreign_error_is_typed(bank: str) -> None:
    with Worker(root=bank) as worker:
        worker.run("import dbzero as db0\nfrom tests.sharding.test_placement import Account\ndb0.init(root)")
        with pytest.raises(RemoteError, match=r"read-only|not open|lease") as caught:
            worker.run("db0.open('bank', 'r')\nAccount('x')")
        assert "ReadOnlyError" in caught.value.kinds or "PrefixError" in caught.value.kinds
