"""Rows in the schema of all benchmark programs, as a line of text, a table, JSON and a plot."""

import json
import os


def row(case, group, dtype, threads, result, limit, limit_ms, **extra):
    """One row; what is called "limit ..." was timed beside the others and is no peer. Keys after
    pct_of_limit are extras: how many samples passed the gate, errors, what was left out and why."""
    ms = dict(result.ms)
    ms = {name: m for name, m in ms.items() if not name.startswith("limit")}
    own = ms.pop("ours", None)
    best = min(ms, key=ms.get) if ms else None
    return {
        "case": case, "group": group, "dtype": dtype, "threads": threads, "ours_ms": own, "peers_ms": ms,
        "best_peer": best, "ratio": ms[best] / own if best and own else None, "limit": limit,
        "pct_of_limit": 100 * limit_ms / own if own and limit_ms else None,
        "best_peer_pct_of_limit": 100 * limit_ms / ms[best] if best and limit_ms else None,
        "limit_ms": limit_ms, "samples": result.kept,
        "ungated": sorted(name for name, ok in result.gated.items() if not ok), **extra,
    }


def line(r):
    """A row as one line of text."""
    show = lambda x, f: f.format(x) if x is not None else "-"
    peers = ", ".join(f"{n} {m:.3f}" for n, m in sorted(r["peers_ms"].items(), key=lambda p: p[1]))
    marks = f"  [not gated: {', '.join(r['ungated'])}]" if r["ungated"] else ""
    return (f"{r['group']:9s} {r['case']:44s} {r['dtype']:9s} {r['threads']}T  ours {show(r['ours_ms'], '{:9.3f}')} ms"
            f"  {show(r['pct_of_limit'], '{:3.0f}')} % of {r['limit']}  {show(r['ratio'], '{:.2f}')}x best  "
            f"({peers}){marks}")


def memory_row(case, group, dtype, threads, ours_kib, peers_kib, **extra):
    """A row of the group `memory`: KiB that a call allocates above inputs and output. Not a time, so
    the times are null."""
    return {"case": case, "group": group, "dtype": dtype, "threads": threads, "ours_ms": None, "peers_ms": {},
            "best_peer": None, "ratio": None, "limit": None, "pct_of_limit": None, "ours_kib": ours_kib,
            "peers_kib": peers_kib, **extra}


def memory_table(rows):
    """Markdown: what a call allocates."""
    peers = list(dict.fromkeys(n for r in rows for n in r["peers_kib"]))
    out = ["", "| case | dtype | threads | ours KiB | ours KiB a thread | " + " | ".join(f"{n} KiB" for n in peers) + " |",
           "|---|---|---|---|---|" + "---|" * len(peers)]
    for r in rows:
        figures = [f"{r['peers_kib'][n]:.0f}" if n in r["peers_kib"] else "-" for n in peers]
        out.append(f"| {r['case']} | {r['dtype']} | {r['threads']} | {r['ours_kib']:.0f} | "
                   f"{r['ours_kib'] / r['threads']:.0f} | {' | '.join(figures)} |")
    return "\n".join(out)


def table(rows):
    """Markdown, one row a case."""
    memory = [r for r in rows if "ours_kib" in r]
    rows = [r for r in rows if "ours_kib" not in r]
    if not rows:
        return memory_table(memory)
    show = lambda x, f: f.format(x) if x is not None else "-"
    # A call is nanoseconds.
    ms = lambda x: show(x, "{:.3f}" if x is None or x >= 0.1 else "{:.3g}")
    out = ["| group | case | dtype | threads | ours ms | % of limit | limit | best peer | its ms | its % | ratio |",
           "|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        best = r["best_peer"]
        marked = "*" if r.get("ungated") else ""
        out.append(f"| {r['group']} | {r['case']} | {r['dtype']} | {r['threads']} | {ms(r['ours_ms'])}{marked} | "
                   f"{show(r['pct_of_limit'], '{:.0f}')} | {r['limit'] or '-'} | {best or '-'} | "
                   f"{ms(r['peers_ms'].get(best))} | {show(r.get('best_peer_pct_of_limit'), '{:.0f}')} | "
                   f"{show(r['ratio'], '{:.2f}' if (r['ratio'] or 1) >= 0.1 else '{:.3g}')} |")
    if any(r.get("ungated") for r in rows):
        out.append("\n\\* a figure of this row had no sample that passed the gate: the machine was busy.")
    return "\n".join(out) + ("\n" + memory_table(memory) if memory else "")


def write_json(path, rows):
    """Replaces the file; one row a line, so that differences are readable."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".new", "w") as f:
        f.write("[\n" + ",\n".join(" " + json.dumps(r) for r in rows) + "\n]\n")
    os.replace(path + ".new", path)


def plot(path, rows, title):
    """Per cent of the limit: ours and the best peer, one pair of bars a row, a panel a group."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "dgm"
    rows = [r for r in rows if r["pct_of_limit"] is not None or r.get("best_peer_pct_of_limit") is not None]
    groups = list(dict.fromkeys(r["group"] for r in rows))
    if not groups:
        return
    sizes = [sum(r["group"] == g for r in rows) + 1.5 for g in groups]
    figure, panels = plt.subplots(len(groups), 1, figsize=(11, 0.32 * sum(sizes) + 1.5 + len(groups) * 0.4), squeeze=False,
                                  gridspec_kw={"height_ratios": sizes}, layout="constrained")
    for panel, group in zip(panels[:, 0], groups):
        chosen = [r for r in rows if r["group"] == group][::-1]
        places = range(len(chosen))
        panel.barh([y + 0.2 for y in places], [r["pct_of_limit"] or 0 for r in chosen], 0.4, color="#1f6f8b", label="DGMKernels")
        panel.barh([y - 0.2 for y in places], [r.get("best_peer_pct_of_limit") or 0 for r in chosen], 0.4,
                   color="#c9ada7", label="best peer")
        for y, r in zip(places, chosen):
            if r["best_peer"]:
                panel.text(min(r.get("best_peer_pct_of_limit") or 0, 85) + 0.5, y - 0.2, r["best_peer"], va="center",
                           fontsize=6, clip_on=True)
        panel.set_yticks(list(places), [f"{r['case']} {r['dtype']} {r['threads']}T" for r in chosen], fontsize=7)
        panel.set_xlim(0, 100)
        panel.set_title(group, fontsize=9, loc="left")
        panel.grid(axis="x", alpha=0.3)
    panels[0, 0].legend(loc="lower right", fontsize=7)
    panels[-1, 0].set_xlabel("% of the limit measured in the same run (FMA peak; reading memory for decode)")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, metadata={"Date": None})


def main():
    """`python -m harness.report IN OUT`: IN as run.py leaves it; writes OUT.json, .about.json, .md, .svg."""
    import sys

    source, out = sys.argv[1:]
    with open(source) as f:
        data = json.load(f)
    rows, about = data["rows"], data["about"]
    print(table(rows))
    write_json(out + ".json", rows)
    with open(out + ".about.json", "w") as f:
        json.dump(about, f, indent=1)
        f.write("\n")
    name = os.path.basename(out)
    with open(out + ".md", "w") as f:
        f.write(f"# {name} beside its peers\n\n`make peers-{name}`; see benches/README.md. Versions and limits: "
                f"{name}.about.json.\n\n{table(rows)}\n")
    limits = ", ".join(f"{x['threads']}T f32 {x['fma_f32_gflops']:.0f}, bf16 {x['fma_bf16_gflops']:.0f} GFLOP/s"
                       for x in about["limits"])
    plot(out + ".svg", rows, f"{name} on {about['machine']} ({limits})")
    print(f"\nwritten: {out}.json, .about.json, .md, .svg")


if __name__ == "__main__":
    main()
