// One call of the public API: a picture in, an answer or a Problem out. Knows nothing of the page.

const TIMEOUT_MS = 60_000; // longer than any deadline of the service: normally it is the service that says when it was too slow

const BROKEN_CONTRACT = 502; // what the service answers when a model gave it something else than it asked for
const EVERYTHING = ["decision", "heatmaps", "neighbours", "provenance"];
let explains = true; // until a model is seen that does not: somebody else's may know no more than plain answers

/** What went wrong, in words for people. `requestId` finds it in the service's log; `status` is HTTP's, 0 without one;
 * `passing`: it may work if asked again. */
export class Problem extends Error {
  constructor(title, detail, { requestId = null, status = 0, passing = true } = {}) {
    super(title);
    this.title = title;
    // A clause becomes a sentence. The service repeats the title where it has no more to say.
    this.detail = detail === title ? "" : detail.replace(/^\w/, (first) => first.toUpperCase()).replace(/(?<=\w|\))$/, ".");
    this.requestId = requestId;
    this.status = status;
    this.passing = passing;
  }
}

/** The answer of `classify` with all the evidence there is. */
export async function ask(picture, signal) {
  if (!explains) return classify(picture, signal);
  try {
    return await classify(picture, signal, { explain: EVERYTHING });
  } catch (problem) {
    if (problem.status !== BROKEN_CONTRACT) throw problem;
    const answer = await classify(picture, signal);
    explains = false;
    return answer;
  }
}

/** The model's answer for one picture (a Blob), unless `signal` aborts it: `{requestId, model, culture, probability, decision,
 * top, explanation}`. `explain` is a list of the API's kinds. */
export async function classify(picture, signal, { explain = ["decision"] } = {}) {
  const query = new URLSearchParams({ explain: explain.join(",") });
  const response = await post(`/v1/predict?${query}`, picture, signal);
  const reply = await response.json().catch(() => null);
  const requestId = reply?.request_id ?? response.headers.get("X-Request-ID");
  const prediction = reply?.predictions?.[0];
  const problem = response.ok ? prediction?.problem : reply;
  if (problem?.title) {
    const passing = problem.status >= 500 || problem.status === 408 || problem.status === 429;
    throw new Problem(problem.title, problem.detail ?? "", { requestId, status: problem.status, passing });
  }
  if (!prediction) {
    throw new Problem("The service gave no answer", `It replied with HTTP status ${response.status}.`, { requestId });
  }
  return { requestId, model: reply.model, ...prediction };
}

/** Tells the service which culture somebody believes in, about an `answer` of `classify`. When it returns, it is kept. The same
 * `key` is kept once, so that it may be sent again. */
export async function say({ requestId, explanation }, { culture, note }, key, signal) {
  const digest = explanation?.provenance?.picture_sha256;
  const body = JSON.stringify({ request_id: requestId, culture, note, ...(digest && { picture_sha256: digest }) });
  const response = await post("/v1/feedback", body, signal, { "Content-Type": "application/json", "Idempotency-Key": key });
  if (response.ok) return;
  const { title = "The service gave no answer", detail = "", request_id: id } = await response.json().catch(() => ({}));
  throw new Problem(title, detail, { requestId: id, status: response.status });
}

// The service goes by a picture's bytes. The browser's guess from the file's name would only be one more thing to be wrong.
const BYTES = { "Content-Type": "application/octet-stream" };

async function post(address, body, signal, headers = BYTES) {
  try {
    return await fetch(address, {
      method: "POST",
      body,
      headers: { Accept: "application/json", ...headers },
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
  } catch (error) {
    if (signal.aborted) throw error;
    if (error.name === "TimeoutError") {
      throw new Problem("The service took too long", "There was no answer within a minute.");
    }
    throw new Problem("The service could not be reached", "Check the connection, and that the picture is still there.");
  }
}
