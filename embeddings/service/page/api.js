// Calls of the service: one error for everything that can go wrong, and patience where the service is busy.

const TRIES = 4;

/** What went wrong with a call, in words for the person at the page. */
export class ServiceError extends Error {
  constructor(message, { status = 0, retryAfter = null, path = "" } = {}) {
    super(message);
    Object.assign(this, { status, retryAfter, path });
  }
}

let key = "";

export function setKey(value) {
  key = value;
}

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });

/** As fetch, but telling how much of the body was sent, which fetch cannot. */
function sending(path, { method, headers, body, signal, onSent }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, path);
    request.responseType = "blob";
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => event.lengthComputable && onSent(event.loaded, event.total));
    request.addEventListener("load", () => {
      const retry = request.getResponseHeader("Retry-After");
      const { status, statusText } = request;
      resolve(new Response(request.response, { status, statusText, headers: retry ? { "Retry-After": retry } : {} }));
    });
    request.addEventListener("error", () => reject(new TypeError("the connection failed")));
    request.addEventListener("abort", () => reject(signal.reason));
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(body);
  });
}

async function once(path, { method = "GET", json, form, signal, onSent } = {}) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    const body = json === undefined ? form : JSON.stringify(json);
    response = onSent ? await sending(path, { method, headers, body, signal, onSent }) : await fetch(path, { method, headers, signal, body });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  throw new ServiceError(await reason(response), { status: response.status, retryAfter, path });
}

async function reason(response) {
  const text = (await response.text()).slice(0, 2000);
  try {
    const said = JSON.parse(text);
    if (typeof said.error === "string") return said.error;
    if (Array.isArray(said.detail)) return said.detail.map((one) => `${(one.loc ?? []).slice(1).join(" ")}: ${one.msg}`).join("; ");
    if (typeof said.detail === "string") return said.detail;
  } catch { /* not JSON: a proxy answered */ }
  if (response.status === 413) return "This is larger than the service takes.";
  if (response.status === 429 || response.status === 503) return "The service is busy.";
  return `The service answered ${response.status} ${response.statusText}`.trim();
}

/** Call the service; where it is busy (429, 503), wait as long as it says and try again, telling `onWait`. */
export async function call(path, { onWait = () => {}, ...options } = {}) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await once(path, options);
    } catch (error) {
      const busy = error.status === 429 || error.status === 503;
      if (!busy || attempt === TRIES) throw error;
      const seconds = Math.min(30, error.retryAfter ?? 2 ** (attempt - 1));
      for (let left = Math.ceil(seconds); left > 0; left--) {
        onWait(left, attempt);
        await pause(Math.min(1, seconds), options.signal);
      }
    }
  }
}

export async function callJson(path, options) {
  return (await call(path, options)).json();
}

/** A picture of the service as an URL of this page; null where there is none. The caller revokes it. */
export async function picture(path, signal) {
  const response = await call(path, { signal });
  return URL.createObjectURL(await response.blob());
}

/** Let the browser save a blob under a name. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export { pause };
