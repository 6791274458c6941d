"""Build script: the wheel carries the Salt loader folders as subpackages and announces them.

The folders keep their names at the top of the tree (`_runners/` ...) so that the same files work
from `file_roots`; in the wheel they are `cpacman._runners` ..., found by `cpacman._loader`.
"""

from setuptools import find_packages, setup

KINDS = ("runners", "modules", "output", "engines", "states")

setup(
    packages=find_packages(include=["cpacman", "cpacman.*"]) + [f"cpacman._{k}" for k in KINDS],
    package_dir={"cpacman": "cpacman", **{f"cpacman._{k}": f"_{k}" for k in KINDS}},
)
