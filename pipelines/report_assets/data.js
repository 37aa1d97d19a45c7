"use strict";
/* What the page was given, how it is said, and what is chosen: a date, layers, an outline. */
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const heard = {};

  /* Three digits that count, without an exponent. */
  function number(value) {
    if (value === 0) return "0";
    const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
    return value.toLocaleString("en", { maximumFractionDigits: Math.min(places, 12) });
  }
  const units = { area: "km²", volume: "10⁶ m³", length: "m", share: "%" };
  const bare = {
    area: (value) => number(value / 1e6),
    volume: (value) => number(value / 1e6),
    length: (value) => value.toLocaleString("en", { maximumFractionDigits: 2 }),
    share: (value) => (100 * value).toFixed(1),
    number: (value) => value.toLocaleString("en", { maximumFractionDigits: 4 }),
  };

  /* A number with its unit, and the ends of its interval. */
  function say(kind, value, low = null, high = null) {
    const ends = low === null || high === null ? "" : ` (${bare[kind](low)} to ${bare[kind](high)})`;
    const unit = kind === "volume" ? ` × ${units[kind]}` : units[kind] ? ` ${units[kind]}` : "";
    return bare[kind](value) + ends + unit.replaceAll(" ", "\u00a0");
  }

  function columnOf(layer, name) {
    return layer.columns.find((column) => column.name === name);
  }

  /* The value of a column of a layer in a row, in words, with its interval where there is one; empty if not known. */
  function told(layer, column, row, { unit = true } = {}) {
    const value = column.values[row];
    if (value === null) return "";
    if (column.words) return column.words[value];
    if (/(^|_)id$/.test(column.name)) return String(value);
    if (!unit) return bare[column.kind](value);
    const ends = ["low", "high"].map((end) => columnOf(layer, column.name.replace(/_(m\d?)$/, `_${end}_$1`)));
    return say(column.kind, value, ...ends.map((end) => (end && end !== column ? end.values[row] : null)));
  }

  /* Rings as Leaflet takes them: pixels of the grid, upwards. */
  function polygonsOf(outline) {
    const unit = 1 / data.frame.steps;
    return outline.map((polygon) => polygon.map((ring) => {
      const points = [];
      let x = 0, y = 0;
      for (let k = 0; k < ring.length; k += 2) {
        x += ring[k];
        y += ring[k + 1];
        points.push([-y * unit, x * unit]);
      }
      return points;
    }));
  }

  /* Rows of a layer on a date. */
  function rowsOn(layer, date) {
    const rows = [];
    layer.date.forEach((of, row) => { if (of === date) rows.push(row); });
    return rows;
  }

  return {
    data,
    date: 0,
    say,
    units,
    told,
    columnOf,
    polygonsOf,
    rowsOn,
    /* Call back whenever something is told: "date", "chosen". */
    on(what, listener) { (heard[what] ??= []).push(listener); },
    tell(what, about) { (heard[what] ?? []).forEach((listener) => listener(about)); },
    setDate(date) {
      report.date = Math.max(0, Math.min(data.dates.length - 1, date));
      report.tell("date", report.date);
    },
    /* What a lake goes by: its track where there is one, and its number on its date. */
    nameOf(row) {
      const lake = columnOf(data.lakes, "lake_id"), track = columnOf(data.lakes, "track_id");
      return track ? `Track ${track.values[row]}, lake ${lake.values[row]}` : `Lake ${lake.values[row]}`;
    },
    speak(text) { document.getElementById("said").textContent = text; },
  };
})();
