"use strict";

/* More pictures when the end of the grid comes near. Without this there is a plain link. */
function followScroll(grid) {
  const status = document.querySelector("[data-status]");
  const near = new IntersectionObserver((entries) => entries.some((one) => one.isIntersecting) && load(), {
    rootMargin: "900px",
  });

  async function load() {
    const more = document.querySelector("[data-more]");
    const link = more.querySelector("a");
    near.disconnect();
    if (!link) return;
    more.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(link.href);
      if (!answer.ok) throw new Error(String(answer.status));
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const cards = next.querySelectorAll("[data-grid] > li");
      grid.append(...cards);
      more.replaceWith(next.querySelector("[data-more]") || document.createElement("p"));
      status.textContent = `${grid.children.length} pictures`;
    } catch {
      more.removeAttribute("aria-busy");
      link.textContent = "No answer. Try again for more pictures";
      return;
    }
    watch();
  }

  function watch() {
    const more = document.querySelector("[data-more]");
    if (more) near.observe(more);
  }

  watch();
}

/* A phrase lights its boxes, a box its phrase: by hovering, and by focus. */
function lightUp(place) {
  let lit = null;

  function light(entity) {
    if (entity === lit) return;
    lit = entity;
    place.classList.toggle("some-lit", entity !== null);
    for (const one of place.querySelectorAll("[data-entity]")) {
      one.classList.toggle("lit", one.dataset.entity === entity);
    }
  }

  const entityOf = (target) => target.closest("[data-entity]")?.dataset.entity ?? null;
  const focused = () => (place.contains(document.activeElement) ? entityOf(document.activeElement) : null);
  place.addEventListener("pointerover", (event) => light(entityOf(event.target) ?? focused()));
  place.addEventListener("pointerleave", () => light(focused()));
  place.addEventListener("focusin", (event) => light(entityOf(event.target)));
  place.addEventListener("focusout", () => light(null));
}

/* The keys: arrows, j and k from picture to picture, Escape back, / to the search, b for the boxes. */
function listenToKeys() {
  const follow = (name) => document.querySelector(`[data-move="${name}"]`)?.click();

  function step(by) {
    const cards = [...document.querySelectorAll("[data-card]")];
    if (!cards.length) return follow(by > 0 ? "next" : "previous");
    const here = cards.indexOf(document.activeElement);
    cards[here < 0 ? 0 : Math.min(Math.max(here + by, 0), cards.length - 1)].focus();
  }

  const keys = {
    ArrowRight: () => step(1),
    j: () => step(1),
    ArrowLeft: () => step(-1),
    k: () => step(-1),
    Escape: () => follow("back"),
    b: () => document.querySelector("[data-boxes]")?.classList.toggle("hidden-boxes"),
    "/": () => document.getElementById("q").select(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
}

/* A running job's figures, every two seconds while somebody looks. */
function keepUp(article) {
  const bar = article.querySelector("[data-bar]");
  const lost = article.querySelector("[data-lost]");
  const section = article.querySelector("[data-failures]");
  const state = article.querySelector('[data-live="state"]').textContent;

  function show({ job, failures }) {
    for (const one of article.querySelectorAll("[data-live]")) {
      const text = job[one.dataset.live];
      if (one.textContent !== text) one.textContent = text;
    }
    article.querySelector('[data-live="reason"]').hidden = !job.reason;
    bar.max = job.total || 1;
    bar.value = job.settled;
    bar.setAttribute("aria-valuetext", job.summary);
    if (!section.contains(document.activeElement)) showFailures(failures); // who is there does not lose the place
    if (job.state !== state) location.reload();
  }

  function showFailures(failures) {
    section.querySelector("[data-none]").hidden = failures.length > 0;
    section.querySelector("table").hidden = failures.length === 0;
    section.querySelector("tbody").replaceChildren(...failures.map(row));
  }

  function row(failure) {
    const line = document.createElement("tr");
    const [code, count, example] = ["th", "td", "td"].map((kind) => line.appendChild(document.createElement(kind)));
    const link = code.appendChild(document.createElement("a"));
    code.scope = "row";
    link.href = `${section.dataset.failures}&code=${encodeURIComponent(failure.code)}`;
    link.textContent = failure.code;
    count.className = "figure";
    count.textContent = failure.failed;
    example.className = "message";
    example.textContent = failure.example;
    return line;
  }

  async function look() {
    if (!document.hidden) {
      try {
        const answer = await fetch(article.dataset.poll);
        if (!answer.ok) throw new Error(String(answer.status));
        show(await answer.json());
        lost.hidden = true;
      } catch {
        lost.hidden = false;
      }
    }
    setTimeout(look, 2000);
  }

  setTimeout(look, 2000);
}

/* A button that copies a command, where the browser lets us. */
function offerCopy(code) {
  if (!navigator.clipboard) return;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  });
  code.after(button);
}

document.querySelectorAll("[data-grid]").forEach(followScroll);
document.querySelectorAll("[data-lights]").forEach(lightUp);
document.querySelectorAll("[data-poll]").forEach(keepUp);
document.querySelectorAll("[data-copy]").forEach(offerCopy);
listenToKeys();
