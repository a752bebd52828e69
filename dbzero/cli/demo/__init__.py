"""The main job: Python's own standard library as one stored object graph.

Lives here: the memo classes (``model``), reading source files (``scan``, knows nothing of dbzero), tags and indexes
(``labels``), storing all of it so that an interrupted run can be continued (``build``), questions to the graph
(``answers``), a query language (``language``, knows nothing of dbzero) and its answers (``search``), watching another
process build the graph (``follow``). May import: ``dbzero``'s public names.
Promises: every commit leaves whole modules and counters, tags and indexes that agree with them.
"""
