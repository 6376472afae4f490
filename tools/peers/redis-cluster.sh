#!/usr/bin/env bash
# Redis Cluster: three masters, each with an asynchronous replica; memory only, no TLS.
source "$(dirname "$0")/lib.sh"
case $verb in
up)
  need redis-server "apt-get install redis-server"
  addrs=()
  for n in 1 2 3 4 5 6; do
    mkdir -p "$dir/$n"
    spawn "$dir/$n/log" redis-server --port $((17010 + n)) --save "" --appendonly no \
      --cluster-enabled yes --dir "$dir/$n"
    addrs+=("127.0.0.1:$((17010 + n))")
  done
  for n in 1 2 3 4 5 6; do until_ok 10 redis-cli -p $((17010 + n)) ping; done
  redis-cli --cluster create "${addrs[@]}" --cluster-replicas 1 --cluster-yes >"$dir/create"
  is_ok() { redis-cli -p $((17010 + $1)) cluster info | grep -q cluster_state:ok; }
  for n in 1 2 3 4 5 6; do until_ok 30 is_ok $n; done
  echo "--protocol redis-cluster --name redis-cluster --addr ${addrs[0]} --pids $(pids)" >"$dir/args"
  ;;
down) end_all ;;
esac
