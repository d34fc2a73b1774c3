// The graph as a picture whose clusters open and close. dagre lays out what is visible.
const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes = {}, ...children) {
  const e = document.createElementNS(SVG, tag);
  for (const [k, v] of Object.entries(attributes)) k.startsWith("on") ? e.addEventListener(k.slice(2), v) : e.setAttribute(k, v);
  e.append(...children);
  return e;
}
const OPEN_AT_FIRST = 60;           // vertices
const MOST = 700;                   // vertices that are drawn

class GraphPicture {
  constructor(data) {
    this.data = data; this.open = new Set(); this.parent = {}; this.items = {};
    const walk = (cluster) => { for (const i of cluster.items) {
      this.parent[i.name] = cluster.name; this.items[i.name] = i; if (i.items) walk(i); } };
    walk(data.root); this.open.add(data.root.name);
    const sizes = c => c.items.reduce((n, i) => n + (i.items ? sizes(i) : 1), 0);
    if (sizes(data.root) <= OPEN_AT_FIRST) for (const n in this.items) if (this.items[n].items) this.open.add(n);
    for (const i of data.root.items) if (i.kind === "phase") /backward|update/.test(i.label) ? this.open.delete(i.name) : this.open.add(i.name);
    this.canvas = svg("svg", { role: "group", "aria-label": "the graph" });
    this.root = el("div", { class: "scroll", tabindex: "0" }, this.canvas);
    listeners.push(() => this.glow());
  }
  // the outermost closed cluster around an item, or the item
  shown(name) {
    let seen = name;
    for (let at = name; at != null; at = this.parent[at]) if (this.items[at]?.items && !this.open.has(at)) seen = at;
    return seen;
  }
  locs(item) { return item.items ? item.items.flatMap(i => this.locs(i)) : item.locs; }
  draw() {
    const g = new dagre.graphlib.Graph({ compound: true, multigraph: true });
    g.setGraph({ rankdir: "TB", nodesep: 14, ranksep: 26, marginx: 10, marginy: 10 });
    g.setDefaultEdgeLabel(() => ({}));
    let count = 0;
    const place = (cluster, parent) => { for (const i of cluster.items) {
      const open = i.items && this.open.has(i.name);
      if (!open && ++count > MOST) continue;
      const lines = i.items ? [(open ? "− " : "+ ") + (i.label || i.kind)] : i.lines;
      const width = Math.min(Math.max(...lines.map(l => l.length)) * 6.3, 320) + 16;
      g.setNode(i.name, open ? { label: lines[0] } : { width, height: 14 * lines.length + 8, lines });
      if (parent) g.setParent(i.name, parent);
      if (open) place(i, i.name);
    } };
    place(this.data.root, null);
    const seen = new Set(), back = [];
    for (const [tail, head, kind] of this.data.edges) {
      const a = this.shown(tail), b = this.shown(head), key = `${a} ${b} ${kind}`;
      if (a === b || seen.has(key) || !g.hasNode(a) || !g.hasNode(b) || g.children(a).length || g.children(b).length) continue;
      seen.add(key);
      if (kind === "carry") back.push([a, b]); else g.setEdge(a, b, {}, key);
    }
    dagre.layout(g);
    this.paint(g, back, count > MOST ? count - MOST : 0);
  }
  paint(g, back, hidden) {
    const { width = 10, height = 10 } = g.graph();
    this.canvas.replaceChildren();
    this.canvas.setAttribute("width", Math.ceil(width) + 4); this.canvas.setAttribute("height", Math.ceil(height) + 4);
    this.drawn = {};
    const depth = n => { let d = 0; for (let at = this.parent[n]; at != null; at = this.parent[at]) d++; return d; };
    const names = g.nodes().filter(n => g.node(n)).sort((a, b) => depth(a) - depth(b));
    for (const n of names) if (this.items[n].items && this.open.has(n)) this.box(n, g.node(n), true);
    for (const e of g.edges()) {
      const d = g.edge(e).points.map((p, i) => `${i ? "L" : "M"}${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("");
      this.canvas.append(svg("path", { d, class: "edge" }));
    }
    for (const [a, b] of back) {        // to the next step or run: no part of the layout
      const p = g.node(a), q = g.node(b), side = Math.max(p.x, q.x) + 60;
      this.canvas.append(svg("path", { d: `M${p.x} ${p.y}C${side} ${p.y} ${side} ${q.y} ${q.x} ${q.y}`, class: "edge carry" }));
    }
    for (const n of names) if (!(this.items[n].items && this.open.has(n))) this.box(n, g.node(n), false);
    if (hidden) this.canvas.append(svg("text", { x: 10, y: 14 }, `${hidden} more are not drawn: close a cluster`));
    this.glow();
  }
  box(name, at, cluster) {
    const item = this.items[name], x = at.x - at.width / 2, y = at.y - at.height / 2;
    const act = () => item.items ? this.toggle(name) : item.locs.length && choose("loc", item.locs[0]);
    const group = svg("g", { tabindex: "0", role: "button", "data-node": name,
      "aria-label": item.items ? `${item.label || item.kind}, ${cluster ? "open" : "closed"}` : item.lines.join(", "),
      onclick: e => { e.stopPropagation(); act(); }, onkeydown: e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); act(); } } });
    group.append(svg("rect", { x, y, width: Math.max(at.width, 1), height: Math.max(at.height, 1), rx: 4,
      class: (cluster ? "cluster box " : "box ") + item.kind + (item.kind === "phase" ? " " + item.label : "") }));
    const title = svg("title"); title.textContent = item.items ? item.label : item.tip || item.lines[0]; group.append(title);
    const lines = cluster ? [at.label] : at.lines;
    lines.forEach((l, i) => { const t = svg("text", { x: x + 7, y: y + 14 + 14 * i }); t.textContent = l.length > 50 ? l.slice(0, 50) + "…" : l; group.append(t); });
    this.canvas.append(group); this.drawn[name] = group;
  }
  toggle(name) {
    this.open.has(name) ? this.open.delete(name) : this.open.add(name);
    this.draw();
    this.drawn[name]?.focus();
  }
  glow() {
    for (const n in this.drawn ?? {}) {
      const item = this.items[n], open = item.items && this.open.has(n);
      const locs = open ? [] : this.locs(item);
      const lit = chosen.kind === "kernel" ? kernelLocs(chosen.number).some(l => locs.includes(l)) : lights(locs, []);
      this.drawn[n].classList.toggle("glow", lit);
    }
  }
}
