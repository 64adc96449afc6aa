// The objects that a picture resembles most, as items of a list.

import { share } from "./words.js";

/** An item for each object; `printed` also writes its address out, because paper has no links. */
export function neighbours(objects, { printed = false } = {}) {
  return objects.map((object) => {
    const item = document.createElement("li");
    item.append(title(object), facts(object));
    if (printed && isAddress(object.url)) item.append(text("neighbour-address", object.url));
    return item;
  });
}

function title({ title: words, url }) {
  const link = document.createElement(isAddress(url) ? "a" : "span");
  if (link.tagName === "A") Object.assign(link, { href: url, rel: "noreferrer" });
  link.className = "neighbour-title";
  link.textContent = words || "Untitled";
  return link;
}

function facts({ artist, date, culture, source, licence, similarity }) {
  const told = [artist, date, culture, source, licence, `similarity ${share(similarity)}`];
  return text("neighbour-facts", told.filter(Boolean).join(" · "));
}

function text(name, words) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = words;
  return span;
}

function isAddress(url) {
  return /^https?:/.test(url);
}
