#!/bin/sh
# Rebuilds the pages into a temporary directory and fails when the committed assets differ.
# `.gz` files are compared by their content: compressors may differ between machines, what they hold may not.
set -eu
cd "$(dirname "$0")"
assets=../crates/gateway/assets
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
[ -d node_modules ] || npm ci --silent
CAIRN_WEB_OUT="$fresh" npm run --silent build >/dev/null

status=0
for path in "$fresh"/* "$assets"/*; do
  name=$(basename "$path")
  if [ ! -f "$assets/$name" ]; then
    echo "error: \`$name\` is built but not committed" >&2
    status=1
  elif [ ! -f "$fresh/$name" ]; then
    echo "error: \`$name\` is committed but no longer built" >&2
    status=1
  else
    case "$name" in
      *.gz) gzip -dc "$assets/$name" | cmp -s - "$fresh/${name%.gz}" || { echo "error: \`$name\` does not hold the current \`${name%.gz}\`" >&2; status=1; } ;;
      *) cmp -s "$assets/$name" "$fresh/$name" || { echo "error: \`$name\` is not what web/ builds" >&2; status=1; } ;;
    esac
  fi
done
if [ "$status" -ne 0 ]; then
  printf '\nhint: run `npm ci && npm run build` in web/ and commit crates/gateway/assets\n' >&2
else
  echo "the committed pages are current"
fi
exit "$status"
