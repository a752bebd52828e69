"""What processes share: one shared-memory segment per root directory, and Python's typed view of the C engine over it.

May import `dbzero._engine`, `dbzero.errors` and third-party packages; nothing else of dbzero.

Promises: the segment is a cache. Every module here may lose it at any instant without losing anything
    acknowledged. No call holds a lock of Python while it waits; C calls run
without the GIL. Return codes of the engine appear as exceptions of :mod:`dbzero.errors` and never leave this package.

| module   | holds |
|----------|-------|
| codes    | engine return codes as exceptions |
| osthreads | threads and locks that gevent leaves alone |
| root     | the root directory's identity file `.dbzero`, its locks |
| segment  | attach, create, remove the segment; private fallback |
| slot     | one prefix in the segment: published and durable state, delta index, lifecycle |
| lease    | the write lease of a slot; open-file-description locks |
| pins     | pinned states |
| registry | the processes of a root |
| watching | sleeping until something was committed |
| reader   | looking objects up at any state |
| batch    | building what a commit writes; merging a delta into table pages |
| fork     | what a forked child must not inherit |
"""
