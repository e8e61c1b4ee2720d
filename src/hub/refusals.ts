/**
 * The sentences for what goes wrong between this machine and the hub, each with what helps.
 */
import { BasedXLError, escaped } from "../errors.ts";
import type { HubSettings } from "./settings.ts";

/** What a request asks for; messages name it. */
export interface Wanted {
  id: string;
  revision: string;
  /** undefined: the repository itself. */
  file?: string | undefined;
}

/** The error of an answer with a status over 299. `host` is null where the hub itself answered. */
export function statusRefusal(
  status: number,
  headers: Headers,
  wanted: Wanted,
  settings: HubSettings,
  host: string | null,
): BasedXLError {
  const { endpoint } = settings;
  if (status === 407) return refusal(`The proxy asks for a password (407); ${proxyAdvice}.`);
  if (status === 429) {
    const advice = settings.token === null ? ", or set HF_TOKEN, which has a higher limit" : "";
    return refusal(
      `${host ?? endpoint} has had too many requests from here (429); try again later${advice}.`,
    );
  }
  if (host !== null) {
    const what = `${host}, to which ${endpoint} sends the download of ${shown(wanted)},`;
    return refusal(`${what} answered with status ${status}; try again later.`);
  }
  if (status >= 500) {
    return refusal(`${endpoint} does not work at the moment (status ${status}); try again later.`);
  }
  return hubRefusal(status, headers, wanted, settings);
}

/** The error of a request without an answer, by Bun's code for it. */
export function networkRefusal(
  url: string,
  code: string,
  message: string,
): { error: BasedXLError; isFinal: boolean; isHard: boolean } {
  const { host } = new URL(url);
  const proxy = proxyFor(url);
  const via = proxy === null ? "" : ` by the proxy of ${proxy}`;
  const isTls = /CERT|SELF_SIGNED|UNABLE_TO_|EPROTO|TLS|SSL/i.test(code);
  const result = (sentence: string, isHard: boolean) => {
    return { error: refusal(sentence), isFinal: isTls, isHard };
  };
  if (isTls) {
    return result(
      `The connection to ${host}${via} is not safe (${escaped(code, 60)}); behind a proxy that ` +
        "opens TLS, name its certificate in NODE_EXTRA_CA_CERTS.",
      true,
    );
  }
  switch (code) {
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return result(
        `There is no address for ${host}${via}: is this machine online? ${proxyHint}.`,
        true,
      );
    case "ECONNREFUSED":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
      return result(
        `${host} cannot be reached${via} (${code}); check the connection${via && ", the proxy"} ` +
          "and HF_ENDPOINT.",
        true,
      );
    case "ERR_PROXY_TUNNEL":
      return result(
        `The proxy of ${proxy} does not connect to ${host}; one with a password is written ` +
          "http://USER:PASSWORD@HOST:PORT.",
        true,
      );
    case "ETIMEDOUT":
      return result(`${host} does not answer${via}; try again later.`, false);
    default:
      return result(
        `The connection to ${host}${via} broke off (${escaped(code || message, 80)}); try again.`,
        false,
      );
  }
}

export function redirectRefusal(endpoint: string, how: string): BasedXLError {
  return refusal(`${endpoint} sends requests ${how}; is HF_ENDPOINT right?`);
}

/** A web page where a file or JSON was expected. */
export function webPageRefusal(host: string, what: string): BasedXLError {
  return refusal(
    `${host} answered with a web page instead of ${what}: a proxy or the log-in page of this ` +
      "network may stand in between; open any page in a browser, then try again.",
  );
}

export function refusal(sentence: string): BasedXLError {
  return new BasedXLError("download", sentence);
}

// --- internal ---

const tokensPage = "https://huggingface.co/settings/tokens";
const proxyAdvice = "set HTTPS_PROXY to http://USER:PASSWORD@HOST:PORT";
const proxyHint = "Behind a proxy, set HTTPS_PROXY";

function shown({ id, file }: Wanted): string {
  return escaped(file === undefined ? id : `${id}:${file}`, 300);
}

/** Of the hub itself, by the code that it gives beside the status. */
function hubRefusal(
  status: number,
  headers: Headers,
  wanted: Wanted,
  { endpoint, token, tokenSource }: HubSettings,
): BasedXLError {
  const { id, revision, file } = wanted;
  const page = `${endpoint}/${id}`;
  const code = headers.get("x-error-code") ?? "";
  const message = headers.get("x-error-message") ?? "";
  const said = message === "" ? "" : ` ("${escaped(message, 200)}")`;
  const setToken =
    token === null
      ? `set HF_TOKEN to a token from ${tokensPage}`
      : `use a token of an account that may (the one in ${tokenSource} may not)`;
  if (/Access to this resource is disabled/i.test(message) || code === "DisabledRepo") {
    return refusal(`The hub has closed ${id}${said}; choose another model.`);
  }
  if (code === "GatedRepo") {
    return refusal(
      `${id} is gated: accept its terms at ${page}, then ` +
        (token === null
          ? `set HF_TOKEN to a token of that account from ${tokensPage}.`
          : `use a token of that account (the one in ${tokenSource} is refused).`),
    );
  }
  if (code === "RevisionNotFound") {
    return refusal(
      `${id} has no branch, tag or commit ${escaped(revision, 100)}; ${page}/tree/main shows ` +
        "those that there are.",
    );
  }
  if (code === "EntryNotFound") {
    return refusal(`${id} has no file ${escaped(file ?? "", 300)}; ${page}/tree/main lists them.`);
  }
  if (status === 401 && (token !== null || /invalid/i.test(message)) && code !== "RepoNotFound") {
    return refusal(
      `The hub refuses the token in ${tokenSource}${said}; make one at ${tokensPage}.`,
    );
  }
  if (status === 401 || status === 404 || code === "RepoNotFound") {
    return refusal(
      `The hub has no model ${id}, or it is private: check the name; for a private one ` +
        `${setToken}.`,
    );
  }
  if (status === 403) return refusal(`The hub does not let ${id} be read${said}; ${setToken}.`);
  return refusal(
    `${endpoint} answered the request for ${shown(wanted)} with status ${status}${said}.`,
  );
}

/** The variable whose proxy Bun uses for `url`, or null. */
function proxyFor(url: string): string | null {
  const scheme = new URL(url).protocol === "https:" ? "HTTPS_PROXY" : "HTTP_PROXY";
  const name = [scheme, scheme.toLowerCase()].find((each) => process.env[each]);
  return name ?? null;
}
