#!/usr/bin/env bash
# Three nodes of Garage with its K2V API: replication 3, consistent, no fsync (its default).
source "$(dirname "$0")/lib.sh"
case $verb in
up)
  need garage "cargo install garage --locked (its default features have K2V)"
  garage() { command garage -c "$dir/1.toml" "$@"; }
  secret=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
  for n in 1 2 3; do
    cat >"$dir/$n.toml" <<TOML
metadata_dir = "$dir/meta$n"
data_dir = "$dir/data$n"
db_engine = "lmdb"
replication_factor = 3
consistency_mode = "consistent"
rpc_bind_addr = "127.0.0.1:$((17200 + n))"
rpc_public_addr = "127.0.0.1:$((17200 + n))"
rpc_secret = "$secret"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$((17210 + n))"
[k2v_api]
api_bind_addr = "127.0.0.1:$((17220 + n))"
TOML
    spawn "$dir/log$n" env RUST_LOG=garage=warn garage -c "$dir/$n.toml" server
  done
  for n in 1 2 3; do until_ok 20 command garage -c "$dir/$n.toml" status; done
  for n in 1 2 3; do
    id=$(command garage -c "$dir/$n.toml" node id -q)
    [ "$n" = 1 ] || garage node connect "$id" >>"$dir/setup"
    garage layout assign -z "z$n" -c 10G "${id%%@*}" >>"$dir/setup"
  done
  garage layout apply --version 1 >>"$dir/setup"
  until_ok 20 garage bucket create peers
  garage key create peers >"$dir/key"
  garage bucket allow --read --write --owner peers --key peers >>"$dir/setup"
  # Every node must have met every other: until then there is no quorum.
  is_whole() {
    command garage -c "$dir/$1.toml" status >"$dir/status$1"
    ! grep -q FAILED "$dir/status$1" && [ "$(grep -c '127.0.0.1:1720' "$dir/status$1")" -ge 3 ]
  }
  for n in 1 2 3; do until_ok 60 is_whole $n; done
  # Only for a throw-away cluster on loopback; the secret goes by the environment.
  awk '/Secret key/ { print $NF }' "$dir/key" >"$dir/secret"
  echo "--protocol k2v --name garage-k2v --addr 127.0.0.1:17221,127.0.0.1:17222,127.0.0.1:17223" \
    "--pids $(pids) --key-id $(awk '/Key ID/ { print $NF }' "$dir/key")" >"$dir/args"
  ;;
down) end_all ;;
esac
