// A link that brings a search back: the pasted text, packed, and the form, in the part of the URL that no server sees.

const LONGEST_TEXT = 200000;
/** Links longer than this are cut by mail programs and chats. */
const LONGEST_LINK = 16000;

async function through(stream, data) {
  const out = new Response(new Blob([data]).stream().pipeThrough(stream));
  return new Uint8Array(await out.arrayBuffer());
}

/** A text, packed for a URL (raw deflate, base64url). */
export async function pack(text) {
  const packed = await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(text));
  let binary = "";
  for (const byte of packed) binary += String.fromCharCode(byte);
  return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

/** The text that was packed; throws where it is damaged or unpacks to more than a link may hold. */
export async function unpack(packed) {
  const binary = atob(packed.replace(/-/g, "+").replace(/_/g, "/"));
  const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    text += decoder.decode(value, { stream: true });
    if (text.length > LONGEST_TEXT) throw new Error("too long");
  }
}

/** The page's URL with this fragment, or null where it would be too long to be passed on. */
export function linkTo(fragment) {
  const url = new URL(location.href);
  url.hash = fragment.toString();
  return url.href.length > LONGEST_LINK ? null : url.href;
}
