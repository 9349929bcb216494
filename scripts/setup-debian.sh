#!/usr/bin/env bash
# Debian packages that only tests need. Installs what is missing and says nothing else.
set -euo pipefail
packages=(
  libonnx-testdata  # the ONNX conformance cases: test/compliance/conformance.test.ts
  protobuf-compiler # another implementation of protobuf: packages/wire/test/foreign.test.ts
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

fail() {
  echo "kofn: cannot install ${missing[*]}: $1. The tests that need it are skipped" >&2
  exit 1
}
command -v apt-get >/dev/null || fail "there is no apt-get here"
as_root=()
if [[ $EUID -ne 0 ]]; then
  command -v sudo >/dev/null || fail "it takes root, and there is no sudo"
  as_root=(sudo)
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >"$log" 2>&1
}
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; }; then
  cat "$log" >&2
  fail "apt-get failed as above"
fi
