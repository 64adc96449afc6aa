// Beside an answer: where the model looked, as light falling on the picture, and the objects that it resembles most.

import { classify } from "./api.js";
import { DARKNESS, veil } from "./heat.js";
import { neighbours } from "./neighbours.js";

export class Evidence {
  /** `part` finds a part of the card by its class. `picture` is asked about cultures whose map is not at hand yet, null
   * when there is nobody to ask; `signal` ends all requests; `onMap(culture, png)` hears of every map that is shown. */
  constructor(part, picture, { signal, onMap }) {
    this.#part = part;
    this.#picture = picture;
    this.#signal = signal;
    this.#onMap = onMap;
    part("look").addEventListener("click", () => this.#look());
    part("evidence-culture").addEventListener("change", ({ target }) => this.#show(target.value));
    part("evidence-strength").addEventListener("input", ({ target }) => this.#strength(target.value));
  }

  #part;
  #picture;
  #signal;
  #onMap;
  #maps = new Map(); // culture -> PNG in base64

  /** Offers what came with a new answer, or nothing for none. */
  offer(answer) {
    const { heatmap, neighbours: resembled } = answer?.explanation ?? {};
    this.#maps = new Map(heatmap ? [[heatmap.culture, heatmap.png]] : []);
    this.#part("look").hidden = !heatmap || this.#part("shown").hidden;
    for (const name of ["evidence", "heat"]) this.#part(name).hidden = true;
    const cultures = this.#picture ? (answer?.top ?? []).map(({ culture }) => culture) : [...this.#maps.keys()];
    this.#part("evidence-culture").replaceChildren(...cultures.map((culture) => new Option(culture)));
    this.#part("neighbours").hidden = !resembled?.objects.length;
    this.#part("neighbour-list").replaceChildren(...neighbours(resembled?.objects ?? []));
  }

  async #look() {
    this.#part("look").hidden = true;
    this.#part("evidence").hidden = false;
    this.#part("evidence-culture").focus(); // the button that had the focus is gone
    await this.#show(this.#part("evidence-culture").value);
  }

  async #show(culture) {
    const words = this.#part("evidence-words");
    words.textContent = "Looking…";
    try {
      const png = this.#maps.get(culture) ?? (await this.#ask(culture));
      this.#maps.set(culture, png);
      if (this.#part("evidence-culture").value !== culture) return; // another one was chosen meanwhile
      await veil(this.#part("heat"), png, DARKNESS);
      this.#part("heat").hidden = false;
      this.#strength(this.#part("evidence-strength").value);
      words.textContent = `Light falls where the picture spoke for ${culture}, most where it is brightest.`;
      this.#onMap(culture, png);
    } catch (problem) {
      words.textContent = [problem.title ?? "No evidence to be had", problem.detail].filter(Boolean).join(". ");
    }
  }

  async #ask(culture) {
    const { explanation } = await classify(this.#picture, this.#signal, { explain: ["heatmap"], culture });
    return explanation.heatmap.png;
  }

  #strength(percent) {
    this.#part("heat").style.opacity = percent / 100;
  }
}
