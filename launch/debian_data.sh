#!/usr/bin/env bash
# Makes a data set of real text that is on every Debian machine: chats about what its packages are, from the names, sections
# and short descriptions that apt knows. Every twentieth package is held out for validation.
# usage: bash launch/debian_data.sh DIR [PACKAGES]
set -euo pipefail
dir=${1:?usage: debian_data.sh DIR [PACKAGES]}
packages=${2:-4000}
mkdir -p "$dir"
[ -s "$dir/train.jsonl" ] && [ -s "$dir/validation.jsonl" ] && exit 0
# One line a package: name, section, description; libraries' variants and debug packages would repeat each other.
apt-cache dumpavail | awk '
  /^Package: / { name = substr($0, 10); section = ""; short = "" }
  /^Section: / { section = substr($0, 10); sub(/.*\//, "", section) }
  /^Description(-en)?: / { short = $0; sub(/^[^:]*: /, "", short) }
  /^$/ { if (name != "" && section != "" && short != "") print name "\t" section "\t" short; name = "" }' |
  grep -vE '^(lib|[^	]*-(dbg|dbgsym|dev|doc|data|common)	)' | LC_ALL=C sort -u -t '	' -k 1,1 >"$dir/packages.tmp"
if [ ! -s "$dir/packages.tmp" ]; then
  echo "debian_data.sh: apt knows no packages; run 'apt-get update' as root first" >&2
  exit 3
fi
awk -F '\t' -v want="$packages" -v all="$(wc -l <"$dir/packages.tmp")" \
  -v train="$dir/train.jsonl.tmp" -v validation="$dir/validation.jsonl.tmp" '
  BEGIN { step = all > want ? all / want : 1 }
  NR >= next_line {
    next_line += step
    gsub(/\\/, "\\\\", $3); gsub(/"/, "\\\"", $3)
    printf "{\"messages\": [{\"role\": \"user\", \"content\": \"What is the Debian package %s?\"}, " \
           "{\"role\": \"assistant\", \"content\": \"%s: %s. It is in the section %s.\"}]}\n", $1, $1, $3, $2 \
      > (written++ % 20 == 19 ? validation : train)
  }' "$dir/packages.tmp"
rm "$dir/packages.tmp"
mv "$dir/train.jsonl.tmp" "$dir/train.jsonl"
mv "$dir/validation.jsonl.tmp" "$dir/validation.jsonl"
