"""Prints what the wheel and these extras need, by the pyproject.toml of this folder: a layer of their own in an image.

python deploy/requirements.py postgres gallery
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
sys.stdout.write("\n".join([*project["dependencies"], *(one for name in sys.argv[1:] for one in extras[name])]) + "\n")
