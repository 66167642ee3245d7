#!/bin/sh
# summary.sh LOGS NAME...: reads LOGS/NAME.log and LOGS/NAME.status of every NAME, prints one line
# each and the sum, `N passed, N failed`. Exits with 1 when anything failed.
#
# Understood are the closing lines of cargo test, ExUnit and Julia's Test, and of our own C and
# docs checks, `NAME: N passed, N failed`.
# What failed is named once more before the sum, since the logs are long.
# A run without any counts as one check; so does one that failed with no failed test in its log.
set -eu
logs=$1
shift

counts() {
  awk '
    { sub(/\r$/, ""); gsub(/\033\[[0-9;]*m/, "") }
    # cargo: test result: ok. 12 passed; 0 failed; 1 ignored; ...      ours: docs: 12 passed, 0 failed
    /^test result: / || /^(c|docs): [0-9]+ passed, [0-9]+ failed/ {
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) passed += $(i - 1)
        if ($i ~ /^failed/) failed += $(i - 1)
      }
      seen = 1
    }
    # ExUnit: 3 doctests, 12 tests, 0 failures, 1 excluded
    /^[0-9]+ (doctest|propert|test).*[0-9]+ failures?/ {
      n = split($0, part, ", ")
      for (i = 1; i <= n; i++) {
        split(part[i], word, " ")
        if (word[2] ~ /^(doctest|propert|test)/) passed += word[1]
        else passed -= word[1]
        if (word[2] ~ /^(failure|invalid)/) failed += word[1]
      }
      seen = 1
    }
    # Julia: a header naming the columns that are not empty, then the outermost test set.
    header {
      sub(/^.*\|/, "")
      for (i = 1; i <= columns; i++) {
        if (column[i] == "Pass") passed += $i
        if (column[i] == "Fail" || column[i] == "Error") failed += $i
      }
      header = 0
      seen = 1
    }
    /^Test Summary: *\|/ {
      sub(/^.*\|/, "")
      columns = split($0, column, " ")
      header = 1
    }
    END { print passed + 0, failed + 0, seen + 0 }' "$1"
}

# The lines of a log that say what failed: of cargo, of our C programs, of Julia, of ExUnit.
failures() {
  awk '{ sub(/\r$/, ""); gsub(/\033\[[0-9;]*m/, ""); print }' "$1" | grep -E -A 2 \
    -e '^test .*FAILED$|^error(\[|:)|^Diff in ' \
    -e '^c: .* (with|stopped|compile|missing|declare|export)|^[a-z_]+: [0-9]+ passed, [1-9]|^tests/c/|==ERROR|runtime error' \
    -e 'Test Failed at|Error During Test|Got exception' \
    -e '^ +[0-9]+\) ' -e '^FAILED ' | head -n 40
}

all_passed=0 all_failed=0
for name in "$@"; do
  # shellcheck disable=SC2046 # three numbers
  set -- $(counts "$logs/$name.log")
  passed=$1 failed=$2 seen=$3
  status=$(cat "$logs/$name.status" 2>/dev/null || echo 1)
  if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
  if [ "$status" = 0 ] && [ "$seen" = 0 ]; then passed=1; fi
  printf '%-8s %s passed, %s failed\n' "$name" "$passed" "$failed"
  if [ "$failed" != 0 ]; then failures "$logs/$name.log"; echo "  the whole of it: $logs/$name.log"; fi
  all_passed=$((all_passed + passed)) all_failed=$((all_failed + failed))
done
echo "$all_passed passed, $all_failed failed"
[ "$all_failed" = 0 ]
