#!/usr/bin/env bash
# Three nodes of Galvani, three copies, W=2 and R=2, TLS on every link. DURABILITY=fsync: every
# answered write is fsynced.
source "$(dirname "$0")/lib.sh"
export GALVANI_STATE="$dir/state"
bin="${CARGO_TARGET_DIR:-$root/target}/release/galvani"
case $verb in
up)
  [ -x "$bin" ] || { echo "peers: $bin is not there: cargo build --release -p galvani" >&2; exit 3; }
  "$bin" dev -d --name peers --ports auto --durability "${DURABILITY:-os}" >"$dir/log" 2>&1
  name=galvani
  [ "${DURABILITY:-os}" = os ] || name="galvani-$DURABILITY"
  echo "--bin $bin --context peers --name $name" >"$dir/args"
  ;;
down) "$bin" dev destroy --name peers --yes >>"$dir/log" 2>&1 || true ;;
esac
