#!/usr/bin/env bash
# As galvani.sh, with every answered write fsynced.
DURABILITY=fsync exec "$(dirname "$0")/galvani.sh" "$@"
