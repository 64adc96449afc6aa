// One call of the public API: a picture in, an answer or a Problem out. Knows nothing of the page.

import { Problem, problemOf } from "./problems.js";

const TIMEOUT_MS = 60_000; // longer than what the service is given: it is for the service to say that it was too slow
const LARGE = 1_000_000; // bytes that over a slow line may take all the time that the service gives unasked

const BROKEN_CONTRACT = "/problems/broken-contract"; // what the service answers when a model gave it something else than it asked for
const EVERYTHING = ["decision", "heatmaps", "neighbours", "provenance"];
let explains = true; // until a model is seen that does not: somebody else's may know no more than plain answers

/** The answer of `classify` with all the evidence there is, and with a `preview` when asked. */
export async function ask(picture, signal, { preview = false } = {}) {
  if (!picture.size) throw new Problem("The file is empty", "Perhaps it was not saved or copied completely.", { passing: false });
  const drawn = preview ? ["preview"] : [];
  if (explains) {
    try {
      return await classify(picture, signal, { explain: [...EVERYTHING, ...drawn] });
    } catch (problem) {
      if (problem.type !== BROKEN_CONTRACT) throw problem;
    }
  }
  const answer = await classify(picture, signal, { explain: ["decision", ...drawn] });
  explains = false;
  return answer;
}

/** The model's answer for one picture (a Blob), unless `signal` aborts it: `{requestId, model, culture, probability, decision,
 * top, explanation, preview}`. `explain` is a list of the API's kinds; `preview` is a Blob, null when it was not asked for. */
export async function classify(picture, signal, { explain = ["decision"] } = {}) {
  const query = new URLSearchParams({ explain: explain.join(",") });
  // The service gives no more than it is set to, however much is asked for.
  const headers = picture.size > LARGE ? { ...BYTES, "X-Request-Timeout": TIMEOUT_MS / 1000 - 5 } : BYTES;
  const { response, reply } = await post(`/v1/predict?${query}`, picture, signal, headers).catch((problem) => explained(problem, picture, signal));
  const prediction = reply?.predictions?.[0];
  if (!response.ok || !prediction?.decision) throw problemOf(response, response.ok ? prediction?.problem : reply);
  const { preview, ...explanation } = prediction.explanation ?? {};
  return { requestId: reply.request_id, model: reply.model, ...prediction, explanation, preview: preview ? jpeg(preview) : null };
}

/** Tells the service which culture somebody believes in, about an `answer` of `classify`. When it returns, it is kept. The same
 * `key` is kept once, so that it may be sent again. */
export async function say({ requestId, explanation }, { culture, note }, key, signal) {
  const digest = explanation?.provenance?.picture_sha256;
  const body = JSON.stringify({ request_id: requestId, culture, note, ...(digest && { picture_sha256: digest }) });
  const { response, reply } = await post("/v1/feedback", body, signal, { "Content-Type": "application/json", "Idempotency-Key": key });
  if (!response.ok) throw problemOf(response, reply);
}

// The service goes by a picture's bytes. The browser's guess from the file's name would only be one more thing to be wrong.
const BYTES = { "Content-Type": "application/octet-stream" };

/** The whole response, with the JSON in it as `reply`: null when it is none. */
async function post(address, body, signal, headers) {
  try {
    const response = await fetch(address, {
      method: "POST",
      body,
      headers: { Accept: "application/json", ...headers },
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
    return { response, reply: parsed(await response.text()) };
  } catch (error) {
    if (signal.aborted) throw error;
    if (error.name === "TimeoutError") {
      throw new Problem("The service took too long", "There was no answer within a minute. Nothing is lost: try again.");
    }
    throw new Problem("The service could not be reached", "It may be starting again, or the connection is gone. Nothing is lost: try again in a moment.");
  }
}

/** Throws what kept `picture` from the service: when its file is gone, that is it. */
async function explained(problem, picture, signal) {
  signal.throwIfAborted();
  await picture.slice(0, 1).arrayBuffer().catch(() => {
    throw new Problem("The file cannot be read", "It was moved, changed or deleted since it was chosen, or it is a folder.", { passing: false });
  });
  throw problem;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function jpeg({ jpeg: base64 }) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/jpeg" });
}
