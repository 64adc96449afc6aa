// Beside an answer: where the model looked, as light falling on the picture, and the objects that it resembles most.

import { DARKNESS, maps, veil } from "./heat.js";
import { neighbours } from "./neighbours.js";

export class Evidence {
  /** `part` finds a part of the card by its class; `onMap(map)` hears of every map that is shown. */
  constructor(part, onMap) {
    this.#part = part;
    this.#onMap = onMap;
    part("look").addEventListener("click", () => this.#look());
    part("evidence-culture").addEventListener("change", () => this.#show());
    part("evidence-strength").addEventListener("input", () => this.#strength());
  }

  #part;
  #onMap;
  #maps = [];

  /** Offers what came with a new answer, or nothing for none. */
  offer(answer) {
    const { neighbours: resembled } = answer?.explanation ?? {};
    this.#maps = answer ? maps(answer) : [];
    this.#part("look").hidden = !this.#maps.length || this.#part("shown").hidden;
    for (const name of ["evidence", "heat"]) this.#part(name).hidden = true;
    this.#part("evidence-culture").replaceChildren(...this.#maps.map(({ culture }) => new Option(culture)));
    this.#part("neighbours").hidden = !resembled?.objects.length;
    this.#part("neighbour-list").replaceChildren(...neighbours(resembled?.objects ?? []));
  }

  async #look() {
    this.#part("look").hidden = true;
    this.#part("evidence").hidden = false;
    this.#part("evidence-culture").focus(); // the button that had the focus is gone
    await this.#show();
  }

  async #show() {
    const chosen = this.#part("evidence-culture").value;
    const map = this.#maps.find(({ culture }) => culture === chosen);
    await veil(this.#part("heat"), map.png, DARKNESS);
    this.#part("heat").hidden = false;
    this.#strength();
    this.#part("evidence-words").textContent = `Bright areas are those that spoke for ${chosen}.`;
    this.#onMap(map);
  }

  #strength() {
    this.#part("heat").style.opacity = this.#part("evidence-strength").value / 100;
  }
}
