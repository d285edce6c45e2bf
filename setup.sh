#!/usr/bin/env bash
# Makes the environment that the Makefile uses, with the versions in constraints.txt.
#
#   bash setup.sh                  make $VENV (default .venv) with $PYTHON (default python3); `make setup` calls this
#   bash setup.sh constraints      write constraints.txt: the newest versions that pyproject.toml allows, with torch $TORCH
#   bash setup.sh kernel [FILE]    only compile delta's inner loops, to delta/libkernel.so or FILE
#
# Missing packages are added to an existing environment. An installed torch (2.11 or newer) is kept.
set -euo pipefail
PYTHON=${PYTHON:-python3} VENV=${VENV:-.venv} TORCH=${TORCH:-2.13.0}

requirements() { # the packages that pyproject.toml requires, one per line
  "$1" - <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
print("\n".join(project["project"]["dependencies"] + project["dependency-groups"]["dev"]))
PY
}

has_torch() { "$1" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; }

make_environment() { # $1: folder
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: $PYTHON is older than Python 3.11. Use a newer one: make setup PYTHON=python3.12" >&2; exit 2; }
  local packages=()
  if has_torch "$PYTHON"; then
    "$PYTHON" -c 'import sys; sys.exit(sys.prefix != sys.base_prefix)' ||
      { echo "error: $PYTHON is in a virtual environment. Use that environment itself: make setup VENV=$("$PYTHON" -c 'import sys; print(sys.prefix)')" >&2; exit 2; }
    packages=(--system-site-packages)
  fi
  "$PYTHON" -m venv ${packages[@]+"${packages[@]}"} "$1"
}

install() { # $1: interpreter, $2: constraints file or empty
  local python=$1 constraints=$2 pins
  pins=$(mktemp)
  if has_torch "$python"; then
    "$python" - <<'PY' > "$pins"
import re, sys
import torch
from pip._vendor.packaging.version import Version
minimum = re.search(r'"torch>=([\d.]+)"', open("pyproject.toml").read())[1]
if Version(torch.__version__) < Version(minimum):
    sys.exit(f"error: torch {torch.__version__} is installed; {minimum} or newer is needed.")
print(f"torch=={torch.__version__}")
PY
    echo "using the installed torch $(sed 's/.*==//' "$pins") (tested: $(sed -n 's/^torch==//p' constraints.txt))"
    [ -z "$constraints" ] || grep -v '^torch==' "$constraints" >> "$pins"
  else
    if [ -n "$constraints" ]; then cat "$constraints"; else echo "torch==$TORCH"; fi > "$pins"
    "$python" -m pip install -qq --disable-pip-version-check -c "$pins" torch
  fi
  requirements "$python" | "$python" -m pip install -qq --disable-pip-version-check -c "$pins" -r /dev/stdin
  rm -f "$pins"
}

compile_kernel() { # $1: file. Sums are rounded as numpy rounds them: no fused multiply-add.
  if "${CC:-cc}" -O3 -ffp-contract=off -fno-trapping-math -shared -fPIC -o "$1.partial" delta/kernel.c; then
    mv "$1.partial" "$1"
  else
    echo "no working C compiler (cc): delta will use numpy, which is slower"
  fi
}

if [ "${1:-}" = kernel ]; then
  compile_kernel "${2:-delta/libkernel.so}"
elif [ "${1:-}" = constraints ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  make_environment "$scratch"
  install "$scratch/bin/python" ""
  {
    echo "# Written by \`make constraints\`; tested together on $("$scratch/bin/python" -V). On a GPU, torch brings its CUDA packages."
    "$scratch/bin/python" -m pip freeze --disable-pip-version-check --exclude setuptools --exclude pip |
      sed -e 's/+cpu$//' -e 's/ @ .*//'
  } > constraints.txt
else
  [ -x "$VENV/bin/python" ] || { echo "making $VENV"; make_environment "$VENV"; }
  echo "installing the pinned packages (the first time this takes minutes)"
  install "$VENV/bin/python" constraints.txt
  "$VENV/bin/python" -m pip check --disable-pip-version-check 2> /dev/null | grep -v '^No broken' || true
  compile_kernel delta/libkernel.so
fi
