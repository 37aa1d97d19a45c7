"use strict";
/* The map: images, outlines, what was not seen; popups; and a cursor that goes from outline to outline by keyboard. */
const lakeMap = (() => {
  const { data, polygonsOf } = report;
  const frame = data.frame;
  const crs = L.extend({}, L.CRS.Simple, {
    distance: (a, b) => frame.pixel * Math.hypot(a.lat - b.lat, a.lng - b.lng),
  });
  const bounds = L.latLngBounds([-frame.height, 0], [0, frame.width]);
  /* Outlines with a dark rim, so that they show on ice and water alike. */
  const Rimmed = L.Canvas.extend({
    _fillStroke(context, shape) {
      const { casing, weight } = shape.options;
      if (casing) {
        context.globalAlpha = 0.75;
        context.lineWidth = weight + 2;
        context.strokeStyle = casing;
        context.setLineDash([]);
        context.stroke();
      }
      L.Canvas.prototype._fillStroke.call(this, context, shape);
    },
  });
  /* Whoever asks for less motion sees at once where it ends. */
  const moves = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const Map = L.Map.extend({
    panBy(by, options) { return L.Map.prototype.panBy.call(this, by, moves ? options : { ...options, animate: false }); },
  });
  const map = new Map("map", {
    crs, minZoom: -9, maxZoom: 6, zoomSnap: 0.25, zoomDelta: 0.75, wheelPxPerZoomLevel: 100, attributionControl: false,
    maxBounds: bounds.pad(1.5), zoomControl: false, renderer: new Rimmed({ padding: 0.3, tolerance: 5 }),
    zoomAnimation: moves, inertia: moves,
  });
  map.fitBounds(bounds);
  for (const [pane, level] of [["image", 210], ["hidden", 220]]) map.createPane(pane).style.zIndex = level;

  const styles = {
    lakes: { color: "#ffd400", weight: 2, casing: "#111", fill: true, fillOpacity: 0.04 },
    dropped: { color: "#ff7a2e", weight: 1.6, casing: "#111", dashArray: "4 3", fill: true, fillOpacity: 0.04 },
    tracks: { color: "#ffffff", weight: 2.2, casing: "#fff", dashArray: "5 3", fill: true, fillOpacity: 0.03 },
    chosen: { color: "#00e5ff", weight: 4, fill: false, interactive: false },
  };
  /* As in the chart of states. */
  const colors = {
    "water": "#0072b2", "lidded": "#56b4e9", "snow": "#cc79a7", "empty": "#d55e00", "dry or lidded": "#e69f00",
    "not outlined": "#009e73", "partly seen": "#7d868d", "not seen": "#3c4348",
  };
  const shown = { image: true, lakes: true, tracks: false, dropped: false, not_seen: true };
  const groups = { image: L.layerGroup(), not_seen: L.layerGroup() };
  for (const name of ["tracks", "dropped", "lakes"]) groups[name] = L.featureGroup();
  let targets = [];  // what the cursor can go to: { layer, row, shape }
  let chosen = null, ring = null, isQuiet = false;

  /* -- what is shown of a date */

  function overlay(picture, pane, alt) {
    const [left, top, right, bottom] = picture.bounds;
    return L.imageOverlay(picture.uri, [[-bottom, left], [-top, right]], { pane, alt });
  }

  function outline(layer, row) {
    const rings = polygonsOf(data[layer].outlines[row]);
    const color = layer === "tracks" ? colors[stateOf(row)] ?? "#000000" : styles[layer].color;
    const shape = L.polygon(rings, { ...styles[layer], color, bubblingMouseEvents: false });
    shape.on("click", (event) => open({ layer, row, shape }, { at: event.latlng }));
    groups[layer].addLayer(shape);
    return { layer, row, shape };
  }

  /* The state of a track on the date. */
  function stateOf(track) {
    const { tracks } = data;
    const code = tracks.states[track][tracks.dates[tracks.season[track]].indexOf(report.date)];
    return code === null || code === undefined ? "" : tracks.words[code];
  }

  function rowsOf(layer) {
    if (layer !== "tracks") return report.rowsOn(data[layer], report.date);
    const season = data.dates[report.date].season;
    return data.tracks ? [...data.tracks.season.keys()].filter((row) => data.tracks.season[row] === season) : [];
  }

  function show() {
    const date = data.dates[report.date];
    isQuiet = true;
    map.closePopup();
    isQuiet = false;
    mark(null);
    for (const group of Object.values(groups)) group.clearLayers().remove();
    if (shown.image && date.image) groups.image.addLayer(overlay(date.image, "image", `${date.day}: ${date.what}`)).addTo(map);
    if (shown.not_seen && date.not_seen) groups.not_seen.addLayer(overlay(date.not_seen, "hidden", "not seen")).addTo(map);
    targets = [];
    for (const layer of ["tracks", "dropped", "lakes"]) {
      if (shown[layer]) targets.push(...rowsOf(layer).map((row) => outline(layer, row)));
      groups[layer].addTo(map);
    }
    targets.reverse();  // lakes first
    place(largest());
  }

  /* -- popups */

  function element(tag, text, ...inside) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    made.append(...inside);
    return made;
  }

  function titleOf({ layer, row }) {
    const day = data.dates[report.date].day;
    if (layer === "lakes") return `${report.nameOf(row)} · ${day}`;
    if (layer === "tracks") return `Track ${data.tracks.id[row]}, ${stateOf(row) || "not known yet"} · ${day}`;
    return `Dropped candidate · ${day}`;
  }

  /* A list of what is known of a row, in some columns; an interval stands beside its value. */
  function facts(layer, row, columns) {
    const list = element("dl");
    for (const column of columns) {
      const text = report.told(data[layer], column, row);
      const isTold = layer === "lakes" && /^(lake|track)_id$/.test(column.name);  // by the title
      const isKnown = text === "known" && /_reason$/.test(column.name);  // the value says so itself
      if (!text || isTold || isKnown || /_(low|high)_/.test(column.name)) continue;
      const term = element("dt", column.label);
      term.title = column.meaning;
      list.append(term, element("dd", text));
    }
    return list;
  }

  function fill({ layer, row }) {
    const columns = data[layer].columns, main = facts(layer, row, columns.filter((column) => column.main));
    const rest = facts(layer, row, columns.filter((column) => !column.main));
    const box = element("div", "", element("h3", titleOf({ layer, row })), main);
    box.className = "popup";
    const track = layer === "tracks" ? row : layer === "lakes" ? trackOf(row) : -1;
    if (track >= 0) box.append(course(track));
    if (rest.childElementCount) box.append(element("details", "", element("summary", "More"), rest));
    return box;
  }

  function trackOf(row) {
    const column = report.columnOf(data.lakes, "track_id"), season = data.dates[report.date].season;
    if (!column || !data.tracks) return -1;
    return data.tracks.id.findIndex((id, k) => id === column.values[row] && data.tracks.season[k] === season);
  }

  /* A track over the dates of its season. */
  function course(track) {
    const { tracks } = data;
    const table = element("table", "", element("caption", `Track ${tracks.id[track]} over the season`));
    tracks.dates[tracks.season[track]].forEach((date, k) => {
      const code = tracks.states[track][k], area = tracks.areas[track][k];
      const line = element(
        "tr", "", element("th", data.dates[date].day), element("td", code === null ? "" : tracks.words[code]),
        element("td", area === null ? "" : report.say("area", area)),
      );
      line.firstChild.scope = "row";
      if (date === report.date) line.className = "now";
      table.append(line);
    });
    return table;
  }

  function open(target, { at = null, focus = false } = {}) {
    place(target);
    mark(target);
    const size = map.getSize();
    const popup = L.popup({ maxHeight: Math.min(460, 0.6 * size.y), maxWidth: Math.min(340, size.x - 70), autoPanPadding: [12, 12] })
      .setLatLng(at ?? middle(target)).setContent(fill(target)).openOn(map);
    const box = popup.getElement();
    box.querySelector("details")?.addEventListener("toggle", ({ target: details }) => {
      popup.update();  // lays it out anew, which takes the focus
      details.firstChild.focus();
    });
    box.setAttribute("role", "dialog");
    box.setAttribute("aria-label", titleOf(target));
    box.tabIndex = -1;
    if (focus) box.focus();
    report.tell("chosen", target);
  }

  map.on("popupclose", (event) => {
    const hadFocus = event.popup.getElement()?.contains(document.activeElement);
    if (isQuiet) return;
    mark(null);
    if (hadFocus) button.focus();
  });
  map.getContainer().addEventListener("keydown", (event) => {
    if (event.key === "Escape") map.closePopup();
  });

  function mark(target) {
    ring?.remove();
    ring = target && L.polygon(target.shape.getLatLngs(), styles.chosen).addTo(map);
    chosen = target;
  }

  /* -- the cursor */

  const button = element("button");
  button.type = "button";
  button.className = "cursor";
  const cursor = L.marker([0, 0], {
    icon: L.divIcon({ html: button, className: "", iconSize: [44, 44] }), keyboard: false, interactive: false,
  });
  let here = null;

  function middle(target) {
    return target.shape.getBounds().getCenter();
  }

  function largest() {
    const lakes = targets.filter((target) => target.layer === "lakes");
    const areas = report.columnOf(data.lakes, "area_m2")?.values ?? [];
    return lakes.reduce((best, one) => (!best || areas[one.row] > areas[best.row] ? one : best), null) ?? targets[0] ?? null;
  }

  function place(target) {
    here = target;
    if (!target) {
      cursor.remove();
      return;
    }
    cursor.setLatLng(middle(target)).addTo(map);
    const area = report.columnOf(data[target.layer], "area_m2") ?? report.columnOf(data[target.layer], "max_area_m2");
    const size = area ? `, ${report.told(data[target.layer], area, target.row)}` : "";
    button.setAttribute("aria-label", `${titleOf(target)}${size}. Arrow keys go to others, Enter opens it.`);
  }

  /* The nearest outline to one side, sooner straight on than aslant. */
  function next(dx, dy) {
    const from = middle(here);
    let best = null, least = Infinity;
    for (const target of targets) {
      const to = middle(target), along = (to.lng - from.lng) * dx + (to.lat - from.lat) * dy;
      const across = Math.abs((to.lng - from.lng) * dy) + Math.abs((to.lat - from.lat) * dx);
      if (target === here || along <= 0 || across > 2 * along) continue;
      if (along + 2 * across < least) [best, least] = [target, along + 2 * across];
    }
    return best;
  }

  const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  button.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (here) open(here, { focus: true });
    } else if (ways[event.key]) {
      event.preventDefault();
      const target = next(...ways[event.key]);
      if (!target) return;
      map.closePopup();
      place(target);
      if (!map.getBounds().pad(-0.1).contains(middle(target))) map.panTo(middle(target));
      report.speak(button.getAttribute("aria-label"));
      button.focus({ preventScroll: true });
    }
  });

  /* -- beside the map */

  L.control.scale({ imperial: false, maxWidth: 140 }).addTo(map);
  L.control.zoom({ position: "bottomright" }).addTo(map);
  const north = L.control({ position: "bottomleft" });
  north.onAdd = () => {
    const box = L.DomUtil.create("div", "north");
    box.title = "true north at the middle of the grid";
    box.innerHTML = `<svg viewBox="0 0 36 36" role="img" aria-label="True north"><path d="M18 4 L25 30 L18 24 L11 30 Z"/></svg>`;
    box.firstChild.style.transform = `rotate(${frame.north_deg}deg)`;
    return box;
  };
  north.addTo(map);
  const where = L.control({ position: "topright" });
  where.onAdd = () => L.DomUtil.create("div", "place");
  where.addTo(map);
  where.getContainer().hidden = true;
  if (matchMedia("(hover: hover)").matches) map.on("mousemove", ({ latlng }) => {
    const x = frame.left + latlng.lng * frame.pixel, y = frame.top + latlng.lat * frame.pixel;
    where.getContainer().hidden = false;
    where.getContainer().textContent = `x ${x.toFixed(0)}, y ${y.toFixed(0)} m`;
  });

  /* On paper the map has a size of its own, and shows what is on the screen, without empty sides. */
  function resize(isOnPaper) {
    const view = map.getBounds();
    map.getContainer().classList.toggle("paper", isOnPaper);
    map.invalidateSize({ animate: false });
    const [top, bottom] = [view.getNorth(), view.getSouth()].map((lat) => Math.min(0, Math.max(-frame.height, lat)));
    const [left, right] = [view.getWest(), view.getEast()].map((lng) => Math.min(frame.width, Math.max(0, lng)));
    map.fitBounds([[bottom, left], [top, right]], { animate: false });
  }
  addEventListener("beforeprint", () => resize(true));
  addEventListener("afterprint", () => resize(false));

  report.on("date", show);

  return {
    map,
    shown,
    /* Switch a layer on or off. */
    toggle(layer, isOn) {
      shown[layer] = isOn;
      show();
    },
    /* How many outlines a layer has on the date. */
    count: (layer) => rowsOf(layer).length,
    /* Go to a lake, and open it. */
    go(row) {
      const target = targets.find((one) => one.layer === "lakes" && one.row === row);
      if (!target) return;
      map.fitBounds(target.shape.getBounds().pad(2.5), { maxZoom: 2, animate: false });
      open(target, { focus: true });
    },
  };
})();
