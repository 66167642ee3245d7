#!/bin/sh
# Runs `make test-NAME` for every NAME given, all of them even when one fails, and closes with the
# sum over the languages. The output of each is kept in target/test-logs/NAME.log.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$here/../.." || exit 1
logs=target/test-logs
mkdir -p "$logs"
rm -f "$logs"/*.log "$logs"/*.status

for name in "$@"; do
  printf '\n== test-%s\n' "$name"
  {
    ${MAKE:-make} --no-print-directory "test-$name"
    echo $? >"$logs/$name.status"
  } 2>&1 | tee "$logs/$name.log"
done

echo
exec sh "$here/summary.sh" "$logs" "$@"
