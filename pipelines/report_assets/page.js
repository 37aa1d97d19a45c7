"use strict";
/* The slider, the layers and the charts: all follow the date. */
(() => {
  const { data } = report;
  const slider = document.getElementById("date"), play = document.getElementById("play");
  let timer = 0;

  function tellDate() {
    const date = data.dates[report.date], lakes = report.rowsOn(data.lakes, report.date);
    const areas = report.columnOf(data.lakes, "area_m2")?.values ?? [];
    const total = lakes.reduce((sum, row) => sum + (areas[row] ?? 0), 0);
    const seen = date.seen_share === null ? "" : `, ${report.say("share", date.seen_share)} seen`;
    const found = date.seen_share === 0 ? "nothing was seen" : `${lakes.length.toLocaleString("en")} lakes, ${report.say("area", total)}${seen}`;
    const text = `${date.day}: ${found}`;
    document.getElementById("date-told").textContent = text;
    document.getElementById("map").setAttribute("aria-label", `Map of lakes, ${text}`);
    if (slider) {
      slider.value = report.date;
      slider.setAttribute("aria-valuetext", text);
      document.getElementById("earlier").disabled = report.date === 0;
      document.getElementById("later").disabled = report.date === data.dates.length - 1;
    }
  }

  function tellLayers() {
    const date = data.dates[report.date];
    const there = {
      image: date.image, not_seen: date.not_seen, lakes: lakeMap.count("lakes"), dropped: lakeMap.count("dropped"),
      tracks: lakeMap.count("tracks"),
    };
    document.querySelectorAll("[data-layer]").forEach((box) => {
      box.parentElement.classList.toggle("none", !there[box.dataset.layer]);
      box.parentElement.title = there[box.dataset.layer] ? "" : "there is nothing of it on this date";
    });
  }

  function markCharts() {
    document.querySelectorAll("[data-date]").forEach((mark) => {
      mark.classList.toggle("now", Number(mark.dataset.date) === report.date);
    });
    const chart = document.querySelector("#chart-areas svg");
    if (data.dates.length < 2) return;
    const perCount = Number(chart.dataset.perCount);
    chart.querySelectorAll(".of-date").forEach((bar, k) => {
      const height = data.histogram.counts[report.date][k] * perCount;
      bar.setAttribute("y", 208 - height);
      bar.setAttribute("height", height);
    });
    document.querySelector("#chart-areas figcaption").textContent =
      `Areas of lakes: all dates (grey), ${data.dates[report.date].day} (blue)`;
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  }

  report.on("date", () => { tellDate(); tellLayers(); markCharts(); });
  if (slider) {
    slider.addEventListener("input", () => { stop(); report.setDate(Number(slider.value)); });
    for (const [id, step] of [["earlier", -1], ["later", 1]]) {
      document.getElementById(id).addEventListener("click", () => { stop(); report.setDate(report.date + step); });
    }
    play.addEventListener("click", () => {
      if (timer) { stop(); return; }
      play.textContent = "Pause";
      play.setAttribute("aria-pressed", "true");
      timer = setInterval(() => report.setDate((report.date + 1) % data.dates.length), 1200);
    });
    document.querySelectorAll("[data-date]").forEach((mark) => {
      const date = Number(mark.dataset.date);
      if (date >= 0) mark.addEventListener("click", () => { stop(); report.setDate(date); });
    });
  }
  document.querySelectorAll("[data-layer]").forEach((box) => {
    box.addEventListener("change", () => lakeMap.toggle(box.dataset.layer, box.checked));
    lakeMap.shown[box.dataset.layer] = box.checked;  // a browser may remember what was switched
  });

  const lakes = data.dates.map((_, date) => report.rowsOn(data.lakes, date).length);
  report.setDate(lakes.indexOf(Math.max(...lakes)));
})();
