"""A process's workspace: init, open, close, commit and autocommit, refresh, lookups.

May import query, collections, model, storage and runtime; nothing of those imports it. What it promises: a commit holds
whole operations; a reader's view moves only between operations; a forked child inherits no lease, thread or pending
change; what is pending when the interpreter ends normally is committed.
"""
