"use strict";
/* The list of lakes of the date: sorted, searched, in pages; each lake goes to the map. */
(() => {
  const { data } = report;
  const table = document.getElementById("list"), find = document.getElementById("find");
  const SIZE = 15;
  const wanted = ["lake_id", "track_id", "area_m2", "volume_m3", "rt_volume_m3", "state", "fate", "seen_share", "evidence"];
  const columns = wanted.map((name) => report.columnOf(data.lakes, name)).filter((column) => column);
  let by = columns.find((column) => column.name === "area_m2") ?? columns[0], isDown = true, page = 0;

  /* Rows of the date that hold the words, in order; what is not known comes last. */
  function rows() {
    const words = find.value.toLowerCase().split(/\s+/).filter((word) => word);
    const found = report.rowsOn(data.lakes, report.date).filter((row) => {
      const text = columns.map((column) => report.told(data.lakes, column, row, { unit: false })).join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const sign = isDown ? -1 : 1;
    const value = (row) => (by.words && by.values[row] !== null ? by.words[by.values[row]] : by.values[row]);
    return found.sort((a, b) => {
      const [one, other] = [value(a), value(b)];
      if (one === null || other === null) return (one === null) - (other === null);
      return sign * (one < other ? -1 : one > other ? 1 : 0);
    });
  }

  function heading(column) {
    const cell = document.createElement("th"), button = document.createElement("button");
    cell.scope = "col";
    cell.title = column.meaning;
    button.type = "button";
    button.textContent = report.units[column.kind] ? `${column.label}, ${report.units[column.kind]}` : column.label;
    if (!column.words) cell.className = "number";
    if (column === by) {
      cell.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      button.textContent += isDown ? " ↓" : " ↑";
    }
    button.addEventListener("click", () => {
      [by, isDown, page] = [column, column === by ? !isDown : !column.words, 0];
      draw();
      table.querySelectorAll("thead button")[columns.indexOf(column)].focus();
    });
    cell.append(button);
    return cell;
  }

  function line(row) {
    const made = document.createElement("tr");
    made.dataset.row = row;
    columns.forEach((column, k) => {
      const cell = document.createElement(k ? "td" : "th");
      if (!column.words) cell.className = "number";
      if (k) cell.textContent = report.told(data.lakes, column, row, { unit: false });
      else {
        const button = document.createElement("button");
        cell.scope = "row";
        button.type = "button";
        button.textContent = report.told(data.lakes, column, row);
        button.setAttribute("aria-label", `${report.nameOf(row)}: show it on the map`);
        button.addEventListener("click", () => {
          lakeMap.go(row);
          document.getElementById("map").scrollIntoView({ block: "center" });
        });
        cell.append(button);
      }
      made.append(cell);
    });
    return made;
  }

  function draw() {
    const found = rows(), pages = Math.max(1, Math.ceil(found.length / SIZE));
    page = Math.min(page, pages - 1);
    const head = document.createElement("tr"), body = document.createElement("tbody");
    head.append(...columns.map(heading));
    body.append(...found.slice(page * SIZE, (page + 1) * SIZE).map(line));
    table.querySelectorAll("thead, tbody").forEach((part) => part.remove());
    const top = document.createElement("thead");
    top.append(head);
    table.append(top, body);
    table.caption.textContent = `Lakes of ${data.dates[report.date].day}`;
    document.getElementById("list-told").textContent = `${found.length.toLocaleString("en")} found`;
    document.getElementById("page-told").textContent = `page ${page + 1} of ${pages}`;
    document.getElementById("page-back").disabled = page === 0;
    document.getElementById("page-on").disabled = page === pages - 1;
  }

  find.addEventListener("input", () => { page = 0; draw(); });
  document.getElementById("page-back").addEventListener("click", () => { page -= 1; draw(); });
  document.getElementById("page-on").addEventListener("click", () => { page += 1; draw(); });
  report.on("date", () => { page = 0; draw(); });
  report.on("chosen", ({ layer, row }) => {
    table.querySelectorAll("tbody tr").forEach((made) => {
      made.classList.toggle("now", layer === "lakes" && Number(made.dataset.row) === row);
    });
  });
})();
