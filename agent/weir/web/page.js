"use strict";
// Draws a picture (weir/views/graph.py), of a file or of a live agent, with nothing but the browser: plots, map, table. Text goes in by textContent only.

const SVG = "http://www.w3.org/2000/svg";
const STEPS = ["B", "kB", "MB", "GB", "TB", "PB"];
const $ = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "rect", "text", "line", "title"].includes(name);
  const element = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const cut = (text, most) => ([...text].length > most ? [...text].slice(0, most - 1).join("") + "…" : text);
const full = (node) => (node.namespace ? `${node.namespace}/${node.name}` : node.name);
const three = (value) => (value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0));

function bytes(value) {
  let step = 0;
  while (value >= 999.5 && step < STEPS.length - 1) { value /= 1000; step += 1; }
  return step ? `${three(value)} ${STEPS[step]}` : `${Math.round(value)} B`;
}
const count = (value) => Math.round(value).toLocaleString("en");
const rate = (value) => (value >= 1000 ? count(value) : three(value));
function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds >= 1) return `${three(seconds)} s`;
  return seconds >= 1e-3 ? `${three(seconds * 1e3)} ms` : `${three(seconds * 1e6)} µs`;
}
function success(link) {
  const known = link.requests - link.unknown;
  return known > 0 ? 1 - link.failures / known : null;
}
const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(2)} %`);
const troubled = (link) => link.failures > 0 || link.failed > 0;
const SLOW = [0.01, 0.1, 1]; // seconds: bounds of the colours of latency
const tried = (link) => link.opened + link.failed;

// -- plots

function chart(title, seconds, lines, format) {
  const width = 380, height = 150, left = 72, bottom = 22, top = 8;
  const most = Math.max(...lines.flatMap((line) => line.values), 0) || 1;
  const end = seconds[seconds.length - 1] || 1;
  const x = (at) => left + (width - left - 6) * (at / end);
  const y = (value) => height - bottom - (height - bottom - top) * (value / most);
  const said = lines.map((line) => `${line.name} at most ${format(Math.max(...line.values, 0))}`).join(", ");
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${said}` });
  for (const part of [0, 0.5, 1]) {
    svg.append(make("line", { class: "axis", x1: left, x2: width - 6, y1: y(most * part), y2: y(most * part) }));
    svg.append(make("text", { class: "axis-text", x: left - 5, y: y(most * part) + 4, "text-anchor": "end" }, format(most * part)));
    const anchor = ["start", "middle", "end"][part * 2];
    svg.append(make("text", { class: "axis-text", x: x(end * part), y: height - 6, "text-anchor": anchor }, `${Math.round(end * part)} s`));
  }
  for (const line of seconds.length ? lines : []) {
    const from = line.values.map((value, at) => `${x(at ? seconds[at - 1] : 0).toFixed(1)},${y(value).toFixed(1)} ${x(seconds[at]).toFixed(1)},${y(value).toFixed(1)}`);
    svg.append(make("path", { class: `plot ${line.colour}`, d: `M${from.join(" L")}` }, make("title", {}, line.name)));
  }
  return make("figure", {}, make("figcaption", {}, title), svg);
}

function series(picture, links, column) {
  const sums = picture.seconds.map(() => 0);
  for (const link of links) for (const step of link.steps) sums[step[0]] += step[column];
  return sums.map((sum, at) => sum / (picture.seconds[at] - (at ? picture.seconds[at - 1] : 0) || 1));
}

function charts(picture, links) {
  $("charts").replaceChildren(
    chart("Bytes per second, both ways", picture.seconds, [{ name: "bytes", colour: "c1", values: series(picture, links, 1) }], (v) => `${bytes(v)}/s`),
    chart("Requests per second", picture.seconds, [{ name: "requests", colour: "c2", values: series(picture, links, 2) }], rate),
    chart("Failed requests per second", picture.seconds, [{ name: "failures", colour: "c3", values: series(picture, links, 3) }], rate),
  );
}

function tiles(picture, links) {
  const sum = (name) => links.reduce((all, link) => all + link[name], 0);
  const last = picture.seconds[picture.seconds.length - 1] || 0;
  const known = sum("requests") - sum("unknown");
  const rows = [
    ["Bytes", bytes(sum("sent") + sum("received"))],
    ["Per second", last ? `${bytes((sum("sent") + sum("received")) / last)}/s` : "–"],
    ["Connections opened", count(sum("opened"))],
    ["Connects failed", count(sum("failed"))],
    ["Requests", count(sum("requests"))],
    ["Success rate", percent(known > 0 ? 1 - sum("failures") / known : null)],
    ["Segments sent again", count(sum("retransmitted"))],
    ["Resets", count(sum("resets"))],
  ];
  $("tiles").replaceChildren(...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

// -- map

const BOX = { width: 190, height: 36, across: 310, down: 50, rows: 24, points: 200 };

// Levels by the longest way from who is called by nobody; what closes a circle does not count.
function levels(count_, links) {
  const next = Array.from({ length: count_ }, () => []), before = Array.from({ length: count_ }, () => []);
  const state = new Uint8Array(count_), order = [];
  for (const [from, to] of links) next[from].push(to);
  const called = new Set(links.map(([, to]) => to));
  const roots = [...Array(count_).keys()].sort((one, two) => called.has(one) - called.has(two) || one - two);
  for (const root of roots) {
    if (state[root]) continue;
    const path = [[root, 0]];
    state[root] = 1;
    while (path.length) {
      const top = path[path.length - 1];
      const to = next[top[0]][top[1]++];
      if (to === undefined) { state[top[0]] = 2; order.push(top[0]); path.pop(); continue; }
      if (state[to] === 1) continue;
      before[to].push(top[0]);
      if (!state[to]) { state[to] = 1; path.push([to, 0]); }
    }
  }
  const level = new Array(count_).fill(0);
  for (const node of order.reverse()) for (const from of before[node]) level[node] = Math.max(level[node], level[from] + 1);
  return level;
}

// Places of nodes, and the points that a link between far levels goes through: there it has a row of its own. A column
// is ordered by the mean place of its neighbours. Large maps do without such points, and wrap their columns.
function layout(count_, links) {
  const level = levels(count_, links), through = new Map(), near = Array.from({ length: count_ }, () => []);
  const wide = Math.max(...level.reduce((sizes, at) => { sizes[at] = (sizes[at] || 0) + 1; return sizes; }, [])) > BOX.rows;
  let room = wide ? 0 : BOX.points;
  for (const [from, to] of links) {
    const [left, right] = level[from] <= level[to] ? [from, to] : [to, from], points = [];
    if (level[right] - level[left] - 1 <= room) {
      for (let at = level[left] + 1; at < level[right]; at += 1) { points.push(level.length); level.push(at); near.push([]); room -= 1; }
    }
    const chain = [left, ...points, right];
    for (let at = 1; at < chain.length; at += 1) { near[chain[at]].push(chain[at - 1]); near[chain[at - 1]].push(chain[at]); }
    through.set(`${from} ${to}`, left === from ? points : points.reverse());
  }
  const columns = [];
  level.forEach((at, node) => (columns[at] ??= []).push(node));
  const place = new Array(level.length).fill(0);
  const settle = (column) => column.forEach((node, at) => { place[node] = at - column.length / 2; });
  columns.forEach(settle);
  for (let sweep = 0; sweep < 8; sweep += 1) {
    const step = sweep % 2 ? -1 : 1; // to the right, to the left
    for (const column of sweep % 2 ? [...columns].reverse() : columns) {
      const means = new Map(column.map((node) => {
        const others = near[node].filter((other) => (level[other] - level[node]) * step < 0);
        return [node, others.length ? others.reduce((all, other) => all + place[other], 0) / others.length : place[node]];
      }));
      column.sort((one, two) => means.get(one) - means.get(two) || one - two);
      settle(column);
    }
  }
  const spots = [];
  let x = 0;
  for (const column of columns) {
    const stacks = Math.ceil(column.filter((node) => node < count_).length / BOX.rows) || 1, rows = Math.ceil(column.length / stacks);
    for (let stack = 0; stack < stacks; stack += 1) {
      const part = column.slice(stack * rows, (stack + 1) * rows), tall = (node) => (node < count_ ? BOX.down : BOX.down / 2);
      let y = -part.reduce((all, node) => all + tall(node), 0) / 2;
      for (const node of part) { spots[node] = { x: x + stack * (BOX.width + 30), y }; y += tall(node); }
    }
    x += (stacks - 1) * (BOX.width + 30) + BOX.across;
  }
  return { spots, points: (from, to) => (through.get(`${from} ${to}`) || []).map((point) => spots[point]) };
}

function bend(x1, y1, x2, y2) {
  const by = Math.max(50, Math.abs(x2 - x1) / 2) * (x2 < x1 && Math.abs(x2 - x1) < BOX.width ? 1 : Math.sign(x2 - x1) || 1);
  return `C${x1 + by} ${y1} ${x2 - by} ${y2} ${x2} ${y2}`;
}

function curve(a, b, points) {
  const middle = BOX.height / 2;
  if (a === b) return `M${a.x + BOX.width} ${a.y + middle} c40 -50 -${BOX.width + 40} -50 -${BOX.width} 0`;
  let x = a.x + BOX.width, y = a.y + middle, d = `M${x} ${y}`;
  for (const point of points) {
    const [enter, leave] = point.x > x ? [point.x, point.x + BOX.width] : [point.x + BOX.width, point.x], level = point.y + BOX.down / 4;
    d += ` ${bend(x, y, enter, level)} L${leave} ${level}`;
    x = leave;
    y = level;
  }
  return `${d} ${bend(x, y, b.x, b.y + middle)}`;
}

const view = { x: 0, y: 0, scale: 1, width: 1, height: 1, moved: false };
let group = null, svg = null;

function move() {
  group.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.scale})`);
}

function zoom(by, x = view.width / 2, y = view.height / 2) {
  const scale = Math.min(4, Math.max(0.02, view.scale * by));
  view.x = x - (x - view.x) * (scale / view.scale);
  view.y = y - (y - view.y) * (scale / view.scale);
  view.scale = scale;
  view.moved = true;
  move();
}

function fit() {
  const room = svg.getBoundingClientRect(), box = group.getBBox();
  view.width = room.width;
  view.height = room.height;
  view.scale = Math.min(1.2, (room.width - 30) / (box.width || 1), (room.height - 30) / (box.height || 1));
  view.x = (room.width - box.width * view.scale) / 2 - box.x * view.scale;
  view.y = (room.height - box.height * view.scale) / 2 - box.y * view.scale;
  move();
}

// What is picked stands out, with what ``near`` names; the rest steps back.
function pickable(element, label, near, picked) {
  element.setAttribute("tabindex", "0");
  element.setAttribute("role", "button");
  element.setAttribute("aria-label", label);
  const pick = () => {
    for (const other of group.querySelectorAll(".picked, .near")) other.classList.remove("picked", "near");
    group.classList.add("focused");
    element.classList.add("picked");
    for (const other of near()) other.classList.add("near");
    picked();
  };
  element.addEventListener("click", pick);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); }
  });
  return element;
}

// Links between the same two ends are one line, whatever their ports.
function bundles(links) {
  const found = new Map();
  for (const link of links) {
    const key = `${link.source} ${link.destination}`;
    if (!found.has(key)) found.set(key, { source: link.source, destination: link.destination, links: [] });
    found.get(key).links.push(link);
  }
  return [...found.values()];
}

function drawMap(picture, links, same) {
  const names = picture.nodes.map((node) => `${full(node)} ${node.kind}`), before = group;
  const [picked, focused] = [before && before.querySelector(".picked"), document.activeElement].map((one) => one && before && before.contains(one) && one.dataset.key);
  const used = [...new Set(links.flatMap((link) => [link.source, link.destination]))].sort((a, b) => compared(names[a], names[b]));
  const number = new Map(used.map((node, at) => [node, at]));
  const lines = bundles(links), apart = lines.filter((line) => line.source !== line.destination);
  const numbered = apart.map((line) => [number.get(line.source), number.get(line.destination)]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const { spots, points } = layout(used.length, numbered);
  const spot = (node) => spots[number.get(node)];
  const labels = [];
  group = make("g");
  const most = Math.max(1, ...lines.map((line) => line.links.reduce((all, link) => all + link.sent + link.received, 0)));
  const elements = new Map(), drawn = []; // by node; by line
  for (const line of lines.sort((one, two) => one.links.some(troubled) - two.links.some(troubled))) {
    const moved = line.links.reduce((all, link) => all + link.sent + link.received, 0);
    const width = 1 + 6 * (Math.log1p(moved) / Math.log1p(most));
    const [from, to] = [picture.nodes[line.source], picture.nodes[line.destination]];
    const d = curve(spot(line.source), spot(line.destination), points(number.get(line.source), number.get(line.destination)));
    const asked = line.links.reduce((all, link) => all + link.requests, 0), failures = line.links.reduce((all, link) => all + link.failures, 0);
    const refused = line.links.reduce((all, link) => all + link.failed, 0), attempts = line.links.reduce((all, link) => all + tried(link), 0);
    const bad = line.links.some(troubled), slowest = Math.max(...line.links.map((link) => link.p99 ?? -1));
    const late = $("colour").value === "latency", step = SLOW.filter((bound) => slowest >= bound).length;
    const look = late ? (slowest < 0 ? "link" : `link took${step}`) : bad ? "link failing" : "link";
    const element = make("g", { class: look, "data-key": `${names[line.source]} ${names[line.destination]}` }, make("path", { class: "hit", d }), make("path", { class: "seen", d, "stroke-width": width.toFixed(1) }));
    let said = `${cut(full(from), 80)} to ${cut(full(to), 80)}, ${bytes(moved)}`;
    if (bad) {
      const share = failures ? `${percent(failures / asked)} of requests failed` : `${percent(refused / attempts)} of connects failed`;
      said += `, ${share}`;
      if (!late) labels.push([element, `${percent(failures ? failures / asked : refused / attempts)} failed`, "failed"]);
    }
    if (slowest >= 0) said += `, 99 of 100 requests within ${duration(slowest)}`;
    if (late && slowest >= 0) labels.push([element, duration(slowest), "late"]);
    drawn.push([line, element]);
    group.append(pickable(element, said, () => [elements.get(line.source), elements.get(line.destination)],
      () => showLinks(picture, `${full(from)} → ${full(to)}`, line.links)));
  }
  for (const node of used) {
    const { x, y } = spot(node), { name, namespace, kind } = picture.nodes[node];
    const element = make("g", { class: "node", "data-key": names[node], transform: `translate(${x} ${y})` }, make("rect", { width: BOX.width, height: BOX.height }),
      make("text", { x: 8, y: 15 }, cut(name, 28)), make("text", { class: "space", x: 8, y: 29 }, cut([namespace, kind].filter(Boolean).join(" · "), 34)),
      make("title", {}, cut(full(picture.nodes[node]), 300)));
    const touches = (one) => one.source === node || one.destination === node;
    elements.set(node, element);
    group.append(pickable(element, cut(`${full(picture.nodes[node])}, ${kind}`, 200),
      () => drawn.filter(([line]) => touches(line)).flatMap(([line, other]) => [other, elements.get(line.source), elements.get(line.destination)]),
      () => showLinks(picture, full(picture.nodes[node]), links.filter(touches))));
  }
  const over = make("g", { "aria-hidden": "true" });
  group.append(over);
  svg = make("svg", { role: "group", "aria-label": "Map of who talks to whom" }, group);
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    const room = svg.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.clientX - room.x, event.clientY - room.y);
  }, { passive: false });
  let held = null;
  svg.addEventListener("pointerdown", (event) => { view.moved = true; held = { x: event.clientX - view.x, y: event.clientY - view.y }; });
  svg.addEventListener("pointermove", (event) => {
    if (!held || !event.buttons) return;
    view.x = event.clientX - held.x;
    view.y = event.clientY - held.y;
    move();
  });
  svg.addEventListener("pointerup", () => { held = null; });
  svg.addEventListener("keydown", (event) => {
    const ways = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    const way = ways[event.key];
    view.moved = true;
    if (way) { view.x += way[0]; view.y += way[1]; move(); } else if (event.key === "+") zoom(1.2); else if (event.key === "-") zoom(1 / 1.2); else return;
    event.preventDefault();
  });
  $("canvas").replaceChildren(svg);
  for (const [element, text, look] of labels) { // in the middle of what can be seen of the line
    const path = element.querySelector(".seen"), at = path.getPointAtLength(path.getTotalLength() / 2);
    over.append(make("text", { class: look, x: at.x, y: at.y + 4, "text-anchor": "middle" }, text));
  }
  const box = group.getBBox(), room = $("canvas").clientWidth;
  if (!same || !view.moved) $("canvas").style.height = `${Math.min(640, Math.max(220, 40 + box.height * Math.min(1.2, (room - 30) / (box.width || 1))))}px`;
  if (same && view.moved) move();
  else { view.moved = false; fit(); }
  $("details").setAttribute("aria-live", same ? "off" : "polite"); // not the same again and again
  for (const element of same ? group.querySelectorAll("[data-key]") : []) {
    if (element.dataset.key === focused) element.focus();
    if (element.dataset.key === picked) element.dispatchEvent(new Event("click"));
  }
}

// -- tables

const COLUMNS = [
  ["Source", (link, nodes) => full(nodes[link.source])],
  ["Destination", (link, nodes) => full(nodes[link.destination])],
  ["Port", (link) => link.port, String],
  ["Protocol", (link) => link.protocol],
  ["Network", (link) => link.network],
  ["Sent", (link) => link.sent, bytes],
  ["Received", (link) => link.received, bytes],
  ["Opened", (link) => link.opened, count],
  ["Failed", (link) => link.failed, count],
  ["Requests", (link) => link.requests, count],
  ["Success", success, percent],
  ["p50", (link) => link.p50, duration],
  ["p99", (link) => link.p99, duration],
  ["RTT", (link) => link.rtt, duration],
  ["Sent again", (link) => link.retransmitted, count],
];
const ROWS = 200;
const sorting = { column: 5, down: true };

function compared(a, b) {
  if (a === b) return 0;
  if (a === null) return -1;
  if (b === null) return 1;
  return a < b ? -1 : 1;
}

function drawTable(picture, links, into = $("table")) {
  const [, value] = COLUMNS[sorting.column];
  const focused = [...into.querySelectorAll("th button")].indexOf(document.activeElement);
  const rows = [...links].sort((a, b) => compared(value(a, picture.nodes), value(b, picture.nodes)) * (sorting.down ? -1 : 1));
  const heads = COLUMNS.map(([name, , format], at) => {
    const button = make("button", { type: "button" }, at === sorting.column ? `${name} ${sorting.down ? "▾" : "▴"}` : name);
    button.addEventListener("click", () => {
      sorting.down = at === sorting.column ? !sorting.down : Boolean(format);
      sorting.column = at;
      drawTable(picture, links, into);
      into.querySelectorAll("th button")[at].focus();
    });
    const head = make("th", { scope: "col", class: format ? "n" : "" }, button);
    if (at === sorting.column) head.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    return head;
  });
  const body = rows.slice(0, ROWS).map((link) => make("tr", {}, ...COLUMNS.map(([name, of, format]) => {
    const found = of(link, picture.nodes), text = format ? format(found) : found;
    const bad = (name === "Failed" && found > 0) || (name === "Success" && found !== null && found < 1);
    const cell = make("td", { class: `${format ? "n" : "name"}${bad ? " bad" : ""}` }, cut(text, 300));
    if (!format) cell.title = cut(text, 300);
    return cell;
  })));
  into.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body)));
  if (focused >= 0) into.querySelectorAll("th button")[focused].focus();
  if (rows.length > ROWS) into.append(make("p", {}, `… and ${count(rows.length - ROWS)} more: the filters above find them`));
}

function showLinks(picture, title, links) {
  const items = links.slice(0, 12).map((link) => {
    const ends = `${cut(full(picture.nodes[link.source]), 80)} → ${cut(full(picture.nodes[link.destination]), 80)} :${link.port} ${link.protocol}`;
    const facts = [`${bytes(link.sent)} there, ${bytes(link.received)} back`, `${count(link.opened)} connections opened`];
    if (link.network) facts.push(`network ${cut(link.network, 80)}`);
    if (link.failed) facts.push(`${count(link.failed)} connects failed`);
    if (link.requests) facts.push(`${count(link.requests)} requests, success ${percent(success(link))}, p50 ${duration(link.p50)}, p95 ${duration(link.p95)}, p99 ${duration(link.p99)}`);
    if (link.rtt !== null) facts.push(`RTT ${duration(link.rtt)}`);
    for (const [name, times] of link.results) facts.push(`${cut(name, 120)}: ${count(times)}`);
    return make("li", {}, `${ends}: ${facts.join("; ")}`);
  });
  if (links.length > 12) items.push(make("li", {}, `… and ${count(links.length - 12)} more`));
  $("details").replaceChildren(make("h3", {}, cut(title, 200)), make("ul", {}, ...items));
}

// -- the page

function options(select, all, values) { // what was chosen stays chosen
  const chosen = select.value;
  select.replaceChildren(make("option", { value: "" }, all), ...values.map((value) => make("option", { value: `=${value}` }, cut(value, 60))));
  select.value = values.includes(chosen.slice(1)) && chosen ? chosen : "";
}

let shown = null;

// With ``same`` it is the same view some time later: place, focus and what is picked stay.
function draw(same) {
  const picture = shown, namespace = $("namespace").value, network = $("network").value, wanted = $("search").value.toLowerCase();
  const links = picture.links.filter((link) => {
    const ends = [picture.nodes[link.source], picture.nodes[link.destination]];
    return (!namespace || ends.some((node) => `=${node.namespace}` === namespace)) && (!network || `=${link.network}` === network)
      && (!wanted || ends.some((node) => full(node).toLowerCase().includes(wanted)));
  });
  if (!same) $("details").replaceChildren();
  tiles(picture, links);
  charts(picture, links);
  drawMap(picture, links, same);
  drawTable(picture, links);
}

function show(picture, same) {
  const some = (values) => [...new Set(values.filter(Boolean))].sort();
  shown = picture;
  options($("namespace"), "all", some(picture.nodes.map((node) => node.namespace)));
  options($("network"), "all", some(picture.links.map((link) => link.network)));
  $("about").textContent = picture.about;
  $("notices").replaceChildren(...picture.notices.map((text) => make("p", { class: "notice" }, text)));
  draw(same);
}

function begin() {
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["namespace", "network", "colour"]) $(id).addEventListener("change", () => draw(false));
  $("search").addEventListener("input", () => draw(false));
  $("fit").addEventListener("click", () => { view.moved = false; fit(); });
  $("in").addEventListener("click", () => zoom(1.25));
  $("out").addEventListener("click", () => zoom(1 / 1.25));
  addEventListener("resize", () => shown && fit());
  const data = JSON.parse($("data").textContent);
  if (data.live) beginLive(data);
  else show(data, false);
}

// -- live: totals of the agent, asked for again and again; what happened is the difference

const EVERY = 5000, KEPT = 200;
const COUNTS = ["sent", "received", "opened", "failed", "retransmitted", "resets", "requests", "failures", "unknown"];
const live = { before: null, samples: [], paused: false, about: "", notices: [] };

function percentile(durations, share) { // as weir/views/requests.py has it
  const rows = Object.entries(durations).map(([bound, times]) => [bound === "inf" ? Infinity : Number(bound), times]).filter((row) => row[1] > 0).sort((one, two) => one[0] - two[0]);
  let left = share * rows.reduce((all, row) => all + row[1], 0);
  if (!left) return null;
  for (const [bound, times] of rows) {
    left -= times;
    if (left <= 0) return Number.isFinite(bound) ? bound / 2 ** (1 / 32) : 2 ** (6 - 1 / 16); // the last finite bound
  }
  return null;
}

function keyed(total) {
  const found = new Map(), name = (node) => JSON.stringify([node.namespace, node.name, node.kind]);
  for (const link of total.links) {
    const ends = [total.nodes[link.source], total.nodes[link.destination]];
    found.set(JSON.stringify([...ends.map(name), link.port, link.protocol, link.network]), { ...link, ends });
  }
  return found;
}

const less = (now, then) => Object.fromEntries(Object.entries(now).map(([key, value]) => [key, Math.max(0, value - (then[key] || 0))]));

function difference(link, past) {
  const made = { ...link, durations: less(link.durations, past ? past.durations : {}) };
  for (const name of COUNTS) made[name] = Math.max(0, link[name] - (past ? past[name] : 0));
  made.results = Object.entries(less(Object.fromEntries(link.results), past ? Object.fromEntries(past.results) : {}));
  return made;
}

// Samples of the last minutes as one picture.
function windowed() {
  const most = 60 * Number($("window").value), nodes = new Map(), links = new Map(), seconds = [];
  let first = live.samples.length, span = 0;
  while (first > 0 && (span === 0 || span + live.samples[first - 1].seconds <= most)) { first -= 1; span += live.samples[first].seconds; }
  let at = 0;
  live.samples.slice(first).forEach((sample, step) => {
    at += sample.seconds;
    seconds.push(at);
    for (const [key, more] of sample.links) {
      const bytes_ = more.sent + more.received;
      if (!bytes_ && !more.requests && !more.failed && !more.live) continue;
      let link = links.get(key);
      if (!link) {
        const number = (node) => {
          const own = JSON.stringify(node);
          if (!nodes.has(own)) nodes.set(own, { number: nodes.size, node });
          return nodes.get(own).number;
        };
        link = { ...more, source: number(more.ends[0]), destination: number(more.ends[1]), durations: {}, results: {}, steps: [] };
        for (const name of COUNTS) link[name] = 0;
        links.set(key, link);
      }
      for (const name of COUNTS) link[name] += more[name];
      for (const [bound, times] of Object.entries(more.durations)) link.durations[bound] = (link.durations[bound] || 0) + times;
      for (const [name, times] of more.results) link.results[name] = (link.results[name] || 0) + times;
      link.live = more.live;
      link.rtt = more.rtt ?? link.rtt;
      if (bytes_ || more.requests) link.steps.push([step, bytes_, more.requests, more.failures]);
    }
  });
  for (const link of links.values()) {
    for (const [name, share] of [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]]) link[name] = percentile(link.durations, share);
    link.results = Object.entries(link.results).filter((row) => row[1] > 0).sort((one, two) => two[1] - one[1]).slice(0, 12);
  }
  return { seconds, nodes: [...nodes.values()].map((own) => own.node), links: [...links.values()], span };
}

function showLive(same) {
  const picture = live.samples.length ? windowed() : { ...live.before.total, seconds: [], span: 0 };
  const said = live.samples.length ? `the last ${Math.round(picture.span)} s` : "since it is counted; what happens now comes with the next snapshot";
  $("span").textContent = `${$("window").value} min`;
  show({ ...picture, about: `${live.about}: ${said}.`, notices: live.notices }, same);
}

// What a cluster's map knows of the time before it was looked at: steps of [number of the link, counts].
function remember(total, now) {
  const keys = [...now.keys()], { seconds, steps } = total.history, asked = COUNTS.indexOf("requests");
  for (const rows of steps) {
    const links = new Map();
    for (const [number, ...counts] of rows) {
      const link = now.get(keys[number]), part = link.requests ? counts[asked] / link.requests : 0;
      const shared = (rows) => rows.map(([name, times]) => [name, times * part]); // nobody knows when which of them came
      const durations = Object.fromEntries(shared(Object.entries(link.durations)));
      links.set(keys[number], { ...link, ...Object.fromEntries(COUNTS.map((name, at) => [name, counts[at]])), durations, results: shared(link.results) });
    }
    live.samples.push({ seconds, links });
  }
}

function take(total) {
  if (live.before && total.time === live.before.time) return; // the same snapshot
  const now = keyed(total), first = !live.before;
  if (first && total.history) remember(total, now);
  if (!first) {
    const links = new Map();
    for (const [key, link] of now) {
      const past = live.before.links.get(key);
      if (past || !live.before.total.links_not_shown) links.set(key, difference(link, past));
    }
    live.samples.push({ seconds: Math.max(0.1, total.time - live.before.time), links });
    if (live.samples.length > KEPT) live.samples.shift();
  }
  live.before = { time: total.time, links: now, total };
  live.notices = Object.entries(total.losses).map(([name, times]) => `Not counted or not listed: ${name}, ${count(times)} times.`);
  if (total.links_not_shown) live.notices.push(`The ${count(total.links_not_shown)} pairs with the fewest bytes are not shown.`);
  if (!live.paused) showLive(!first);
}

async function poll() {
  try {
    const reply = await fetch(`api/v1/graph${live.before ? "" : "?history=1"}`, { cache: "no-store" });
    if (!reply.ok) throw new Error((await reply.json().catch(() => ({}))).error || `HTTP ${reply.status}`);
    take(await reply.json());
    $("trouble").textContent = "";
  } catch (error) {
    $("trouble").textContent = `${live.asked} does not answer (${error.message}): what is shown is from before.`;
  }
  setTimeout(poll, EVERY);
}

function beginLive(data) {
  live.about = data.about;
  live.asked = data.asked || "The agent";
  $("about").textContent = data.about;
  $("live").hidden = false;
  $("pages").hidden = false;
  $("pages").append(...data.pages.map(([path, name]) => make("a", { href: path }, name)));
  $("live").addEventListener("submit", (event) => event.preventDefault());
  $("window").addEventListener("input", () => live.before && showLive(true));
  $("pause").addEventListener("click", () => {
    live.paused = !live.paused;
    $("pause").setAttribute("aria-pressed", String(live.paused));
    $("pause").textContent = live.paused ? "Go on" : "Pause";
    if (!live.paused && live.before) showLive(true);
  });
  poll();
}

begin();
