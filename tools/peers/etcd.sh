#!/usr/bin/env bash
# Three members of etcd, which fsyncs every write; no TLS.
source "$(dirname "$0")/lib.sh"
case $verb in
up)
  need etcd "apt-get install etcd-server"
  cluster=""
  addrs=""
  for n in 1 2 3; do
    cluster="$cluster,e$n=http://127.0.0.1:$((17110 + n))"
    addrs="$addrs,127.0.0.1:$((17100 + n))"
  done
  for n in 1 2 3; do
    spawn "$dir/log$n" etcd --name "e$n" --data-dir "$dir/e$n" \
      --listen-client-urls "http://127.0.0.1:$((17100 + n))" \
      --advertise-client-urls "http://127.0.0.1:$((17100 + n))" \
      --listen-peer-urls "http://127.0.0.1:$((17110 + n))" \
      --initial-advertise-peer-urls "http://127.0.0.1:$((17110 + n))" \
      --initial-cluster "${cluster#,}" --initial-cluster-state new
  done
  is_led() { grep -q "elected leader\|ready to serve client" "$dir/log$1"; }
  for n in 1 2 3; do until_ok 30 is_led $n; done
  echo "--protocol etcd --name etcd --addr ${addrs#,} --pids $(pids)" >"$dir/args"
  ;;
down) end_all ;;
esac
