// The page: pictures come in (chosen, dropped, pasted, sampled), a card for each goes up, the answers follow in turn.

import { ask } from "./api.js";
import { Card } from "./card.js";
import { Printer } from "./printer.js";
import { Problem } from "./problems.js";
import { Shelf } from "./shelf.js";

const AT_ONCE = 2; // pictures under way: the next is uploading while the model looks at the last
const MOST = 50; // pictures taken at a time; each keeps its preview in the browser's memory

const [drop, choose, file, results, notice, status, againAll] = [
  "drop", "choose", "file", "results", "notice", "status", "again-all",
].map((id) => document.getElementById(id));
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const queue = [];
const cards = new Map(); // element -> Card
const printer = new Printer(() => [...results.children].map((element) => cards.get(element)));
const shelf = new Shelf({ onOpen: reopen, onEmptied: () => choose.focus() });
let underWay = 0;

function take(submissions) {
  const taken = submissions.slice(0, MOST);
  const left = submissions.length - taken.length;
  tell(left ? `Took the first ${MOST} pictures and left ${left}. For whole folders there is the command “whence classify”.` : "");
  if (taken.length) hang(taken).forEach(enqueue);
}

/** Puts cards up above the others, and brings the first into sight. */
function hang(submissions) {
  const hung = submissions.map((submission) => new Card(submission, { onAgain: enqueue, onRemove: discard, onPrint: printer.one, onSaid: remember }));
  for (const card of hung) cards.set(card.element, card);
  results.prepend(...hung.map((card) => card.element));
  hung[0].drawn().then(show);
  return hung;
}

function show({ element }) {
  element.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "nearest" });
}

function enqueue(card) {
  card.waiting();
  queue.push(card);
  next();
  offerAgain();
}

/** Offers to try all again when several have failed that may work now. */
function offerAgain() {
  againAll.hidden = failedForNow().length < 2;
}

function failedForNow() {
  return [...results.children].map((element) => cards.get(element)).filter((card) => card.mayBeTriedAgain);
}

async function next() {
  if (underWay >= AT_ONCE || !queue.length) return;
  const card = queue.shift();
  underWay += 1;
  const sentence = await look(card).catch((error) =>
    card.failed(error instanceof Problem ? error : new Problem("The page failed", String(error))),
  );
  if (!card.removed.signal.aborted) status.textContent = sentence;
  underWay -= 1;
  offerAgain();
  next();
}

/** Asks about a card's picture, and for a copy of it that can be drawn when the browser cannot draw the file. */
async function look(card) {
  const { signal } = card.removed;
  const { preview, ...answer } = await ask(card.submission.picture, signal, { preview: !(await card.drawable) });
  if (preview) await card.show(preview);
  signal.throwIfAborted();
  return answered(card, answer);
}

function answered(card, answer) {
  const at = Date.now();
  const sentence = card.answered(answer, at);
  printer.refresh();
  card.keeping = keep(card, { at, answer });
  return sentence;
}

async function keep(card, { at, answer }) {
  const { name, sample } = card.submission;
  const preview = await card.preview();
  card.kept = await shelf.keep({ at, name, sample, answer, preview });
}

/** Keeps what somebody said beside the answer it is about. */
async function remember(card, said) {
  await card.keeping;
  if (card.kept !== null) await shelf.add(card.kept, said);
}

/** Shows a kept answer again, without asking anybody. */
function reopen(entry) {
  const { name, sample, preview: picture, answer, said, at } = entry;
  let card = [...cards.values()].find(({ kept }) => kept === entry.id);
  if (!card) {
    [card] = hang([{ name, sample, picture, entry }]);
    card.answered(answer, at);
    card.said(said);
    printer.refresh();
  }
  card.focus();
  show(card);
}

function discard(card) {
  const waiting = queue.indexOf(card);
  const place = [...results.children].indexOf(card.element);
  if (waiting >= 0) queue.splice(waiting, 1);
  cards.delete(card.element);
  card.remove();
  printer.refresh();
  offerAgain();
  const left = results.querySelectorAll(".remove");
  (left[Math.min(place, left.length - 1)] ?? choose).focus(); // the button that had the focus is gone
}

function tell(words) {
  notice.textContent = words;
  notice.hidden = !words;
}

function takeFiles(files) {
  take([...files].map((picture) => ({ name: picture.name, picture })));
}

againAll.addEventListener("click", () => {
  const failed = failedForNow();
  failed.forEach(enqueue);
  failed[0].focus(); // the button that had the focus is gone
});
choose.addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  takeFiles(file.files);
  file.value = ""; // so that choosing the same file again is a change again
});

// The whole window takes a drop: a picture let go beside the frame must not replace the page.
let depth = 0; // dragenter and dragleave come once per element passed
function dragging(change) {
  depth = change === 0 ? 0 : Math.max(0, depth + change);
  drop.classList.toggle("is-over", depth > 0);
}
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => carriesFiles(event) && dragging(+1));
addEventListener("dragleave", (event) => carriesFiles(event) && dragging(-1));
addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  dragging(0);
  takeFiles(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  const { types, files } = event.clipboardData;
  if (event.target.closest?.(".opinion-form input") && types.includes("text/plain")) return; // office programs copy text with a picture of it
  if (files.length) takeFiles(files);
});

for (const button of document.querySelectorAll(".sample")) {
  button.addEventListener("click", async () => {
    const { picture, ...sample } = button.dataset;
    try {
      const response = await fetch(picture);
      if (!response.ok) throw new Error(`HTTP status ${response.status}`);
      take([{ name: sample.title, picture: await response.blob(), sample }]);
    } catch {
      tell("The sample picture could not be fetched. Is the service still running?");
    }
  });
}
