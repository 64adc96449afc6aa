// One call of the public API: a picture in, an answer or a Problem out. Knows nothing of the page.

const TIMEOUT_MS = 60_000; // longer than any deadline of the service: normally it is the service that says when it was too slow

/** What went wrong, in words for people. `requestId` finds it in the service's log; `passing`: it may work if asked again. */
export class Problem extends Error {
  constructor(title, detail, { requestId = null, passing = true } = {}) {
    super(title);
    this.title = title;
    // A clause becomes a sentence. The service repeats the title where it has no more to say.
    this.detail = detail === title ? "" : detail.replace(/^\w/, (first) => first.toUpperCase()).replace(/(?<=\w|\))$/, ".");
    this.requestId = requestId;
    this.passing = passing;
  }
}

/** The model's answer for one picture (a Blob), unless `signal` aborts it: `{requestId, model, culture, probability, decision,
 * top, explanation}`. `explain` is a list of the API's kinds; `culture` is whose heat map. */
export async function classify(picture, signal, { explain = ["decision"], culture } = {}) {
  const query = new URLSearchParams({ explain: explain.join(","), ...(culture && { culture }) });
  const response = await post(`/v1/predict?${query}`, picture, signal);
  const reply = await response.json().catch(() => null);
  const requestId = reply?.request_id ?? response.headers.get("X-Request-ID");
  const prediction = reply?.predictions?.[0];
  const problem = response.ok ? prediction?.problem : reply;
  if (problem?.title) {
    const passing = problem.status >= 500 || problem.status === 408 || problem.status === 429;
    throw new Problem(problem.title, problem.detail ?? "", { requestId, passing });
  }
  if (!prediction) {
    throw new Problem("The service gave no answer", `It replied with HTTP status ${response.status}.`, { requestId });
  }
  return { requestId, model: reply.model, ...prediction };
}

async function post(address, picture, signal) {
  try {
    return await fetch(address, {
      method: "POST",
      body: picture,
      // The service goes by the bytes. The browser's guess from the file's name would only be one more thing to be wrong.
      headers: { "Content-Type": "application/octet-stream", Accept: "application/json" },
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
