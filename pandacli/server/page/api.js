// Requests to the server: JSON, uploads with progress, and server-sent events.

const KEY = "panda-api-key"; // in sessionStorage, so that it ends with the tab

export class ApiError extends Error {}

let askForKey = async () => null;
let asking = null; // one dialog for all requests that need the key

/** Set the function that asks for the API key: it is given whether the last one was wrong. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

function authorization() {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function newKey() {
  asking ??= askForKey(sessionStorage.getItem(KEY) !== null).finally(() => {
    asking = null;
  });
  sessionStorage.setItem(KEY, await asking);
}

async function send(path, body, signal) {
  const options = { signal, headers: authorization() };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it still running?");
  }
  if (response.status === 401) {
    await newKey();
    return send(path, body, signal);
  }
  if (!response.ok) throw new ApiError(await refusal(response));
  return response;
}

async function refusal(response) {
  try {
    return sentence((await response.json()).error.message);
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}

/** What to show of an error. */
export function reason(error) {
  if (error instanceof ApiError) return error.message;
  console.error(error);
  return `This page failed: ${error.message}`;
}

// a message of the server as a sentence
function sentence(message) {
  const text = String(message);
  return text[0].toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
}

/** The JSON of an address: GET, or POST where there is a body. */
export async function json(path, body, signal) {
  return (await send(path, body, signal)).json();
}

/** The objects of a stream of server-sent events; one that is an error is thrown. */
export async function* events(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new ApiError("The connection ended before the answer did.");
      text += value;
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const data = part.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(sentence(event.error.message));
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof TypeError) throw new ApiError("The connection to the server was lost.");
    throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Send a file; `onProgress` gets the share that is sent. Resolves to the server's record of it. */
export async function upload(file, onProgress, signal) {
  for (;;) {
    const { status, record } = await post(file, onProgress, signal);
    if (status === 401) await newKey();
    else if (status === 200) return record;
    else throw new ApiError(sentence(record?.error?.message ?? `status ${status}`));
  }
}

// fetch does not say how much of a body has been sent
function post(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("purpose", "user_data");
    form.append("file", file);
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/files");
    for (const [name, value] of Object.entries(authorization())) {
      request.setRequestHeader(name, value);
    }
    request.responseType = "json";
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onload = () => resolve({ status: request.status, record: request.response });
    request.onerror = () => reject(new ApiError("The file could not be sent."));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
