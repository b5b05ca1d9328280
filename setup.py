"""What pyproject.toml cannot say: which modules a C compiler makes faster, where there is one.

One rule: the package installs and works without any of this. L7PROXY_PURE=1 builds nothing; L7PROXY_CFLAGS is what the
compiler is told instead.
"""

import os
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

COMPILED = [
    "l7proxy/core/_atoms.pyx",
    "l7proxy/core/_cookies.pyx",
    "l7proxy/core/_lines.pyx",
    "l7proxy/core/_logline.pyx",
    "l7proxy/core/_scan.pyx",
    "l7proxy/core/headers.py",
    "l7proxy/core/metering.py",
    "l7proxy/core/routing.py",
    "l7proxy/core/sticky.py",
    "l7proxy/http/_quick.pyx",
    "l7proxy/http/client.py",
    "l7proxy/http/ending.py",
    "l7proxy/http/exchange.py",
    "l7proxy/http/link.py",
    "l7proxy/http/pool.py",
    "l7proxy/http/sticky.py",
    "l7proxy/http/told.py",
    "l7proxy/tcp/_wire.pyx",
    "l7proxy/tcp/flow.py",
    "l7proxy/tcp/front.py",
    "l7proxy/tcp/session.py",
]
FASTER = os.environ.get("L7PROXY_CFLAGS", "-O3 -g0").split()


class BuildTogether(build_ext):
    """Builds all of it or nothing: what is compiled relies on the rest. All becomes equally new: l7proxy looks whether
    that is newer than its source."""

    failed = False

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or min(4, os.cpu_count() or 1)

    def build_extension(self, ext: Any) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            self.failed = True
            raise CompileError(str(error)) from error  # which is a warning only

    def run(self) -> None:
        super().run()
        for extension in self.extensions:
            made = Path(self.get_ext_fullpath(extension.name))
            built = Path(self.build_lib, self.get_ext_filename(extension.name))
            if self.failed:
                made.unlink(missing_ok=True)
                built.unlink(missing_ok=True)
            elif made.exists():
                made.touch()


def extensions() -> list[Any]:
    if os.environ.get("L7PROXY_PURE"):
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    found = []
    for source in COMPILED:
        name = source.rpartition(".")[0].replace("/", ".")
        found.append(Extension(name, [source], extra_compile_args=FASTER))
    directives = {"language_level": 3, "annotation_typing": False, "nonecheck": True, "binding": False}
    made = list(cythonize(found, build_dir="build", compiler_directives=directives, nthreads=2, quiet=True))
    for extension in made:
        extension.optional = True  # of Extension's arguments, cythonize() loses this one
    return made


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildTogether})
