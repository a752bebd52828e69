"""The C base types of stored objects, by the names that the model gives them."""

from __future__ import annotations

import os

from dbzero.runtime.native import persistent as _persistent

Persistent = _persistent.Persistent
ViewCore = _persistent.ViewCore
MemoMeta = _persistent.MemoMeta
operation = _persistent.operation

state = _persistent.state
clear_state = _persistent.clear_state
fill = _persistent.fill
fill_ordinary = _persistent.fill_ordinary
decode_ordinary = _persistent.decode_ordinary
snapshot = _persistent.snapshot
encode_ordinary = _persistent.encode_ordinary
encode_memos = _persistent.encode_memos
find_live = _persistent.find_live
find_leaf = _persistent.find_leaf
Stored = _persistent.Stored
SequenceWays = _persistent.SequenceWays
ListWays = _persistent.ListWays
DictWays = _persistent.DictWays
SetWays = _persistent.SetWays
ListState = _persistent.ListState
DictState = _persistent.DictState
SetState = _persistent.SetState
Inner = _persistent.Inner
CountedInner = _persistent.CountedInner
Entries = _persistent.Entries
set_leaf = _persistent.set_leaf
stable_hash = _persistent.stable_hash
set_hash_of_others = _persistent.set_hash_of_others
set_deferred_type = _persistent.set_deferred_type
set_dict_descriptor = _persistent.set_dict_descriptor
materialize = _persistent.materialize
block_begin = _persistent.block_begin
block_keep = _persistent.block_keep
block_revert = _persistent.block_revert
block_revert_view = _persistent.block_revert_view
open_blocks = _persistent.open_blocks
Ending = _persistent.Ending
block_depth = _persistent.block_depth
block_mine = _persistent.block_mine
set_token_reader = _persistent.set_token_reader
watch_changes = _persistent.watch_changes
construct = _persistent.construct
rebind = _persistent.rebind
register_class = _persistent.register_class
class_flags = _persistent.class_flags
move = _persistent.move
dirty_objects = _persistent.dirty_objects
set_current_view = _persistent.set_current_view
set_construct_hook = _persistent.set_construct_hook
pack_oids = _persistent.pack_oids
unpack_oids = _persistent.unpack_oids
live_objects = _persistent.live_objects
identify = _persistent.identify
take_new = _persistent.take_new
item_oids = _persistent.item_oids
rescan = _persistent.rescan

GHOST: int = _persistent.GHOST
INIT: int = _persistent.INIT
NEW: int = _persistent.NEW
DIRTY: int = _persistent.DIRTY
EXPIRED: int = _persistent.EXPIRED
CLOSED: int = _persistent.CLOSED
IMMUTABLE: int = _persistent.IMMUTABLE
MEMO: int = _persistent.MEMO
ORPHAN: int = _persistent.ORPHAN
MATERIALIZED: int = _persistent.MATERIALIZED
SAVING: int = _persistent.SAVING
CLASS_SLOW: int = _persistent.CLASS_SLOW
CLASS_IMMUTABLE: int = _persistent.CLASS_IMMUTABLE

reserved_names: set[str] = _persistent.reserved_names  # of attributes that user classes may not define
reserved_names.update(
    (
        "_p_oid",
        "_p_view",
        "_p_flags",
        "_p_bytes",
        "_p_class",
        "_p_fields",
        "_p_changed",
        "_p_activate",
        "_p_decode",
        "_p_encode",
        "_p_clear",
        "_p_weight",
    )
)

os.register_at_fork(after_in_child=operation.reset_after_fork)
