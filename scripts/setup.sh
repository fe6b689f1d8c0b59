#!/usr/bin/env bash
# Sets dp360 up on Debian or Ubuntu: system libraries, a fresh virtual environment, the pinned Python packages.
#
#   bash scripts/setup.sh [--cpu | --core | --dev] [FOLDER]    FOLDER of the virtual environment, .venv by default
#       without an option: dp360 with its nerfstudio plugin and all extras for users but rembg (8 GB)
#       --core: what makes, exports and shows heads; --cpu: the same with PyTorch for the CPU (1.6 GB)
#       --dev:  also what tests and checks need, a browser (chromium) included
#   PYTHON=/path/to/python3.11 bash scripts/setup.sh    another interpreter than the one found
#
# Missing system libraries are installed when run as root; otherwise they are named with the apt line.
set -euo pipefail

extras="[nerfstudio,train,export,usd,serve]" folder="" browser="" torch="" size="about 8 GB"
newest=11 # nerfstudio is made for Python 3.10 and 3.11
for argument in "$@"; do
  case "$argument" in
    --dev) extras="[dev]" browser="chromium" ;;
    --core) extras="" newest=13 size="1.6 GB and what CUDA takes" ;;
    --cpu) extras="" newest=13 size="about 1.6 GB" torch="https://download.pytorch.org/whl/cpu" ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "setup.sh: unknown option $argument (known: --core, --cpu, --dev, --help)" >&2; exit 2 ;;
    *) folder="$argument" ;;
  esac
done
folder="${folder:-.venv}"
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

if [ -e "$folder" ] && [ ! -f "$folder/pyvenv.cfg" ] && [ -n "$(ls -A "$folder" 2>/dev/null || echo file)" ]; then
  echo "setup.sh: $folder exists and is no virtual environment; name another folder or move it away" >&2
  exit 2
fi

find_python() { # the first interpreter of a version that what is installed has wheels for
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13 python3.10; do
    if [ -n "$candidate" ] && "$candidate" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $newest))" \
      >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
}

# ---- system libraries -------------------------------------------------------------------------------------------
loads() { "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" >/dev/null 2>&1; }
python_header() { "$python" -c 'import os, sys, sysconfig; p = sysconfig.get_paths()
sys.exit(not os.path.exists(os.path.join(p["include"], "Python.h")))'; }

missing_packages() { # names of Debian packages, one per line; needs $python for all but itself
  if [ -z "$python" ]; then
    echo "python3 python3-venv python3-dev"
  else
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || echo "python3-venv"
    [ -n "$extras" ] || return 0 # the rest is for nerfstudio and what it brings
    python_header || echo "python3-dev"
    loads libGL.so.1 || echo "libgl1"
    loads libEGL.so.1 || echo "libegl1"
    loads libOpenGL.so.0 || echo "libopengl0"
    loads libusb-1.0.so.0 || echo "libusb-1.0-0"
    loads libX11.so.6 || echo "libx11-6"
  fi
  command -v gcc >/dev/null || echo "gcc"
  command -v g++ >/dev/null || echo "g++"
  command -v ffmpeg >/dev/null || echo "ffmpeg"
}

browser_is_missing() { # for tests of what browsers show; without one these are skipped
  [ -n "$browser" ] && ! command -v chromium >/dev/null
}

required() { # without these the installation itself fails; the others are for single tools
  case " $1 " in *" python3"* | *" gcc "* | *" g++ "* | *" libgl1 "*) return 0 ;; *) return 1 ;; esac
}

python="$(find_python)"
missing="$(missing_packages | xargs)"
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "setup.sh: installing system packages: $missing"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086  # one word per package
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; } ||
    echo "setup.sh: apt-get failed" >&2
  python="$(find_python)"
  missing="$(missing_packages | xargs)"
fi
if browser_is_missing && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then # apart: not every system has it
  echo "setup.sh: installing $browser"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$browser" >/dev/null; } ||
    echo "setup.sh: apt-get could not install $browser" >&2
fi
if [ -z "$python" ]; then
  echo "setup.sh: no Python 3.10 to 3.$newest found; install one and name it: PYTHON=/path/to/python3.11 bash $0" >&2
  exit 1
fi
if [ -n "$missing" ]; then
  echo "setup.sh: missing system packages, install them with:" >&2
  echo "    sudo apt-get update && sudo apt-get install -y $missing" >&2
  if required "$missing"; then
    echo "setup.sh: some of them are needed to install dp360; run setup.sh again afterwards" >&2
    exit 1
  fi
  echo "setup.sh: going on without; 'dp360 doctor' says what each is for" >&2
fi
if browser_is_missing; then
  echo "setup.sh: no $browser: browser tests will be skipped; install it with: sudo apt-get install -y $browser" >&2
fi

# ---- virtual environment ----------------------------------------------------------------------------------------
echo "setup.sh: virtual environment in $folder ($("$python" --version)); $size, a few minutes"
"$python" -m venv --clear "$folder"
pins=()
if [ -z "$extras" ]; then
  echo "setup.sh: pip chooses the newest versions of the core's packages"
elif "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
  pins=(-c "$repository/constraints.txt")
else
  echo "setup.sh: constraints.txt is for Python 3.11; pip chooses the versions here" >&2
fi
if [ -n "$torch" ]; then
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check torch --index-url "$torch"
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${pins[@]}" -e "$repository$extras"
echo "setup.sh: compiling kernels by making a small head, once per machine: one to two minutes"
"$folder/bin/dp360" doctor --compile || echo "setup.sh: no head can be made yet; what is missing stands above" >&2
echo "setup.sh: done; try $folder/bin/dp360 doctor"
