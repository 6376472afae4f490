#!/usr/bin/env bash
# Loads Galvani and its peers in turn, and prints the table.
#
#   tools/peers/run.sh ROUNDS PEER..      e.g. 3 galvani redis redis-cluster garage
#                                              3 galvani-fsync etcd
#
# In each round every peer is started afresh, filled, written, read and ended, one after the other,
# so that what else the machine does hits all alike. CONCURRENCY (64), SECONDS_EACH (5), KEYS (10000)
# and VALUE (1024) are taken from the environment. Runs are left in OUT (target/peers.jsonl). A peer that is
# not installed is named and passed over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rounds=${1:?say how many rounds, then which peers}
shift
[ $# -gt 0 ] || { echo "peers: say which: galvani galvani-fsync redis redis-cluster etcd garage" >&2; exit 2; }
out=${OUT:-target/peers.jsonl}
mkdir -p "$(dirname "$out")"
cargo build --release --locked -p galvani-peers -p galvani
peers="${CARGO_TARGET_DIR:-target}/release/peers"
common=(-c "${CONCURRENCY:-64}" --seconds "${SECONDS_EACH:-5}" --keys "${KEYS:-10000}"
  --value "${VALUE:-1024}" --out "$out")
: >"$out"

current="" dir=""
clean() {
  [ -z "$current" ] || "tools/peers/$current.sh" down "$dir" || true
  [ -z "$dir" ] || rm -rf "$dir"
  current="" dir=""
}
trap clean EXIT

one() {
  dir=$(mktemp -d)
  current=$1
  if ! "tools/peers/$current.sh" up "$dir"; then
    echo "peers: $current did not start, and is not in the table" >&2
    clean
    return 0
  fi
  local args
  read -ra args <"$dir/args"
  case $current in
  galvani*)
    GALVANI_STATE="$dir/state" "$peers" galvani "${args[@]}" "${common[@]}" --op put || true
    GALVANI_STATE="$dir/state" "$peers" galvani "${args[@]}" "${common[@]}" --op get || true
    ;;
  *)
    [ ! -f "$dir/secret" ] || PEERS_SECRET=$(cat "$dir/secret")
    export PEERS_SECRET=${PEERS_SECRET:-}
    "$peers" load "${args[@]}" "${common[@]}" --op put --fill || true
    "$peers" load "${args[@]}" "${common[@]}" --op get || true
    ;;
  esac
  clean
}

for ((round = 1; round <= rounds; round++)); do
  for peer in "$@"; do one "$peer"; done
done
"$peers" table "$out"
