#!/usr/bin/env bash
# Makes exporters/supersplat_viewer/ from npm packages: the viewer that dp360 puts into every .html file.
# Run it to move to another version: scripts/update_viewer.sh [VIEWER_VERSION]; it needs node, npm and the network.
set -euo pipefail

viewer_version="${1:-1.36.2}"
esbuild_version="0.28.2"
target="$(cd "$(dirname "$0")/.." && pwd)/exporters/supersplat_viewer"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"

npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts \
  "@playcanvas/supersplat-viewer@$viewer_version" "esbuild@$esbuild_version"
viewer="node_modules/@playcanvas/supersplat-viewer"
engine_version="$(node -p "require('./$viewer/package.json').devDependencies.playcanvas")"  # the one bundled by its build
npm install --silent --no-audit --no-fund --ignore-scripts --no-save "playcanvas@$engine_version"

# The one address outside: models of controllers for VR. An empty one leaves them out.
sed 's#https://cdn.jsdelivr.net/npm/@webxr-input-profiles/assets/dist/profiles#data:,#' \
  "$viewer/public/index.js" > viewer.js
npx esbuild viewer.js --minify --format=iife --global-name=SupersplatViewer --target=es2022 --legal-comments=inline \
  --log-level=error --outfile="$target/viewer.js"
npx esbuild "$viewer/public/index.css" --minify --log-level=error --outfile="$target/viewer.css"

# An inline script ends at the first of these, an inline style sheet at the last.
if grep -qiE '</script|<!--|<script' "$target/viewer.js" || grep -qi '</style' "$target/viewer.css"; then
  echo "update_viewer: the built files cannot be put into a page" >&2
  exit 1
fi
{
  echo "SuperSplat Viewer $viewer_version"
  echo
  cat "$viewer/LICENSE"
  echo
  echo "PlayCanvas Engine $engine_version (bundled in it)"
  echo
  cat node_modules/playcanvas/LICENSE
} > "$target/LICENSE.txt"
sed -i -E "s/^(Version: ).*/\1@playcanvas\/supersplat-viewer $viewer_version with playcanvas $engine_version,\
 minified by esbuild $esbuild_version/" "$target/README.md"
