"""Looking at stored objects and their classes, and helpers over whole objects.

Here live load, compare, hash, assign, the reflection of classes and of what a class's methods do, and the decorators
that say it. May import every layer below :mod:`dbzero.cli`. Promises: nothing here changes a stored object but
``assign``, ``touch`` and ``rename_field``.
"""
