// Answers kept in this browser, in IndexedDB because pictures are too large for localStorage. Nothing here is ever sent.
// A kept answer is {at: ms, name, sample?, answer, said?, preview: Blob | null, bytes}; it gets its `id` when it is kept.
// Every function rejects when the browser refuses: a private window, storage forbidden, no room.

const DATABASE = "whence";
const STORE = "answers";
const MOST = 60; // answers; the oldest are dropped
const MOST_BYTES = 12 * 1024 * 1024; // of previews and answers together
const PREVIEW_SIDE = 800; // pixels, the longer side: enough for a printed report, some 100 kB as JPEG

/** Keeps an answer, drops what has become too much, and gives the `id`. */
export function keep(entry) {
  const bytes = (entry.preview?.size ?? 0) + 2 * JSON.stringify(entry).length;
  return within("readwrite", (store) => {
    const added = store.add({ ...entry, bytes });
    let [count, total] = [0, 0];
    each(store, (cursor) => {
      count += 1;
      total += cursor.value.bytes;
      if (count > MOST || total > MOST_BYTES) cursor.delete();
    });
    return added;
  });
}

/** All kept answers, newest first. */
export function kept() {
  const result = [];
  return within("readonly", (store) => {
    each(store, (cursor) => result.push(cursor.value));
    return { result };
  });
}

/** Adds what somebody `said` to an answer that is kept. */
export function add(id, said) {
  return within("readwrite", (store) => {
    const found = store.get(id);
    found.onsuccess = () => found.result && store.put({ ...found.result, said });
    return found;
  });
}

/** Forgets one answer. */
export function forget(id) {
  return within("readwrite", (store) => store.delete(id));
}

/** Forgets all answers. */
export function forgetAll() {
  return within("readwrite", (store) => store.clear());
}

/** A small JPEG of an <img> that is loaded. */
export function preview(image) {
  const scale = Math.min(1, PREVIEW_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  const brush = canvas.getContext("2d");
  brush.fillStyle = "white"; // what is transparent, as the model sees it
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.imageSmoothingQuality = "high";
  brush.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
}

/** The result of the request that `work` makes of the store, when all of the transaction is done. */
async function within(mode, work) {
  const database = await opened();
  try {
    const transaction = database.transaction(STORE, mode);
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    const request = work(transaction.objectStore(STORE));
    await done;
    return request.result;
  } finally {
    database.close();
  }
}

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1); // throws where storage is forbidden: that rejects, too
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Calls `visit` with a cursor at each kept answer, newest first. */
function each(store, visit) {
  store.openCursor(null, "prev").onsuccess = ({ target: { result: cursor } }) => {
    if (!cursor) return;
    visit(cursor);
    cursor.continue();
  };
}
