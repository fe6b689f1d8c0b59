#!/usr/bin/env bash
# Makes exporters/three_viewer/ from npm packages: what dp360 puts into every avatar.html.
# Run it to move to another version: scripts/update_three.sh [THREE_VERSION]; it needs node, npm and the network.
set -euo pipefail

three_version="${1:-0.187.0}"
esbuild_version="0.28.2"
target="$(cd "$(dirname "$0")/.." && pwd)/exporters/three_viewer"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"

npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts "three@$three_version" "esbuild@$esbuild_version"
cat > entry.js <<'END'
export {
  AmbientLight, Box3, Color, DirectionalLight, HemisphereLight, MeshBasicMaterial, PerspectiveCamera, Scene,
  SRGBColorSpace, Texture, Vector3, WebGLRenderer,
} from 'three';
export { OrbitControls } from 'three/addons/controls/OrbitControls.js';
export { GLTFLoader } from 'three/addons/loaders/GLTFLoader.js';
END
npx esbuild entry.js --bundle --minify --format=iife --global-name=THREE --target=es2022 --legal-comments=inline \
  --log-level=error --outfile="$target/three.js"

# An inline script ends at the first of these.
sed -i 's#</script#<\\/script#gI' "$target/three.js"
if grep -qiE '</script|<!--|<script' "$target/three.js"; then
  echo "update_three: the built file cannot be put into a page" >&2
  exit 1
fi
{
  echo "three.js $three_version"
  echo
  cat node_modules/three/LICENSE
} > "$target/LICENSE.txt"
cat > "$target/README.md" <<END
# three.js

Version: three $three_version, bundled and minified by esbuild $esbuild_version

\`three.js\` holds the parts of the npm package \`three\` that the page of an avatar uses, and nothing else.
\`dp360.exporters.avatar_html\` writes them into every \`avatar.html\` together with the head, so that the file needs no
network. \`scripts/update_three.sh\` makes this folder. MIT licence, in \`LICENSE.txt\`.

Home: https://github.com/mrdoob/three.js
END
