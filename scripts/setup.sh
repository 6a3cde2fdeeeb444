#!/bin/sh
# Sets up everything a fresh clone needs, and nothing the second time: a stamp holds the
# checksum of the locks that were installed.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

say() { printf '%s\n' "$*" >&2; }

command -v "$PYTHON" >/dev/null 2>&1 || {
  say "causeway: no '$PYTHON' on this machine. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12 …"
  exit 1
}
"$PYTHON" - <<'PY' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"causeway: needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}. "
             "Name a newer one: make PYTHON=/path/to/python3.12 …")
PY
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || {
  say "causeway: '$PYTHON' cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"
  exit 1
}

# A symbol the lock files and this script agree on: change either and the set-up runs again.
want=$("$PYTHON" - <<'PY'
import hashlib, pathlib, sys
h = hashlib.sha256(sys.version.encode())
for name in ("requirements-dev.lock", "package-lock.json", "pyproject.toml", "scripts/setup.sh", "scripts/node.py"):
    p = pathlib.Path(name)
    h.update(p.read_bytes() if p.exists() else b"-")
print(h.hexdigest())
PY
)
[ -f "$VENV/.setup" ] && [ "$(cat "$VENV/.setup")" = "$want" ] && [ -d node_modules ] && exit 0

start=$(date +%s)
say "causeway: setting up $VENV (once; about a minute)"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.9" 2>/dev/null ||
  "$VENV/bin/python" -m pip install --disable-pip-version-check "uv>=0.9"
say "  Python packages"
VIRTUAL_ENV="$PWD/$VENV"
case "$VENV" in /*) VIRTUAL_ENV="$VENV" ;; esac
export VIRTUAL_ENV
"$VENV/bin/uv" pip install --quiet --require-hashes -r requirements-dev.lock
"$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation -e .
say "  node packages (a local Ethereum node, the Solidity compiler)"
"$VENV/bin/python" scripts/node.py npm ci --silent --no-progress
# The lock holds the node for Linux on x86-64; elsewhere the same release for this machine.
case "$(uname -sm)" in
  "Linux x86_64") anvil= ;;
  "Linux aarch64") anvil=anvil-linux-arm64 ;;
  "Darwin x86_64") anvil=anvil-darwin-amd64 ;;
  "Darwin arm64") anvil=anvil-darwin-arm64 ;;
  *) say "  no local Ethereum node for $(uname -sm): set CAUSEWAY_ANVIL to one"; anvil= ;;
esac
if [ -n "$anvil" ] && [ ! -d "node_modules/@foundry-rs/$anvil" ]; then
  "$VENV/bin/python" scripts/node.py npm install --silent --no-progress --no-save "@foundry-rs/$anvil@1.7.1"
fi
printf '%s' "$want" > "$VENV/.setup"
say "  done in $(( $(date +%s) - start )) s"
