#!/usr/bin/env bash
# Debian packages that only tests need. None yet: every test runs on Node alone.
set -euo pipefail
echo "kofn: no Debian packages needed"
