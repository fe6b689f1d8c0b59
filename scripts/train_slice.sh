#!/usr/bin/env bash
# Trains a stage of the diffusion model for some minutes, on a machine that is there no longer than that.
#
#   STAGE=appearance DATA=heads START=pipeline OUT=slice_1 bash scripts/train_slice.sh [options of dp360 train]
#   STAGE=appearance DATA=heads IN=slice_1 OUT=slice_2 bash scripts/train_slice.sh [the same options]
#
# OUT gets at most 8 files, together at most 60 MB: the checkpoint in pieces of at most 15 MB with slice.json, the
# journal's end, the newest sheet and log.txt; also where the training ends with an error. The last line says how far it
# came. Give the same options to every slice of a stage.
#
#   STAGE      autoencoder | appearance | camera | consistency | back-view
#   IN         OUT of the slice before; without it the stage begins
#   OUT        folder to write to
#   DATA       folder of ready heads (dp360 data heads and all other layouts), or of the head assets, from which heads
#              are then made here first
#   START      where a stage begins: the pipeline folder of the stage before, or the OUT of its last slice
#   VALIDATION folder of heads to draw and measure at checkpoints; with head assets some are made
#   MINUTES    of the whole call, 9 unless told; the last of them is for figures, the sheet and packing
#   HEADS, FIRST, HEADS_MINUTES, JOBS   heads to make from assets (400), number of the first (0), for how long at most
#              (3; some more for those to validate with), processes (all cores)
#   WORK       folder for what need not come back, such as made heads; a temporary one unless told
#   WHEELS     folder of wheels to install for this run: diffusers, tyro and what they need
#   TOTAL_BYTES, PIECE_BYTES     other limits than 60000000 and 15000000
#   PYTHON     the interpreter, python3 unless told; it has to have torch, accelerate, numpy, safetensors, jaxtyping,
#              pillow and rich
set -euo pipefail

complain() {
  echo "train_slice: $1" >&2
  exit 2
}

case "${1:-}" in -h | --help) sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0"; exit 0 ;; esac
stage="${STAGE:-}" data="${DATA:-}" out="${OUT:-}" minutes="${MINUTES:-9}" python="${PYTHON:-python3}"
case "$stage" in
  autoencoder | appearance | camera | consistency | back-view) ;;
  "") complain "STAGE is not set; expected autoencoder, appearance, camera, consistency or back-view" ;;
  *) complain "no stage is called $stage; expected autoencoder, appearance, camera, consistency or back-view" ;;
esac
[ -n "$out" ] || complain "OUT is not set; expected a folder to write the slice to"
[ -n "$data" ] || complain "DATA is not set; expected a folder of heads or of the head assets"
[ -d "$data" ] || complain "there is no folder $data; DATA expects a folder of heads or of the head assets"
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
mkdir -p "$out"
out="$(cd "$out" && pwd)" log="$out/log.txt"
if [ -n "${WORK:-}" ]; then
  mkdir -p "$WORK"
  work="$(cd "$WORK" && pwd)"
else
  work="$(mktemp -d)"
  trap 'rm -rf "$work"' EXIT
fi
folder="$work/$stage"

# ---- libraries ----------------------------------------------------------------------------------------------------
site="$work/site"
if [ -n "${WHEELS:-}" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" "$WHEELS"/*.whl
fi
# The folder typings has links by which `import dp360` works without an installation.
export PYTHONPATH="$repository/typings:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 COLUMNS=160
missing_modules() { # those of the arguments that cannot be imported
  "$python" -c 'import importlib.util as u, sys; print(*(m for m in sys.argv[1:] if u.find_spec(m) is None))' "$@"
}
needed="torch accelerate numpy safetensors jaxtyping PIL rich typing_extensions tyro docstring_parser typeguard diffusers \
huggingface_hub filelock importlib_metadata regex requests"
# shellcheck disable=SC2086
lacking="$(missing_modules $needed)"
[ -z "$lacking" ] || complain "$python lacks $lacking; install them, or name a folder of wheels in WHEELS"

slices() { # a call of the module slices, with its errors in one line
  "$python" - "$@" <<'PYTHON'
import sys
from pathlib import Path

from dp360.generation import InputError
from dp360.generation.training.slices import pack_slice, unpack_slice

verb, first, second, *rest = sys.argv[1:]
try:
    if verb == "unpack":
        print(unpack_slice(Path(first), Path(second)))
    else:
        piece_bytes, total_bytes, pipeline = int(rest[0]), int(rest[1]), Path(rest[2]) if rest[2] else None
        files = pack_slice(Path(first), Path(second), piece_bytes, total_bytes, pipeline=pipeline)
        print(f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")
except InputError as error:
    print(f"train_slice: {error}", file=sys.stderr)
    sys.exit(2)
PYTHON
}

# ---- where it goes on, or begins ----------------------------------------------------------------------------------
start=""
if [ -n "${IN:-}" ]; then
  step="$(slices unpack "$IN" "$folder")"
  echo "going on behind step $step"
  if [ -d "$folder/pipeline" ]; then
    rm -rf "$work/start"
    mv "$folder/pipeline" "$work/start"
    start="$work/start"
  fi
fi
if [ -z "$start" ] && [ -n "${START:-}" ]; then
  start="$START"
  if [ -f "$START/slice.json" ]; then
    slices unpack "$START" "$work/stage_before" >/dev/null
    start="$work/stage_before/pipeline"
  fi
fi
[ "$stage" = autoencoder ] || [ -n "$start" ] ||
  complain "stage $stage begins with the networks of the stage before; START expects its pipeline folder or last slice"

# ---- heads --------------------------------------------------------------------------------------------------------
validation="${VALIDATION:-}"
if [ -d "$data/makehuman" ]; then
  lacking="$(missing_modules mediapipe pymatting trimesh numba scipy cv2)"
  [ -z "$lacking" ] || complain "making heads from the assets in $data needs $lacking, which $python lacks; name a \
folder of ready heads in DATA, made with dp360 data heads elsewhere"
  make_heads() { # split, count, seconds, number of the first; heads that are complete in time are kept
    timeout --kill-after=60 "$3" "$python" -m dp360.configs.cli data heads --data "$data" --output "$work/heads_$1" \
      --split "$1" --count "$2" --first "$4" --jobs "${JOBS:-$(nproc)}" --size 256 >/dev/null 2>>"$log" || true
    find "$work/heads_$1" -mindepth 1 -maxdepth 1 -name '.*' -exec rm -rf {} + 2>/dev/null || true
  }
  seconds="$("$python" -c 'import sys; print(round(60 * float(sys.argv[1])))' "${HEADS_MINUTES:-3}")"
  if [ -z "$validation" ]; then
    make_heads validation 4 "$((seconds / 4 + 30))" 0
    validation="$work/heads_validation"
    [ -n "$(find "$validation" -maxdepth 2 -name transforms.json 2>/dev/null)" ] || validation=""
  fi
  make_heads train "${HEADS:-400}" "$seconds" "${FIRST:-0}"
  data="$work/heads_train"
  count="$(find "$data" -maxdepth 2 -name transforms.json 2>/dev/null | wc -l)"
  [ "$count" -gt 0 ] || complain "no head was complete within HEADS_MINUTES; give more, or ready heads (see $log)"
  echo "$count heads made"
fi

# ---- training -----------------------------------------------------------------------------------------------------
left() { # seconds of the call that are left, less the first argument
  "$python" -c 'import sys; print(round(60 * float(sys.argv[1]) - float(sys.argv[2]) - float(sys.argv[3])))' \
    "$minutes" "$SECONDS" "$1"
}
[ "$(left 75)" -gt 0 ] || complain "no time is left for training; give more MINUTES than $minutes, or make fewer heads"
options=(--data "$data" --output "$folder" --minutes "$("$python" -c "print($(left 60) / 60)")")
[ -z "$validation" ] || options+=(--validation "$validation")
[ "$stage" = autoencoder ] || options+=(--start "$start")
status=0
timeout --kill-after=5 "$(left 20)" "$python" -m dp360.configs.cli train "$stage" "${options[@]}" "$@" 2>&1 |
  tee -a "$log" || status=$?

# ---- what comes back ----------------------------------------------------------------------------------------------
pipeline=""
[ -d "$folder/pipeline" ] || pipeline="$start"
if packed="$(slices pack "$folder" "$out" "${PIECE_BYTES:-15000000}" "${TOTAL_BYTES:-60000000}" "$pipeline")"; then
  echo "$packed" in "$out"
  "$python" - "$out/slice.json" "$log" "$stage" <<'PYTHON'
import json
import re
import sys
from pathlib import Path

manifest = json.loads(Path(sys.argv[1]).read_text())
figures = {name: value for name, value in manifest["figures"].items() if name.startswith(("train/loss", "validation/"))}
told = re.findall(r"step \d+: (.*)", Path(sys.argv[2]).read_text(errors="replace"))
line = ", ".join(f"{name} {value:.4g}" for name, value in figures.items()) or (told[-1] if told else "no figures yet")
print(f"slice of {sys.argv[3]}: step {manifest['step']}; {line}")
PYTHON
else
  [ "$status" -ne 0 ] || status=2
fi
exit "$status"
