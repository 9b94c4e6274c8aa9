// Requests to the gateway. Every failure is an ApiError whose message a person can read.
import type { ErrorBody } from "./contract";

export class ApiError extends Error {
  constructor(
    readonly status: number, // 0: the gateway was not reached
    readonly body: ErrorBody,
    readonly retryAfterS: number | null = null,
    readonly mayRetry: boolean = false,
  ) {
    super(body.message);
  }
}

/** Called when the gateway no longer knows who asks. */
export const session = { lost: () => {} };

type Options = { body?: unknown; raw?: BodyInit; headers?: Record<string, string>; signal?: AbortSignal };

/** One request; resolves with the decoded body, or null for an empty one. Throws ApiError. */
export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json", ...options.headers };
  const init: RequestInit = { method, headers, credentials: "same-origin" };
  if (options.signal) init.signal = options.signal;
  if (options.raw !== undefined) init.body = options.raw;
  else if (method !== "GET") {
    headers["content-type"] = "application/json";
    init.body = JSON.stringify(options.body ?? {});
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (cause) {
    if (options.signal?.aborted) throw cause;
    throw new ApiError(0, { message: "the server was not reached" });
  }
  const text = await response.text();
  if (!response.ok) {
    if (response.status === 401 && path !== "/api/login") session.lost();
    throw refusal(response, text);
  }
  return (text ? JSON.parse(text) : null) as T;
}

export const get = <T>(path: string) => call<T>("GET", path);
export const post = <T>(path: string, body?: unknown, headers?: Record<string, string>) =>
  call<T>("POST", path, { body, ...(headers && { headers }) });
export const put = <T>(path: string, body: unknown) => call<T>("PUT", path, { body });
export const patch = <T>(path: string, body: unknown) => call<T>("PATCH", path, { body });
export const remove = <T>(path: string) => call<T>("DELETE", path);

/** `?a=1&b=2` of what is not empty. */
export function query(values: Record<string, string | number | null | undefined>): string {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : "";
}

function refusal(response: Response, text: string): ApiError {
  let body: ErrorBody = { message: response.statusText || `status ${response.status}` };
  try {
    body = JSON.parse(text).error ?? body;
  } catch {
    // Not ours: a proxy in between answered in words of its own.
  }
  const wait = Number(response.headers.get("retry-after"));
  return new ApiError(
    response.status,
    body,
    Number.isFinite(wait) && wait > 0 ? wait : null,
    response.headers.get("x-should-retry") === "true",
  );
}
