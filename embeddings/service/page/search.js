// A search from the query to the answer: at once, or as a batch job where the file is large.

import { call, callJson, pause } from "./api.js";
import { ofAnswer, ofJob } from "./found.js";
import { bytes } from "./words.js";

/** Files larger than this are searched as jobs, whose progress can be told. */
const AT_ONCE_BYTES = 300000;
/** Looks at a job, a second apart, that may in a row not reach the service. */
const MOST_MISSED = 10;

function formOf(file, options) {
  const form = new FormData();
  const { filters = {}, ...plain } = options;
  for (const [name, value] of Object.entries({ ...plain, ...filters })) {
    for (const one of Array.isArray(value) ? value : [value]) form.append(name, String(one));
  }
  form.append("file", file, file.name);
  return form;
}

function request(query, options) {
  if (query.file) return ["api/search", () => ({ method: "POST", form: formOf(query.file, options) })];
  if (query.usi) return ["api/search/usi", () => ({ method: "POST", json: { usi: query.usi, ...options } })];
  return ["api/search/peaks", () => ({ method: "POST", json: { ...query.spectrum, ...options } })];
}

/**
 * Search, and return what was found: see found.js.
 *
 * `onProgress` is told {words, done, total}.
 */
export async function search(query, options, { signal, onProgress, onWait }) {
  const [path, make] = request(query, options);
  if (query.file && query.file.size > AT_ONCE_BYTES) return job(query, options, { signal, onProgress, onWait });
  onProgress({ words: query.file ? "Searching the spectra of the file…" : "Searching…" });
  try {
    const answer = await callJson(path, { ...make(), signal, onWait });
    return ofAnswer(answer, (format) => call(`${path}?format=${format}`, { ...make(), onWait }));
  } catch (error) {
    if (query.file && error.status === 413) return job(query, options, { signal, onProgress, onWait });
    throw error;
  }
}

async function job(query, options, { signal, onProgress, onWait }) {
  onProgress({ words: `Sending ${query.name}…` });
  const onSent = (done, total) => onProgress({ words: `Sending ${query.name}: ${bytes(done)} of ${bytes(total)}`, done, total });
  const begun = await callJson("api/jobs", { method: "POST", form: formOf(query.file, options), signal, onWait, onSent });
  const path = `api/jobs/${encodeURIComponent(begun.id)}`;
  try {
    let state = begun, missed = 0;
    for (let waited = 0.15; state.state === "queued" || state.state === "running"; waited = Math.min(1, waited * 1.5)) {
      onProgress(progressOf(state, query.name));
      await pause(waited, signal);
      try {
        state = await callJson(path, { signal });
        missed = 0;
      } catch (error) {
        if (error.status !== 0 || ++missed > MOST_MISSED) throw error; // a connection that fails for a while ends no job
      }
    }
    if (state.state !== "done") throw new Error(state.error || `The job was ${state.state}.`);
    onProgress({ words: "Fetching the hits…" });
    return await ofJob(path, signal);
  } catch (error) {
    call(path, { method: "DELETE" }).catch(() => {}); // nobody will ask for it again
    throw error;
  }
}

function progressOf(state, name) {
  if (state.state === "queued") return { words: "Waiting for the jobs before this one…" };
  if (state.queries === null || state.queries === undefined) return { words: `Reading ${name}…` };
  return {
    words: `${state.done.toLocaleString("en")} of ${state.queries.toLocaleString("en")} spectra searched`,
    done: state.done, total: state.queries,
  };
}
