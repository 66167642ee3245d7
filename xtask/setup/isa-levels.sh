#!/bin/sh
# The values of DGM_ISA that this machine can run, one a line.
echo portable
case $(uname -m) in
  arm64 | aarch64) echo neon ;;
  x86_64)
    flags=" $(grep -m1 '^flags' /proc/cpuinfo 2>/dev/null ||
      sysctl -n machdep.cpu.features machdep.cpu.leaf7_features 2>/dev/null | tr 'A-Z\n' 'a-z ') "
    case $flags in *' avx2 '*) case $flags in *' fma '*) echo avx2 ;; esac ;; esac
    case $flags in *' avx512f '*) case $flags in *' avx512dq '* | *' avx512vl '*) echo avx512 ;; esac ;; esac
    ;;
esac
