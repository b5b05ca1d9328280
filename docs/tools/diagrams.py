"""Draws docs/diagrams/*.svg: `python -m docs.tools.diagrams` writes them, and a test says when they are not current.

One rule: the same data make the same bytes. A drawing brings its own ground, so that it reads on any page, takes dark
colours where the reader's system has them, and uses whatever fonts are there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from docs.tools.walks import WALKS, Hop, Packet, Walk, address, mac

FOLDER = Path(__file__).parents[1] / "diagrams"
STYLE = """
.ground{fill:#fbfbfd;stroke:#c9ced6}.box{fill:#e8eef7;stroke:#4a6fa5}.own{fill:#e3f3ec;stroke:#2f7d5b}
.line{stroke:#8a94a3;stroke-dasharray:3 5}.arrow{stroke:#25364d;stroke-width:2;fill:none}.head{fill:#25364d}
.way{stroke:#2f7d5b}.wayhead{fill:#2f7d5b}.dot{fill:#25364d}.waydot{fill:#2f7d5b}.num{fill:#fff;font-weight:700}
text{fill:#1d2733;font-family:ui-sans-serif,system-ui,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}
.soft{fill:#55606f}.new{fill:#b3261e;font-weight:700}.strong{font-weight:700}
@media (prefers-color-scheme:dark){.ground{fill:#1b2029;stroke:#3b4452}.box{fill:#26344a;stroke:#7fa3d8}
.own{fill:#1f3a30;stroke:#6fc3a0}.line{stroke:#6b7585}.arrow{stroke:#c8d3e3}.head,.dot{fill:#c8d3e3}.num{fill:#10141a}
.way{stroke:#6fc3a0}.wayhead,.waydot{fill:#6fc3a0}text{fill:#e6ebf2}.soft{fill:#a5b0bf}.new{fill:#ff9c92}}
""".replace("\n", "")
SPACE, MARGIN = 380, 130


@dataclass(slots=True)
class Drawing:
    """Pieces of SVG, and how large all of it is. `said` is read to who does not see it."""

    title: str
    said: str
    width: int
    height: int = 0
    pieces: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, style: str = "", size: int = 14, anchor: str = "middle") -> None:
        """Words, as they are."""
        self.marked(x, y, escape(words), style, size, anchor)

    def marked(self, x: float, y: float, markup: str, style: str = "", size: int = 14, anchor: str = "middle") -> None:
        """Words with tspans in them."""
        named = f' class="{style}"' if style else ""
        self.pieces.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{named}>{markup}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, style: str = "box") -> None:
        """A rectangle with round corners."""
        self.pieces.append(f'<rect class="{style}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>')

    def arrow(self, x: float, y: float, to_x: float, to_y: float, *, back: bool = False) -> None:
        """A line with a head at its end; `back` is the way of answers."""
        length = ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5
        along, across = ((to_x - x) / length, (to_y - y) / length), (-(to_y - y) / length, (to_x - x) / length)
        end = (to_x - 9 * along[0], to_y - 9 * along[1])
        corners = [(to_x, to_y), *((end[0] + side * 5 * across[0], end[1] + side * 5 * across[1]) for side in (1, -1))]
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in corners)
        line, head = ("arrow way", "wayhead") if back else ("arrow", "head")
        self.pieces.append(f'<path class="{line}" d="M{x:g} {y:g}L{end[0]:.1f} {end[1]:.1f}"/>')
        self.pieces.append(f'<polygon class="{head}" points="{points}"/>')

    def svg(self) -> str:
        """All of it."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-labelledby="title desc">\n'
            f'<title id="title">{escape(self.title)}</title>\n<desc id="desc">{escape(self.said)}</desc>\n'
            f"<style>{STYLE}</style>\n"
            f'<rect class="ground" x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="8"/>\n'
            + "\n".join(self.pieces)
            + "\n</svg>\n"
        )


# packet walks


def walk(drawn: Walk) -> Drawing:
    """Who sends what to whom, from the top down."""
    columns = {"client": MARGIN, "director": MARGIN + SPACE, drawn.real_server: MARGIN + 2 * SPACE}
    drawing = Drawing(f"{drawn.title}: the way of a packet", in_words(drawn), 2 * MARGIN + 2 * SPACE)
    for name, x in columns.items():
        _host(drawing, drawn, name, x)
    top = 118
    before: dict[str, Packet] = {}
    for number, hop in enumerate(drawn.hops, start=1):
        y = top + 48 + (22 if hop.outer else 0)
        _hop(drawing, number, hop, columns, y, before)
        top = y + 52
    drawing.height = top + 8
    lines = [f'<path class="line" d="M{x} 92V{drawing.height - 16}"/>' for x in columns.values()]
    drawing.pieces[:0] = lines
    return drawing


def _host(drawing: Drawing, drawn: Walk, name: str, x: float) -> None:
    role = {"client": "client", "director": "director"}.get(name, f"real server: {name}")
    drawing.box(x - 118, 14, 236, 78, "own" if name == drawn.real_server else "box")
    drawing.text(x, 34, role, "strong", 15)
    if name == "director":
        lines = [f"VIP {drawn.vip}"]
        lines += [f"lan {address(name, 'lan')}", f"inside {address(name, 'inside')}"]
    elif name == "client":
        lines = [f"lan {address(name, 'lan')}"]
    else:
        on = {"dr": " on lo", "tun": " on its tunnel"}.get(drawn.forward)
        lines = [f"{drawn.real_network} {address(name, drawn.real_network)}"]
        lines += [f"VIP {drawn.vip}{on}"] if on else []
        lines += ["gateway: the director"] if drawn.forward == "nat" else []
    for at, line in enumerate(lines):
        drawing.text(x, 52 + 16 * at, line, "mono soft", 12)


def _hop(drawing: Drawing, number: int, hop: Hop, columns: dict[str, int], y: float, before: dict[str, Packet]) -> None:
    start, end = columns[hop.sender], columns[hop.receiver]
    back = end < start
    step = 1 if end > start else -1
    drawing.arrow(start + step * 14, y, end - step * 3, y, back=back)
    style = "waydot" if back else "dot"
    drawing.pieces.append(f'<circle class="{style}" cx="{start}" cy="{y}" r="12"/>')
    drawing.text(start, y + 5, str(number), "num", 13)
    middle = (start + end) / 2 if abs(end - start) == SPACE else end + SPACE / 2
    known = before.get("back" if back else "there")
    drawing.marked(middle, y - 10, _addresses(hop.packet, known), "mono", 14)
    if hop.outer is not None:
        outer = f"{hop.outer.source} → {hop.outer.destination}"
        drawing.marked(middle, y - 32, f'outer <tspan class="new">{escape(outer)}</tspan>', "mono", 14)
    drawing.text(
        middle, y + 19, f"MAC {mac(hop.sender, hop.network)} → {mac(hop.receiver, hop.network)}", "mono soft", 12
    )
    drawing.text(middle, y + 36, hop.note, "soft", 12)
    before["back" if back else "there"] = hop.packet


def _addresses(packet: Packet, before: Packet | None) -> str:
    """What is not as it was one hop before is marked."""

    def each(now: str, then: str | None) -> str:
        return f'<tspan class="new">{escape(now)}</tspan>' if then not in {None, now} else escape(now)

    source = each(packet.source, before.source if before else None)
    return f"{source} → {each(packet.destination, before.destination if before else None)}"


def in_words(drawn: Walk) -> str:
    """The same for who reads, or hears, no picture."""
    said = []
    for number, hop in enumerate(drawn.hops, start=1):
        outer = f", wrapped in {hop.outer.source} to {hop.outer.destination}" if hop.outer else ""
        said.append(
            f"{number}. {hop.sender} to {hop.receiver}: "
            f"{hop.packet.source} to {hop.packet.destination}{outer}; {hop.note}."
        )
    return " ".join(said)


# the two tiers, and how a weight comes about


def tiers() -> Drawing:
    """Who talks to whom."""
    said = (
        "Clients connect to a VIP on the director, whose kernel forwards packets to one of two l7proxy. Each l7proxy "
        "sends requests to backends. With DR, answers go from l7proxy to the client and do not pass the director."
    )
    drawing = Drawing("Two tiers", said, 900, 300)
    drawing.box(20, 110, 130, 70)
    drawing.text(85, 150, "clients", "strong", 15)
    drawing.box(230, 100, 170, 90)
    drawing.text(315, 128, "director", "strong", 15)
    drawing.text(315, 150, "layer 4: IPVS in the", "soft", 12)
    drawing.text(315, 166, "kernel, packets", "soft", 12)
    drawing.arrow(150, 145, 228, 145)
    drawing.text(189, 136, "VIP", "mono", 12)
    for number, y in enumerate((60, 180), start=1):
        drawing.box(480, y, 170, 66, "own")
        drawing.text(565, y + 27, f"l7proxy {number}", "strong", 15)
        drawing.text(565, y + 47, "layer 7: requests", "soft", 12)
        drawing.arrow(400, 145, 478, y + 33)
        for at in (30, 120, 210):
            drawing.arrow(650, y + 33, 738, at + (19 if number == 1 else 35))
    for number, at in enumerate((30, 120, 210), start=1):
        drawing.box(740, at, 140, 54)
        drawing.text(810, at + 32, f"backend {number}", "strong", 15)
    drawing.pieces.append('<path class="arrow way" d="M565 60V32H85V101"/>')
    drawing.pieces.append('<path class="arrow way" d="M565 246V272H85V189"/>')
    drawing.pieces.append('<polygon class="wayhead" points="85,110 80,101 90,101"/>')
    drawing.pieces.append('<polygon class="wayhead" points="85,180 80,189 90,189"/>')
    drawing.text(320, 24, "answers, with DR: straight to the client", "soft", 12)
    return drawing


def weights() -> Drawing:
    """From a probe to the kernel."""
    said = (
        "Probes of a real server give results; rise and fall turn results into a verdict, up or down. The verdict, the "
        "file's weight, the operator's wish, slow start and the agent's share give one weight. The reconcile loop "
        "compares it with the kernel's table and writes what differs."
    )
    drawing = Drawing("From a probe to a weight", said, 900, 200)
    steps = [
        ("probes", ("tcp, http, dns, ...", "every interval")),
        ("verdict", ("rise, fall, flap:", "up or down")),
        ("weight", ("one rule after the", "other: one number")),
        ("reconcile", ("compare, write,", "read again")),
        ("kernel", ("the IPVS table", "forwards packets")),
    ]
    for at, (name, lines) in enumerate(steps):
        x = 20 + 178 * at
        drawing.box(x, 20, 146, 80, "own" if name in {"weight"} else "box")
        drawing.text(x + 73, 44, name, "strong", 15)
        for row, line in enumerate(lines):
            drawing.text(x + 73, 66 + 16 * row, line, "soft", 12)
        if at:
            drawing.arrow(x - 32, 60, x - 2, 60)
    inputs = [
        "weight and state in the file",
        "the operator: drain, weight, maintenance",
        "slow start; what an agent asks for",
    ]
    for row, line in enumerate(inputs):
        drawing.text(449, 138 + 19 * row, line, "", 13)
    drawing.arrow(449, 122, 449, 103)
    drawing.text(20, 150, "director explain", "mono", 12, "start")
    drawing.text(20, 167, "tells each step of this", "soft", 12, "start")
    return drawing


def drawings() -> dict[str, str]:
    """Every file with what is in it."""
    found = {f"walk-{each.forward}.svg": walk(each).svg() for each in WALKS}
    return {**found, "tiers.svg": tiers().svg(), "weights.svg": weights().svg()}


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, svg in drawings().items():
        (FOLDER / name).write_text(svg)


if __name__ == "__main__":
    main()
