// Beside an answer, when asked for: where the model looked, as light falling on the picture, and the objects that it resembles most.

import { classify } from "./api.js";
import { share } from "./words.js";

export class Evidence {
  /** `part` finds a part of the card by its class; `signal` ends all requests when the card is removed. */
  constructor(part, picture, signal) {
    this.#part = part;
    this.#picture = picture;
    this.#signal = signal;
    part("look").addEventListener("click", () => this.#first());
    part("evidence-culture").addEventListener("change", ({ target }) => this.#heat(target.value));
    part("evidence-strength").addEventListener("input", ({ target }) => this.#strength(target.value));
  }

  #part;
  #picture;
  #signal;

  /** Offers evidence for a new answer, or for none. */
  offer(answer) {
    this.#part("look").hidden = !answer || this.#part("shown").hidden;
    for (const name of ["evidence", "heat", "neighbours"]) this.#part(name).hidden = true;
    const cultures = (answer?.top ?? []).map(({ culture }) => new Option(culture));
    this.#part("evidence-culture").replaceChildren(...cultures);
  }

  async #first() {
    this.#part("look").hidden = true;
    this.#part("evidence").hidden = false;
    this.#part("evidence-culture").focus(); // the button that had the focus is gone
    await this.#heat(this.#part("evidence-culture").value, ["neighbours"]);
  }

  async #heat(culture, more = []) {
    const words = this.#part("evidence-words");
    words.textContent = "Looking…";
    try {
      const { explanation } = await classify(this.#picture, this.#signal, { explain: ["heatmap", ...more], culture });
      await darken(this.#part("heat"), `data:image/png;base64,${explanation.heatmap.png}`);
      this.#part("heat").hidden = false;
      this.#strength(this.#part("evidence-strength").value);
      words.textContent = `Light falls where the picture spoke for ${culture}, most where it is brightest.`;
      if (explanation.neighbours) this.#neighbours(explanation.neighbours.objects);
    } catch (problem) {
      words.textContent = [problem.title ?? "No evidence to be had", problem.detail].filter(Boolean).join(". ");
    }
  }

  #strength(percent) {
    this.#part("heat").style.opacity = percent / 100;
  }

  #neighbours(objects) {
    this.#part("neighbours").hidden = !objects.length;
    this.#part("neighbour-list").replaceChildren(...objects.map(neighbour));
  }
}

/** Darkness over all that the map (few grey pixels, white where the model looked) leaves out. */
async function darken(canvas, map) {
  const image = new Image();
  image.src = map;
  await image.decode();
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  brush.imageSmoothingQuality = "high";
  brush.drawImage(image, 0, 0, canvas.width, canvas.height);
  const pixels = brush.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const seen = smooth(smooth(pixels.data[at] / 255));
    pixels.data.set([12, 9, 6, 255 * (1 - seen)], at);
  }
  brush.putImageData(pixels, 0, 0);
}

/** Brings out the difference between more and less, and keeps 0 and 1: the smoothstep of graphics. */
function smooth(value) {
  return value * value * (3 - 2 * value);
}

function neighbour({ title, artist, date, culture, source, url, licence, similarity }) {
  const item = document.createElement("li");
  const link = document.createElement(/^https?:/.test(url) ? "a" : "span");
  if (link.tagName === "A") Object.assign(link, { href: url, rel: "noreferrer" });
  link.textContent = title || "Untitled";
  const facts = document.createElement("span");
  facts.className = "neighbour-facts";
  facts.textContent = [artist, date, culture, source, licence, `similarity ${share(similarity)}`].filter(Boolean).join(" · ");
  item.append(link, facts);
  return item;
}
