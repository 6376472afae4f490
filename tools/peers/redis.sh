#!/usr/bin/env bash
# One Redis server: memory only, no TLS, no copies.
source "$(dirname "$0")/lib.sh"
case $verb in
up)
  need redis-server "apt-get install redis-server"
  spawn "$dir/log" redis-server --port 17001 --save "" --appendonly no --dir "$dir"
  until_ok 10 redis-cli -p 17001 ping
  echo "--protocol redis --name redis --addr 127.0.0.1:17001 --pids $(pids)" >"$dir/args"
  ;;
down) end_all ;;
esac
