#!/bin/sh
# Breaks one promise at a time in a scratch copy of HEAD, runs the fast tests and prints, as a row of
# a table, the first test that failed. Fails when a sabotage survives or no longer applies.
#   sh tests/conformance/sabotage.sh [NAME ...]        # all when no name is given
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
scratch=$(mktemp -d) || exit 1
trap 'git -C "$root" worktree remove --force "$scratch/copy" >/dev/null 2>&1; rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
git -C "$root" worktree add -q --detach "$scratch/copy" HEAD || exit 1
cd "$scratch/copy" || exit 1
# Registry crates are compiled once, and incremental builds make a sabotage cheap.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}" CARGO_INCREMENTAL=1
wanted=" $* "
survived=0

# The first failed test of a run; empty when all passed.
failed_test() {
  if cargo test --no-fail-fast "$@" >"$scratch/log" 2>&1; then return; fi
  name=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$scratch/log" | head -n 1)
  # A patch that does not compile proves nothing.
  if [ -z "$name" ]; then cat "$scratch/log" >&2; name='(no test ran)'; survived=1; fi
  echo "$name"
}

# sabotage NAME FILE PERL: what the substitution breaks must be noticed.
sabotage() {
  if [ "$wanted" != '  ' ]; then
    case $wanted in *" $1 "*) ;; *) return ;; esac
  fi
  perl -0pi -e "$3" "$2"
  if git diff --quiet; then
    echo "$1: the patch of $2 does not apply any more" >&2
    survived=1
    return
  fi
  caught=$(failed_test -p dgm-conformance)
  [ -n "$caught" ] || caught=$(failed_test -p dgm-core --lib)
  case $caught in '' | '(no test ran)') survived=1 ;; esac
  echo "| $1 | \`$2\` | ${caught:-**nothing**} |"
  git checkout -q -- .
}

echo '| sabotage | file | caught by |'
echo '|---|---|---|'
sabotage thread_dependent_sum core/src/nn/sum.rs 's/x\.chunks\(BLOCK\)/x.chunks(if crate::threads::num_threads() > 2 { 256 } else { BLOCK })/'
sabotage isa_dependent_order core/src/nn/sum.rs 's/sums\[v\] = term\.add\(s, sums\[v\],/sums[0] = term.add(s, sums[0],/'
sabotage exp2_constant core/src/math/exp.rs 's/9\.618499e-3/9.618501e-3/'
sabotage gelu_constant core/src/math/activation.rs 's/0\.071_354_814/0.071_354_83/'
sabotage environment_not_restored core/src/arch/fpenv.rs 's/if read\(\) & MASK != self\.saved & MASK/if read() \& MASK == self.saved \& MASK/'
sabotage workers_in_host_mode core/src/arch/team.rs 's/let _environment = FpEnv::enter\(\);//'
sabotage swapped_philox_word core/src/random/lanes.rs 's/\[n0, n1, n2, n3\]/[n0, n1, n3, n2]/'
sabotage history_not_written core/src/sampling/pass/kernel.rs 's/let own = match \(lin\.dst, lin\.mask\) \{/$&\n                    (Operand::Slot(1), None) => continue,/'
sabotage noise_of_another_row core/src/sampling/pass/mod.rs 's/run\.seeds\[task\.row\.\.=task\.row\]/run.seeds[..=0]/'
sabotage rounded_checkpoint core/src/sampling/codec.rs 's/Control \{ t, h,/Control { t, h: f64::from(h as f32),/'
sabotage wrong_argument_named core/src/attention/mod.rs 's/check_shape\("v", v\.shape/check_shape("q", v.shape/'
sabotage row_seed_constant core/src/random/mod.rs 's/0xbf58_476d_1ce4_e5b9/0xbf58_476d_1ce4_e5bb/'
sabotage unchecked_stride core/src/linalg/mod.rs 's/if !output \{/if !output || shape.len() > 1 {/'
sabotage wrong_nan_rule core/src/arch/portable.rs 's/\|x, y\| if x > y \{ x \} else \{ y \}/f32::max/'
sabotage keys_cut_where_the_window_begins core/src/attention/kernel.rs 's/split\.max\(used\.start \/ KEY_TILE \* KEY_TILE\)/split.max(used.start)/'
sabotage middle_where_the_window_begins core/src/attention/mod.rs 's/\(origin \+ KEY_TILE \/ 2\)\.saturating_sub\(first\)/{ let _ = (origin, first); KEY_TILE \/ 2 }/'
sabotage lower_of_a_pair_first core/src/arch/simd.rs 's/let acc = self\.fma\(self\.upper_bf16\(a\), self\.upper_bf16\(b\), acc\);\n(\s*)self\.fma\(self\.lower_bf16\(a\), self\.lower_bf16\(b\), acc\)/let acc = self.fma(self.lower_bf16(a), self.lower_bf16(b), acc);\n$1self.fma(self.upper_bf16(a), self.upper_bf16(b), acc)/'
sabotage keys_beyond_the_length core/src/attention/tiles.rs 's/map_or\(self\.k\.shape\(\)\[2\], \|n\| n\[batch\]\)/map_or(self.k.shape()[2], |_| self.k.shape()[2])/'
sabotage unvalidated_offset core/src/models/weights.rs 's/!= Some\(length\)/== None/'
exit $survived
