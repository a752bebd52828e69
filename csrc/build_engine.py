"""cffi build of the C engine: one abi3 extension, ``dbzero._engine``.

The declarations stand in ``engine.cdef.h`` and the code in plain ``.c`` files, so that both can be linted and used by C drivers. The same shared
object also carries ``PyInit__persistent`` (pytypes.c), which ``dbzero.model`` loads under its own name.
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def _relative(path: Path) -> str:
    return os.path.relpath(path, ROOT)


ffibuilder = FFI()
ffibuilder.cdef((HERE / "engine.cdef.h").read_text())
ffibuilder.set_source(
    "dbzero._engine",
    '#include "engine.h"',
    sources=sorted(_relative(p) for p in HERE.glob("*.c") if p.name != "_engine.c"),
    depends=sorted(_relative(p) for p in [*HERE.glob("*.h"), *HERE.glob("third_party/*")]),
    include_dirs=["csrc"],
    libraries=["rt", "pthread"],
    extra_compile_args=["-std=gnu11", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden", "-fno-strict-aliasing"],
    py_limited_api=True,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True, tmpdir=str(ROOT))
