// Memory, kernels and passes.
const number = (x, digits = 1) => x == null ? "" : x.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
const bytes = n => n >= 1e9 ? number(n / 1e9) + " GB" : n >= 1e6 ? number(n / 1e6) + " MB" : n >= 1e3 ? number(n / 1e3) + " KB" : `${n} B`;

function memoryView(data) {
  const { nodes, locs, rectangles } = data.arena, W = 1100, H = 460, L = 70, B = 24;
  const top = Math.max(1, ...rectangles.map(r => r.high)), steps = Math.max(nodes.length, 1);
  const X = t => L + (W - L - 10) * t / steps, Y = b => (H - B) - (H - B - 16) * b / top;
  const s = svg("svg", { viewBox: `0 0 ${W} ${H}`, width: "100%", role: "group", "aria-label": "the arena: bytes over time" });
  const use = nodes.map((_, t) => rectangles.filter(r => r.first <= t && t <= r.last).reduce((n, r) => n + r.high - r.low, 0));
  const peak = use.indexOf(Math.max(...use, 0));
  for (let i = 0; i <= 4; i++) {
    s.append(svg("line", { x1: L, x2: W - 10, y1: Y(top * i / 4), y2: Y(top * i / 4), class: "axis" }));
    const t = svg("text", { x: L - 6, y: Y(top * i / 4) + 4, "text-anchor": "end" }); t.textContent = bytes(top * i / 4); s.append(t);
  }
  const marks = [];
  rectangles.forEach((r, i) => {
    const row = data.rows.find(k => k.loc != null && k.loc === locs[r.made_by] && k.operators.includes(r.label.split(":")[0])) ?? data.rows.find(k => k.loc === locs[r.made_by]);
    const box = svg("rect", { x: X(r.first), y: Y(r.high), width: Math.max(X(r.last + 1) - X(r.first), 1), height: Math.max(Y(r.low) - Y(r.high), 1),
      class: phaseClass(row), "fill-opacity": .55, stroke: "currentColor", "stroke-width": .5, tabindex: "0", role: "button", "data-rectangle": i,
      "aria-label": r.label, onclick: () => pick(r), onkeydown: e => e.key === "Enter" && pick(r) });
    const title = svg("title"); title.textContent = `${r.label}\n${bytes(r.high - r.low)} at ${r.low.toLocaleString("en")}, nodes ${r.first} to ${r.last}`;
    box.append(title); s.append(box); marks.push([box, r]);
  });
  const told = el("p", { class: "note", role: "status" }, "Each rectangle is a buffer: its bytes upwards, the nodes during which it is needed across. Choose one to see what it is.");
  function pick(r) { told.textContent = `${r.label}: ${bytes(r.high - r.low)}, from node ${r.first} (${nodes[r.first]}) to ${r.last} (${nodes[r.last]})`;
    if (locs[r.made_by] != null) choose("loc", locs[r.made_by]); }
  s.append(svg("line", { x1: X(peak + .5), x2: X(peak + .5), y1: 10, y2: H - B, class: "roof", "stroke-dasharray": "5 4" }));
  const t = svg("text", { x: Math.min(X(peak) + 6, W - 300), y: 12 }); t.textContent = `peak in use: ${bytes(use[peak] ?? 0)} at node ${peak} (${nodes[peak] ?? ""})`; s.append(t);
  listeners.push(() => marks.forEach(([box, r]) => box.classList.toggle("glow", locs[r.made_by] != null && lights([locs[r.made_by]], []))));
  const live = rectangles.filter(r => r.first <= peak && peak <= r.last).sort((a, b) => (b.high - b.low) - (a.high - a.low));
  return el("div", { class: "scroll" }, el("p", { class: "note" }, data.memory), s, phaseKey(data), told,
    el("h3", {}, "At the peak"), el("table", {}, ...live.slice(0, 40).map(r => el("tr", { tabindex: "0", onclick: () => pick(r), onkeydown: e => e.key === "Enter" && pick(r) },
      el("td", { class: "text" }, r.label), el("td", {}, bytes(r.high - r.low)), el("td", {}, `nodes ${r.first} to ${r.last}`)))));
}

const phaseClass = row => row?.phase ? row.phase.split(" ")[0] : "none";
function phaseKey(data) {
  const names = [...new Set(data.rows.map(r => r.phase).filter(Boolean))];
  return el("p", { class: "note" }, ...names.flatMap(n => [el("span", { class: "key", style: `background:var(--${n.split(" ")[0]})` }), n]));
}

const COLUMNS = [["kernel", "text", r => r.kernel], ["layer", "text", r => r.scope], ["phase", "text", r => r.phase],
  ["line", "text", r => r.loc == null ? "" : placeText(r.loc)], ["calls", "", r => r.calls], ["ms", "", r => r.seconds == null ? null : r.seconds * 1e3, 3],
  ["GFLOP", "", r => r.flops / 1e9, 4], ["MB", "", r => r.bytes / 1e6, 3], ["GFLOP/s", "", r => r.seconds ? r.flops / r.seconds / 1e9 : null],
  ["GB/s", "", r => r.seconds ? r.bytes / r.seconds / 1e9 : null], ["of roofline", "", r => r.share == null ? null : r.share * 100, 0]];

function kernelView(data) {
  const body = el("tbody"), open = new Set();
  let by = data.profile ? 5 : 6, down = true;
  const head = el("tr", {}, ...COLUMNS.map(([name, kind], i) => el("th", { class: kind, scope: "col" },
    el("button", { type: "button", onclick: () => { down = by === i ? !down : kind !== "text"; by = i; fill(); } }, name))));
  function fill() {
    const value = COLUMNS[by][2];
    const rows = data.rows.map((r, i) => [r, i]).sort(([a], [b]) => {
      const x = value(a) ?? -1, y = value(b) ?? -1;
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1); });
    body.replaceChildren(...rows.flatMap(([r, i]) => {
      const number_ = data.kernels.indexOf(r.kernel), lit = lights(r.locs, [number_]);
      const act = () => { open.has(i) ? open.delete(i) : open.add(i); choose("kernel", number_); fill(); };
      const row = el("tr", { tabindex: "0", class: lit ? "lit" : "", "data-kernel": r.kernel, "aria-expanded": open.has(i) ? "true" : "false", onclick: act,
        onkeydown: e => { if (e.key === "Enter") { e.preventDefault(); act(); body.querySelector(`[data-kernel="${r.kernel}"]`)?.focus(); } } },
        ...COLUMNS.map(([name, kind, v, digits]) => el("td", { class: kind, title: kind ? String(v(r)) : null },
          kind || name === "calls" ? String(v(r)) : number(v(r), digits) + (name === "of roofline" && r.share != null ? r.beyond ? " % (in cache)" : " %" : ""))));
      return open.has(i) ? [row, el("tr", { class: "detail" }, el("td", { colspan: COLUMNS.length }, ...kernelDetail(data, r)))] : [row];
    }));
  }
  listeners.push(fill); fill();
  const p = data.profile, measured = data.rows.reduce((n, r) => n + (r.seconds ?? 0), 0);
  const about = p ? `${number(p.seconds * 1e3, 3)} ms for a call (median ${number(p.median * 1e3, 3)}), of which kernels ${number(Math.min(measured, p.seconds) * 1e3, 3)} ms, on ${p.threads} threads; machine: ${number(p.peak, 0)} GFLOP/s, ${number(p.bandwidth, 0)} GB/s, both measured`
    : "No times: the sizes come with the call. explore(path, *arrays) measures with these arrays.";
  return el("div", { class: "scroll" }, el("p", { class: "note" }, about), p ? roofline(data) : null, phaseKey(data),
    el("table", {}, el("thead", {}, head), body), el("h3", {}, "What was not fused, and why"),
    ...(data.unfused.length ? data.unfused.map(u => el("p", { class: "note" }, u.text)) : [el("p", { class: "note" }, "Nothing that could have been.")]));
}

function kernelDetail(data, r) {
  const loops = data.stages.find(s => s.name === "loops");
  const nests = nestOf(loops.text.split("\n"), r.kernel);
  return [el("p", {}, el("b", {}, r.operators), ` ${r.types}`), el("p", {}, r.schedule ? `schedule: ${r.schedule}` : ""),
    ...(r.candidates.length ? r.candidates.map(c => el("pre", {}, c)) : [el("p", { class: "note" }, "Its schedule had no rival.")]),
    el("h4", {}, "Loops"), nests];
}

// The loop nest of a function as boxes, read off the indented text: loops by what they are, the rest counted.
function nestOf(lines, kernel) {
  const start = lines.findIndex(l => l.startsWith(kernel + "("));
  if (start < 0) return el("p", { class: "note" }, "no loops");
  const indent = l => l.length - l.trimStart().length;
  let i = start + 1;
  function block(depth) {
    const out = [], counts = {};
    while (i < lines.length && lines[i].trim() && indent(lines[i]) >= depth) {
      const text = lines[i].trim();
      if (/^(for|parallel|serial|while|if|else)\b.*:$/.test(text)) {
        i++;
        const [inner, held] = block(depth + 1), kind = text.split(/\W/)[0];
        out.push(el("div", { class: "nest " + kind + (/ carry .*x\d+/.test(text) ? " registers" : "") },
          text.length > 160 ? text.slice(0, 160) + "…" : text, el("div", {}, ...inner), held));
      } else {
        const what = text.startsWith("store") ? "stores" : text.startsWith("prefetch") ? "prefetches" : text.startsWith("call ") ? text.split("(")[0]
          : (text.match(/= (\w+)/) ?? [])[1] ?? "other";
        counts[what] = (counts[what] ?? 0) + 1; i++;
      }
    }
    const told = Object.entries(counts).map(([k, n]) => `${n} ${k}`).join(", ");
    return [out, told ? el("div", { class: "note" }, told) : null];
  }
  const [boxes, held] = block(2);
  return el("div", {}, el("p", { class: "note" }, "Thick border: tiles that threads share. Shaded: values carried in vector registers."), ...boxes, held);
}

function roofline(data) {
  const rows = data.rows.filter(r => r.seconds && r.flops && r.bytes), W = 900, H = 300, L = 60, B = 30;
  if (!rows.length) return null;
  const { peak, bandwidth } = data.profile, I = r => r.flops / r.bytes, G = r => r.flops / r.seconds / 1e9;
  const lo = Math.log10(Math.min(.05, ...rows.map(I))), hi = Math.log10(Math.max(100, ...rows.map(I), peak / bandwidth * 4));
  const low = Math.log10(Math.min(peak / 1e4, ...rows.map(G))), high = Math.log10(Math.max(peak, ...rows.map(G)) * 1.5);
  const X = v => L + (W - L - 10) * (Math.log10(v) - lo) / (hi - lo), Y = v => (H - B) - (H - B - 10) * (Math.log10(v) - low) / (high - low);
  const s = svg("svg", { viewBox: `0 0 ${W} ${H}`, width: "100%", style: "max-width:1000px", role: "group", "aria-label": "roofline" });
  for (let e = Math.ceil(lo); e <= hi; e++) { s.append(svg("line", { x1: X(10 ** e), x2: X(10 ** e), y1: 10, y2: H - B, class: "axis" }));
    const t = svg("text", { x: X(10 ** e), y: H - 12, "text-anchor": "middle" }); t.textContent = `${10 ** e} flop/byte`; s.append(t); }
  for (let e = Math.ceil(low); e <= high; e++) { s.append(svg("line", { x1: L, x2: W - 10, y1: Y(10 ** e), y2: Y(10 ** e), class: "axis" }));
    const t = svg("text", { x: L - 5, y: Y(10 ** e) + 4, "text-anchor": "end" }); t.textContent = `${10 ** e} GF/s`; s.append(t); }
  const ridge = peak / bandwidth;
  s.append(svg("path", { class: "roof", d: `M${X(10 ** lo)} ${Y(Math.max(bandwidth * 10 ** lo, 10 ** low))}L${X(ridge)} ${Y(peak)}L${X(10 ** hi)} ${Y(peak)}` }));
  const marks = rows.map(r => {
    const dot = svg("circle", { cx: X(I(r)), cy: Y(G(r)), r: 3 + 9 * Math.sqrt(r.seconds / data.profile.seconds), class: phaseClass(r), "fill-opacity": .7,
      tabindex: "0", role: "button", "aria-label": r.kernel, onclick: () => choose("kernel", data.kernels.indexOf(r.kernel)),
      onkeydown: e => e.key === "Enter" && choose("kernel", data.kernels.indexOf(r.kernel)) });
    const title = svg("title"); title.textContent = `${r.kernel}\n${number(G(r))} GFLOP/s, ${number(r.seconds * 1e3, 3)} ms`; dot.append(title); s.append(dot);
    return [dot, r]; });
  listeners.push(() => marks.forEach(([dot, r]) => dot.classList.toggle("glow", lights(r.locs, [data.kernels.indexOf(r.kernel)]))));
  return s;
}

function passView(data) {
  return el("div", { class: "scroll" }, el("p", { class: "note" }, "What each pass made of the graph, in their order. Numbers of values shift and are not compared."),
    ...data.passes.map(p => {
      const title = `${p.name}: ${p.lines.length ? `${p.before} → ${p.after} nodes` : "nothing to do"}`;
      const body = el("div", { class: "diff" });
      const d = el("details", { "data-pass": p.name, ontoggle: () => { if (d.open && !body.children.length) body.append(...p.lines.map(l =>
        el("div", { class: l[0] === "+" ? "plus" : l[0] === "-" ? "minus" : "" }, l.slice(0, 400))), p.more ? el("div", {}, `… ${p.more} more lines`) : ""); } },
        el("summary", {}, title, el("span", { class: "note" }, ` ${p.about}`)), body);
      return d; }));
}
