# Sourced by the setup scripts: which Debian this machine is, and where it gets its packages.
# shellcheck shell=sh

debian_release() { (. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_CODENAME:-}"); }

# The mirrors the machine itself uses for its release, from both source formats.
own_mirrors() {
  for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [ -r "$f" ] || continue
    awk -v suite="$1" '
      function emit(  i, j, n, m, u, s) {
        n = split(uris, u, " "); m = split(suites, s, " ")
        if (on) for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) if (s[j] == suite) print u[i]
        uris = suites = ""; on = 1
      }
      BEGIN { on = 1 }
      /^[ \t]*deb[ \t]/ { sub(/\[[^]]*\]/, ""); if ($3 == suite) print $2 }
      /^URIs:/ { uris = substr($0, 6) }
      /^Suites:/ { suites = substr($0, 8) }
      /^Enabled:[ \t]*no/ { on = 0 }
      /^[ \t]*$/ { emit() }
      END { emit() }' "$f"
  done
}

