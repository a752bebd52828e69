"""In-tree build backend: setuptools with the C engine's cffi module added.

The top level of the project holds no setup.py; this file is what it would have said.
"""

from __future__ import annotations

from setuptools import setup
from setuptools.build_meta import _BuildMetaBackend


class _Backend(_BuildMetaBackend):
    def run_setup(self, setup_script: str = "setup.py") -> None:
        setup(
            cffi_modules=["csrc/build_engine.py:ffibuilder"],
            options={"bdist_wheel": {"py_limited_api": "cp310"}},
        )


_backend = _Backend()
build_wheel = _backend.build_wheel
build_sdist = _backend.build_sdist
build_editable = _backend.build_editable
get_requires_for_build_wheel = _backend.get_requires_for_build_wheel
get_requires_for_build_sdist = _backend.get_requires_for_build_sdist
get_requires_for_build_editable = _backend.get_requires_for_build_editable
prepare_metadata_for_build_wheel = _backend.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = _backend.prepare_metadata_for_build_editable
