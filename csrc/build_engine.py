"""cffi build of the C engine: one abi3 extension, ``dbzero._engine``.

The declarations stand in ``engine.cdef.h`` and the code in plain ``.c`` files, so that both can be linted and used by C drivers. The same shared
object also carries ``PyInit__persistent`` (pytypes.c), which ``dbzero.model`` loads under its own name.

Run as a script it builds the engine into the source tree, with whatever setuptools there is; the build backend takes ``ffibuilder`` from here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def _place(path: Path) -> str:
    """Setuptools wants paths relative to the project; a build elsewhere (see the end) needs absolute ones."""
    return str(path) if __name__ == "__main__" else os.path.relpath(path, ROOT)


ffibuilder = FFI()
ffibuilder.cdef((HERE / "engine.cdef.h").read_text())
ffibuilder.set_source(
    "dbzero._engine",
    '#include "engine.h"',
    sources=sorted(_place(p) for p in HERE.glob("*.c")),
    depends=sorted(_place(p) for p in [*HERE.glob("*.h"), *HERE.glob("third_party/*")]),
    include_dirs=[_place(HERE)],
    libraries=["rt", "pthread"],
    extra_compile_args=[
        "-std=gnu11",
        "-O3",
        "-Wall",
        "-Wextra",
        "-fvisibility=hidden",
        "-fno-strict-aliasing",
        "-fno-plt",
    ],
    py_limited_api=True,
)

if __name__ == "__main__":
    # Not in ROOT: there, the setuptools of the environment would read pyproject.toml, which older ones reject.
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(ffibuilder.compile(verbose=True, tmpdir=scratch))
        # Another inode under the old name: processes that have the old engine mapped keep it.
        fresh = ROOT / "dbzero" / f".{built.name}.new"
        shutil.copy(built, fresh)
        os.replace(fresh, ROOT / "dbzero" / built.name)
