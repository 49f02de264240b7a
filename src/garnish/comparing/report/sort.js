(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    if (column === 0) return cell.dataset.name;
    const figure = cell.querySelector("[data-value]");
    return figure && figure.dataset.value !== "null" ? Number(figure.dataset.value) : null;
  };
  const order = (a, b) => typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  document.querySelectorAll("table.main").forEach((table) => {
    const heads = [...table.querySelectorAll("th[data-column]")];
    heads.forEach((head) => head.querySelector("button").addEventListener("click", () => {
      const column = Number(head.dataset.column);
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.first;
      const next = now === null ? first : now === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      [...table.tBodies].forEach((body) => {
        const rows = [...body.querySelectorAll("tr.arm")].map((row) => [value(row, column), row]);
        const known = rows.filter(([v]) => v !== null).sort(([a], [b]) => sign * order(a, b));
        [...known, ...rows.filter(([v]) => v === null)].forEach(([, row]) => body.append(row));
      });
    }));
  });
})();
