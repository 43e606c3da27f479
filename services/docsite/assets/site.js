/*! MiniSearch
 * Copyright 2022 Luca Ongaro
 * Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
 * documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
 * rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
 * permit persons to whom the Software is furnished to do so, subject to the following conditions:
 * The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
 * Software.
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
 * WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
 * COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
 * OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
 */
import MiniSearch from "minisearch";

// Everything here is on top of pages that can be read without it.
const one = (selector) => document.querySelector(selector);
const el = (name, props = {}, ...children) => {
  const e = Object.assign(document.createElement(name), props);
  e.append(...children);
  return e;
};

scheme();
// The navigation alone is scrolled: the page is where its address says.
const contents = one("#contents");
const current = one("#contents [aria-current]");
if (current) contents.scrollTop = current.offsetTop - contents.clientHeight / 2;
for (const box of document.querySelectorAll(".wide")) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; // what scrolls has to be reached by keys
}
for (const pre of document.querySelectorAll("article pre")) {
  const box = el("div", { className: "fenced" });
  const button = el("button", { className: "copy", textContent: "Copy" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(pre.innerText.trimEnd());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed here"; // by HTTP from another machine, for instance
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  pre.replaceWith(box);
  box.append(pre, button);
}
// A link to an operation shows it.
const unfold = () => {
  const at = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (at instanceof HTMLDetailsElement) at.open = true;
};
addEventListener("hashchange", unfold);
unfold();
search();

function scheme() {
  const button = one(".scheme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const show = () => {
    const dark = root.dataset.scheme ? root.dataset.scheme === "dark" : system.matches;
    button.textContent = dark ? "☀" : "☾";
    button.ariaLabel = button.title = `Use the ${dark ? "light" : "dark"} scheme`;
    return dark ? "light" : "dark";
  };
  button.addEventListener("click", () => {
    root.dataset.scheme = show();
    try {
      localStorage.setItem("mantine-color-scheme-value", root.dataset.scheme); // the web UI's, which is to look the same
    } catch {
      // It holds for this page.
    }
    show();
  });
  system.addEventListener("change", show);
  show();
  button.hidden = false;
}

function search() {
  const input = one(".search input");
  const list = one("#found");
  const status = one(".search [role=status]");
  let index;
  let sections;
  // Loaded when somebody begins to search, and once.
  const load = () =>
    (index ??= (async () => {
      const get = async (path) => {
        const r = await fetch(path);
        if (!r.ok) throw new Error(`${path}: ${r.status}`);
        return r.json();
      };
      const base = new URL(".", import.meta.url).pathname;
      sections = (await Promise.all([get(`${base}search.json`), get(`${base}api.json`)])).flat();
      const made = new MiniSearch({
        fields: ["title", "heading", "text"],
        searchOptions: { boost: { title: 3, heading: 4 }, prefix: true, fuzzy: (term) => (term.length > 4 ? 0.2 : false), combineWith: "AND" },
      });
      made.addAll(sections.map(([, title, heading, text], id) => ({ id, title, heading, text })));
      return made;
    })());
  const options = () => [...list.children].filter((o) => o.role === "option");
  const select = (option) => {
    for (const o of options()) o.ariaSelected = String(o === option);
    if (option) input.setAttribute("aria-activedescendant", option.id);
    else input.removeAttribute("aria-activedescendant");
    option?.scrollIntoView({ block: "nearest" });
  };
  const close = () => {
    list.hidden = true;
    input.ariaExpanded = "false";
    input.removeAttribute("aria-activedescendant");
  };
  /** A text with the words that were found marked. */
  const marked = (text, terms) => {
    const words = terms.map((t) => t.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    if (words.length === 0) return [text];
    return text.split(new RegExp(`(${words.join("|")})`, "iu")).map((part, i) => (i % 2 ? el("mark", { textContent: part }) : part));
  };
  const excerpt = (text, terms) => {
    const low = text.toLowerCase();
    const at = Math.min(...terms.map((t) => low.indexOf(t)).filter((i) => i >= 0));
    const from = Number.isFinite(at) ? Math.max(0, at - 50) : 0;
    return (from > 0 ? "…" : "") + text.slice(from, from + 150) + (text.length > from + 150 ? "…" : "");
  };
  const show = async () => {
    const words = input.value.trim();
    if (!words) return close();
    let found;
    try {
      found = (await load()).search(words);
    } catch (e) {
      index = undefined; // the next letter tries again
      status.textContent = "";
      list.replaceChildren(el("p", { textContent: `The search cannot be loaded: ${e.message}` }));
      list.hidden = false;
      return;
    }
    if (input.value.trim() !== words) return; // somebody has gone on typing
    const most = 30;
    list.replaceChildren(
      ...found.slice(0, most).map(({ id, terms }, i) => {
        const [url, title, heading, text] = sections[id];
        const option = el("a", { id: `found-${i}`, role: "option", href: url, tabIndex: -1 });
        option.ariaSelected = "false";
        option.append(...marked(heading ? `${title} › ${heading}` : title, terms), el("span", {}, ...marked(excerpt(text, terms), terms)));
        return option;
      }),
    );
    status.textContent = found.length === 0 ? "Nothing is found" : `${found.length} found`;
    if (found.length === 0) list.append(el("a", { role: "option", textContent: "Nothing is found" }));
    list.hidden = false;
    input.ariaExpanded = "true";
    select(found.length > 0 ? options()[0] : undefined);
  };
  input.addEventListener("focus", () => void load().catch(() => (index = undefined)), { once: true });
  input.addEventListener("input", () => void show());
  input.addEventListener("keydown", (e) => {
    const all = options();
    const at = all.findIndex((o) => o.ariaSelected === "true");
    if (e.key === "Escape") {
      if (list.hidden) input.value = "";
      close();
    } else if (e.key === "Enter" && !list.hidden && at >= 0) {
      e.preventDefault();
      all[at].click();
    } else if ((e.key === "ArrowDown" || e.key === "ArrowUp") && all.length > 0) {
      e.preventDefault();
      list.hidden = false;
      input.ariaExpanded = "true";
      select(all[(at + (e.key === "ArrowDown" ? 1 : all.length - 1)) % all.length]);
    }
  });
  list.addEventListener("click", close);
  list.addEventListener("mousedown", (e) => e.preventDefault()); // the input keeps the focus
  input.addEventListener("blur", close);
  addEventListener("keydown", (e) => {
    const typing = e.target instanceof HTMLElement && (e.target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName));
    if ((e.key === "/" && !typing && !e.ctrlKey && !e.metaKey && !e.altKey) || (e.key === "k" && (e.ctrlKey || e.metaKey))) {
      e.preventDefault();
      input.focus();
      input.select();
    }
  });
  one(".search").hidden = false;
}
