"""In-tree build backend: setuptools with the C engine's cffi module added.

The top level of the project holds no setup.py; this file is what it would have said.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.build_meta import _BuildMetaBackend
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

# What a source archive carries beside the packages and the sources of the extension, which setuptools finds by itself.
SDIST_TREES = ("csrc", "docs", "stress", "tests")
SDIST_SUFFIXES = {".c", ".h", ".md", ".pml", ".py", ".pyi", ".sh", ".txt", ".xxhash"}


class _Engine(build_ext):
    """Leaves a copy in the source tree: Python started there imports that tree's dbzero before any installed one."""

    def run(self) -> None:
        super().run()
        if not self.inplace:
            self.copy_extensions_to_source()


class _SourceArchive(sdist):
    """An archive from which everything can be built, tested and stressed."""

    def make_distribution(self) -> None:
        found = {path for tree in SDIST_TREES for path in Path(tree).rglob("*") if path.is_file()}
        wanted = {path for path in found if path.suffix in SDIST_SUFFIXES or path.name == "Makefile"}
        wanted |= {path for path in [Path("CHANGELOG.md")] if path.is_file()}
        self.filelist.extend(sorted(str(path) for path in wanted if path.name != "_engine.c"))
        self.filelist.sort()
        self.filelist.remove_duplicates()
        super().make_distribution()


class _Backend(_BuildMetaBackend):
    def run_setup(self, setup_script: str = "setup.py") -> None:
        setup(
            cffi_modules=["csrc/build_engine.py:ffibuilder"],
            cmdclass={"build_ext": _Engine, "sdist": _SourceArchive},
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
