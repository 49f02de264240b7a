// What the page asks of its server, by paths beside the page itself. Errors are the server's own line.

const at = (path) => new URL(path, document.baseURI);
const place = (name) => at(`v1/bundles/${encodeURIComponent(name)}`);

/** The server's error; seconds: when to ask again, where it is busy; status: HTTP's number. */
export class Refusal extends Error {
  constructor(text, status, seconds = null) {
    super(text);
    Object.assign(this, { status, seconds });
  }
}

async function asked(url, options = {}) {
  let answer;
  try {
    answer = await fetch(url, { cache: "no-store", credentials: "omit", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer; is garnish serve running?", 0);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  const seconds = answer.status === 503 ? Math.min(Math.max(Number(answer.headers.get("Retry-After")) || 1, 1), 60) : null;
  throw new Refusal(String(told?.error ?? `The server answered ${answer.status}.`), answer.status, seconds);
}

/** {trunk: facts of the backbone, bundles: their names}. */
export async function served() {
  return (await asked(at("v1/bundles"))).json();
}

/** What the server says of one: {tasks: task → facts, …}. */
export async function about(name) {
  return (await asked(place(name))).json();
}

/**
 * Maps of a picture, in npz. keys: Map of bundle → its tasks, or null for all of them.
 * Returns {data: ArrayBuffer, seconds: until it was here}.
 */
export async function predict(picture, keys, signal) {
  const start = performance.now();
  const answer = await asked(at("v1/predict"), { ...posted(picture, keys, "application/x-npz"), signal });
  return { data: await answer.arrayBuffer(), seconds: (performance.now() - start) / 1000 };
}

/** The file of one map, as the server writes it: a Blob of PNG, or of TIFF where its numbers fit into no PNG. */
export async function mapFile(picture, bundle, task) {
  return (await asked(at("v1/predict"), posted(picture, new Map([[bundle, [task]]]), "image/png, image/tiff;q=0.5"))).blob();
}

function posted(picture, keys, type) {
  const body = new FormData();
  for (const [bundle, tasks] of keys) {
    body.append("bundle", bundle);
    for (const task of tasks ?? []) body.append("tasks", `${bundle}/${task}`);
  }
  if (type === "application/x-npz") body.append("confidence", "true");
  body.append("image", picture, picture.name ?? "picture");
  return { method: "POST", body, headers: { Accept: type } };
}

/** Send a bundle's two files; what the server says of it then. */
export async function putBundle(name, files, token) {
  const body = new FormData();
  for (const [file, data] of files) body.append(file, data, file);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return (await asked(place(name), { method: "PUT", body, headers })).json();
}
