#!/usr/bin/env bash
# Installs the core on another Python, with the lowest or the newest versions that pyproject.toml allows, and tests it.
#
#   bash scripts/test_core.sh PYTHON lowest|newest FOLDER [TESTS ...]
#       PYTHON   an interpreter, such as python3.10
#       FOLDER   of the virtual environment; one that is there already is used as it is
#       TESTS    what pytest gets; without them the versions are shown and nothing is run. Tests of the extras fail
#
# docs/platforms.md says what was run so. A head: FOLDER/bin/dp360 run face.png --quality fast
set -euo pipefail

if [ $# -lt 3 ] || { [ "$2" != lowest ] && [ "$2" != newest ]; }; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
python="$1" versions="$2" folder="$3"
shift 3
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$repository"

if [ ! -x "$folder/bin/python" ]; then
  "$python" -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --upgrade pip
  pins=()
  if [ "$versions" = lowest ]; then
    # The first version of each dependency of the core: "numpy>=1.26,<3" becomes numpy==1.26.*
    sed -n '/^dependencies = \[/,/^\]/s/^ *"\([A-Za-z0-9_-]*\)>=\([0-9.]*\).*/\1==\2.*/p' pyproject.toml >"$folder/lowest.txt"
    pins=(-c "$folder/lowest.txt")
  fi
  "$folder/bin/python" -m pip install --progress-bar off "${pins[@]}" -e . \
    "pytest>=8" "pytest-xdist>=3.6" "hypothesis>=6" "beartype>=0.18" "plyfile>=1.0" psutil "tomli; python_version < '3.11'"
fi
"$folder/bin/python" -m pip freeze --exclude-editable | grep -iE '^(torch|numpy|numba|llvmlite|scipy|opencv|scikit|pillow|viser|trimesh|tyro|rich)'

if [ $# -gt 0 ]; then
  exec "$folder/bin/python" -m pytest "$@"
fi
