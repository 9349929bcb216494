#!/usr/bin/env bash
# What only tests need: Debian packages, and Triton's client in an environment of Python. Installs what is missing, starts no service of theirs,
# and says nothing when all is there.
set -euo pipefail
packages=(
  chromium          # a browser for the page: test/serve/page.test.ts
  libonnx-testdata  # the ONNX conformance cases: test/compliance/conformance.test.ts
  prometheus        # scrapes a master and workers, and checks the alerts: test/cluster/monitoring.test.ts
  protobuf-compiler # another implementation of protobuf: packages/wire/test/foreign.test.ts, test/serve/foreign-clients.test.ts
  protobuf-compiler-grpc # stubs for a client in Python: test/serve/foreign-clients.test.ts
  python3-grpcio    # that client's gRPC: test/serve/foreign-clients.test.ts
  python3-venv      # the environment of Triton's client, below
  curl              # a client over HTTP: test/serve/foreign-clients.test.ts
  openssl           # a certificate for TLS: test/serve/access.test.ts
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done

fail() {
  echo "kofn: cannot install ${missing[*]}: $1. The tests that need it are skipped" >&2
  exit 1
}

# tritonclient, as test/serve/tritonclient.txt has it, in .venv: test/serve/foreign-clients.test.ts.
install_tritonclient() {
  local root wanted
  root=$(cd "$(dirname "$0")/.." && pwd)
  wanted=$root/test/serve/tritonclient.txt
  cmp --silent "$wanted" "$root/.venv/installed.txt" && return
  missing=(tritonclient)
  /usr/bin/python3 -m venv --clear "$root/.venv" || fail "python3 -m venv failed as above"
  "$root/.venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted" || fail "pip failed as above"
  cp "$wanted" "$root/.venv/installed.txt"
}

if [[ ${#missing[@]} -eq 0 ]]; then
  install_tritonclient
  exit 0
fi
command -v apt-get >/dev/null || fail "there is no apt-get here"
as_root=()
if [[ $EUID -ne 0 ]]; then
  command -v sudo >/dev/null || fail "it takes root, and there is no sudo"
  as_root=(sudo)
fi
# A package's own service would run on this machine from now on, and take its port: this machine's policy, while apt runs, is to start none,
# and what was enabled for the next boot is disabled again.
policy=/usr/sbin/policy-rc.d
own_policy=
log=$(mktemp)
clean_up() {
  rm -f "$log"
  [[ -z $own_policy ]] || "${as_root[@]}" rm -f "$policy"
}
trap clean_up EXIT
if [[ ! -e $policy ]]; then
  own_policy=yes
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
fi
apt() {
  # Another apt may hold the lock, on a machine that updates itself.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1
}
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; }; then
  cat "$log" >&2
  fail "apt-get failed as above"
fi
for package in "${missing[@]}"; do
  if [[ -e /lib/systemd/system/$package.service || -e /etc/init.d/$package ]]; then
    "${as_root[@]}" update-rc.d "$package" disable >"$log" 2>&1 || { cat "$log" >&2; fail "its service stays enabled"; }
  fi
done
install_tritonclient
