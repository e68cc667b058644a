"""The picture of a run of the bench: a bar for each peer and row, from the smallest to the largest window a line. SVG, nothing but text."""

from html import escape

COLOURS = {"weir": "#1f6feb", "weir-baseline": "#79b0ff", "testpmd": "#8b949e", "ovs": "#d29922", "ovs-tuned": "#e3b341"}
MORE = ["#2da44e", "#a371f7", "#db61a2", "#3fb950"]
WIDTH, LEFT, RIGHT, BAR, GAP = 860, 150, 120, 16, 5


def step_for(most):
    """A round distance of grid lines: about six of them."""
    for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        if most / step <= 7:
            return step
    return 200


def svg(result):
    rows = {name: row for name, row in result["rows"].items() if any(p["summary"] for p in row["peers"].values())}
    most = max((p["summary"]["mpps_max"] for row in rows.values() for p in row["peers"].values() if p["summary"]), default=1) or 1
    names = list(result["peers"])
    more = iter(MORE * len(names))
    colour = {n: COLOURS.get(n) or next(more) for n in names}
    step = step_for(most)
    scale = (WIDTH - LEFT - RIGHT) / most
    out, y = [], 56

    def text(x, y, words, anchor="start", size=12, weight="normal", fill="#24292f"):
        out.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>')

    for name, row in rows.items():
        text(10, y, name, size=14, weight="bold")
        text(10 + 9 * len(name) + 12, y, row["title"], fill="#57606a")
        y += 10
        for peer in names:
            s = row["peers"].get(peer, {}).get("summary")
            if not s:
                continue
            mid = y + BAR / 2
            text(LEFT - 8, mid + 4, peer, "end")
            out.append(f'<rect x="{LEFT}" y="{y}" width="{s["mpps"] * scale:.1f}" height="{BAR}" fill="{colour[peer]}"/>')
            out.append(f'<path d="M{LEFT + s["mpps_min"] * scale:.1f} {mid}H{LEFT + s["mpps_max"] * scale:.1f}" stroke="#24292f" stroke-width="2"/>')
            words = f'{s["mpps"]:.1f}'
            if peer != "weir" and row["peers"].get("weir", {}).get("summary") and s["mpps"]:
                words += f' (weir {row["peers"]["weir"]["summary"]["mpps"] / s["mpps"]:.2f}x)'
            if s["limit"] == "generator":
                words += " *"
            text(LEFT + s["mpps_max"] * scale + 6, mid + 4, words)
            y += BAR + GAP
        y += 26
    bottom = y - 20
    grid = []
    n = 0
    while n * step <= most:
        x = LEFT + n * step * scale
        grid.append(f'<path d="M{x:.1f} 40V{bottom}" stroke="#d0d7de"/>')
        grid.append(f'<text x="{x:.1f}" y="{bottom + 16}" font-size="11" text-anchor="middle" fill="#57606a">{n * step:g}</text>')
        n += 1
    m = result["machine"]
    head = (f'<text x="10" y="22" font-size="15" font-weight="bold" fill="#24292f">One worker, million packets a second, both directions together</text>'
            f'<text x="10" y="{bottom + 36}" font-size="11" fill="#57606a">'
            + escape(f'{m["processor"]}, {m["time"][:10]}, commit {m["commit"]}; median of the windows, line: smallest to largest; '
                     '* the generator was the limit') + "</text>")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 46}" font-family="sans-serif">'
            f'<rect width="100%" height="100%" fill="white"/>{head}{"".join(grid)}{"".join(out)}</svg>\n')
