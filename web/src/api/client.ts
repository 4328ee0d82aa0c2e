// Calls of the REST API. Each fails with ApiError.

import { ApiError, errorOf, lost } from "./errors";
import { quote } from "./quote";
import { onUnauthenticated, token } from "./session";
import type { Caller, Cloud, ConsoleConfig, ImageChange, ListResponse, Notebook } from "./types";

async function call<T>(path: string, init: RequestInit = {}): Promise<T> {
  const headers = new Headers(init.headers);
  const bearer = token();
  if (bearer) headers.set("Authorization", `Bearer ${bearer}`);
  if (init.body) headers.set("Content-Type", "application/json");
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers, cache: "no-store" });
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw lost(cause);
  }
  if (!response.ok) {
    const error = await errorOf(response);
    if (error.reason === "UNAUTHENTICATED") onUnauthenticated(error, bearer);
    throw error;
  }
  try {
    return (await response.json()) as T;
  } catch (cause) {
    throw lost(cause);
  }
}

function query(params: Record<string, string | number | boolean | undefined>): string {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) if (value !== undefined && value !== "") out.set(name, String(value));
  const text = out.toString();
  return text ? `?${text}` : "";
}

export async function getConsoleConfig(): Promise<ConsoleConfig> {
  return await call<ConsoleConfig>("/console.json");
}

export async function getCaller(): Promise<Caller> {
  return (await call<{ caller?: Caller }>("/v1/caller")).caller ?? {};
}

export interface ListParams {
  parent?: string;
  filter?: string;
  orderBy?: string;
  pageSize?: number;
  pageToken?: string;
}

export async function listNotebooks({ parent, ...params }: ListParams, signal?: AbortSignal): Promise<ListResponse> {
  return await call<ListResponse>(`/v1/${parent ? `${parent}/` : ""}notebooks${query({ ...params })}`, signal ? { signal } : {});
}

/** getNotebook returns undefined when there is none of that name. */
export async function getNotebook(name: string): Promise<Notebook | undefined> {
  const answer = await listNotebooks({ parent: parentOf(name), filter: `name = ${quote(name)}` });
  return answer.notebooks?.[0];
}

export async function listClouds(signal?: AbortSignal): Promise<Cloud[]> {
  return (await call<{ clouds?: Cloud[] }>("/v1/clouds", signal ? { signal } : {})).clouds ?? [];
}

export interface ChangeImage {
  image: string;
  imageType?: string;
  registryCredential?: { username: string; password: string };
  requestId?: string;
  etag?: string;
  validateOnly?: boolean;
  acknowledge?: string[];
  reason?: string;
  /** A duration, "0s" to answer at once. */
  wait?: string;
}

export async function changeImage(name: string, request: ChangeImage): Promise<{ change: ImageChange; notebook?: Notebook }> {
  return await call(`/v1/${name}:changeImage`, { method: "POST", body: JSON.stringify(request) });
}

export async function getImageChange(name: string): Promise<ImageChange> {
  return (await call<{ imageChange: ImageChange }>(`/v1/${name}`)).imageChange;
}

export async function listImageChanges(params: { filter?: string; pageSize?: number; pageToken?: string }): Promise<{ imageChanges?: ImageChange[]; nextPageToken?: string }> {
  return await call(`/v1/imageChanges${query(params)}`);
}

/** parentOf is `clouds/{cloud}/locations/{location}` of a resource name below it. */
export function parentOf(name: string): string {
  return name.split("/").slice(0, 4).join("/");
}

export { ApiError, quote };
