"""Sharded classes at work: where their shards are, which are open, and moving instances when their number changes.

What lives here: the layout file of a family (:mod:`.layout`), its shards as this process has them (:mod:`.places`), the
copying of objects to another prefix (:mod:`.moving`), and ``reshard`` (:mod:`.resharding`). May import: everything but
the command line. Promises: an instance is created in the shard of its key, or not at all; every instance is in exactly
one shard at any state that a snapshot shows.
"""

from dbzero.sharding.places import shard_of
from dbzero.sharding.resharding import reshard

__all__ = ["reshard", "shard_of"]
