// The bars of an answer: a row for each culture, likeliest first.

import { share } from "./words.js";

const REST = 0.005; // below half a percent, what the service left out is not worth a bar

/** Rows for `top`, at most `most` of them; what they leave of the whole becomes one more. */
export function bars(top, most = Infinity) {
  const told = top.slice(0, most);
  const rest = 1 - told.reduce((sum, { probability }) => sum + probability, 0);
  const rows = rest > REST ? [...told, { culture: "All others", probability: rest }] : told;
  return rows.map(({ culture, probability }) => {
    const row = document.getElementById("bar").content.cloneNode(true).firstElementChild;
    row.querySelector(".bar-culture").textContent = culture;
    row.querySelector(".bar-share").textContent = share(probability);
    row.style.setProperty("--share", probability);
    return row;
  });
}
