# What the peers' scripts share. Each peer is a script that is called as `NAME.sh up DIR` and
# `NAME.sh down DIR`: `up` starts its servers with their data in DIR, waits until they serve, and
# leaves the arguments of the load in DIR/args; `down` ends them. Process ids are in DIR/pids.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
peers="${CARGO_TARGET_DIR:-$root/target}/release/peers"

# need PROGRAM HOW-TO-INSTALL
need() {
  command -v "$1" >/dev/null || { echo "peers: $1 is not installed: $2" >&2; exit 3; }
}

# spawn LOG COMMAND..: in the background; its id is added to $dir/pids.
spawn() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 </dev/null &
  echo $! >>"$dir/pids"
}

# pids: the ids, separated by commas.
pids() { paste -sd, "$dir/pids"; }

# until_ok SECONDS COMMAND..: again and again until it succeeds.
until_ok() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "peers: this did not succeed in time: $*" >&2; exit 1; }
    sleep 0.1
  done
}

# Ends what `spawn` started, and waits for it.
end_all() {
  [ -f "$dir/pids" ] || return 0
  local pid
  while read -r pid; do kill "$pid" 2>/dev/null || true; done <"$dir/pids"
  while read -r pid; do
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done <"$dir/pids"
}

verb=${1:-}
dir=${2:-}
