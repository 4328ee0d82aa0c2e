// Proposals while somebody types a filter. They help to write it; what is right is
// what the server says.

import { notebookStates } from "../api/types";
import { quote } from "../api/quote";

type Kind = "text" | "state" | "number" | "time" | "list" | "message";

const kinds: Record<string, Kind> = {
  state: "state",
  cloud: "text",
  location: "text",
  name: "text",
  display_name: "text",
  "image.uri": "text",
  "image.type": "text",
  "image.display_name": "text",
  "resources.accelerator.count": "number",
  "resources.accelerator.model": "text",
  "resources.accelerator.type": "text",
  "resources.cpu_cores": "number",
  "resources.memory_bytes": "number",
  owner_id: "text",
  root_owner_id: "text",
  namespace: "text",
  cloud_state: "text",
  state_message: "text",
  server_type: "text",
  "resource_group.id": "text",
  "resource_group.code": "text",
  create_time: "time",
  update_time: "time",
  observe_time: "time",
  stop_time: "time",
  expire_time: "time",
  progress: "number",
  "image.size_bytes": "number",
  "resources.accelerator.available_count": "number",
  "resources.accelerator.max_count": "number",
  "endpoints.service_ip": "text",
  "endpoints.service_url": "text",
  "endpoints.ssh_url": "text",
  "endpoints.custom_port": "number",
  "mirrors.pip": "text",
  "mirrors.conda": "text",
  "mirrors.apt": "text",
  env_names: "list",
  attributes: "message",
};

const comparators: Record<Kind, string[]> = {
  text: ["=", "!=", ":", "<", "<=", ">", ">="],
  state: ["=", "!="],
  number: ["=", "!=", ">=", "<=", ">", "<"],
  time: ["<", "<=", ">", ">=", "=", "!="],
  list: [":"],
  message: [":"],
};

/** Proposals replace the text from..caret by one of them. */
export interface Proposals {
  from: number;
  options: string[];
}

const none: Proposals = { from: 0, options: [] };

/** proposals says what may come at the caret. values are asked for the values of a text field. */
export async function proposals(text: string, caret: number, values: (field: string, prefix: string) => Promise<string[]>): Promise<Proposals> {
  const before = text.slice(0, caret);
  if (((before.match(/(?<!\\)"/g) ?? []).length & 1) === 1 && !/(=|!=|:|<|>)\s*"[^"]*$/.test(before)) return none;

  const value = /([A-Za-z_][\w.]*)\s*(!=|<=|>=|=|<|>|:)\s*("?)([^\s"()]*)$/.exec(before);
  if (value) {
    const [, field = "", , open = "", typed = ""] = value;
    const from = caret - typed.length - open.length;
    switch (kinds[field]) {
      case "state":
        return { from, options: notebookStates.slice(1).map((s) => s.replace("STATE_", "")).filter((s) => s.startsWith(typed.toUpperCase()) && s !== typed) };
      case "text": {
        const found = await values(field, typed);
        return { from, options: found.filter((v) => v !== typed).slice(0, 12).map((v) => (/^[\w./:@-]+$/.test(v) ? v : quote(v))) };
      }
      case "time":
        return typed ? none : { from, options: [0, 1, 7].map((days) => new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 19) + "Z") };
      default:
        return none;
    }
  }

  const comparator = /(?:^|[\s(-])([A-Za-z_][\w.]*)\s+$/.exec(before);
  if (comparator?.[1] && kinds[comparator[1]]) return { from: caret, options: comparators[kinds[comparator[1]]!] };

  const word = /(?:^|[\s(-])([A-Za-z_][\w.]*)?$/.exec(before);
  if (!word) return none;
  const typed = word[1] ?? "";
  const from = caret - typed.length;
  const ended = /[^\s(]/.test(before.slice(0, from)) && !/(?:\b(?:AND|OR|NOT)|\()\s*$/.test(before.slice(0, from));
  const words = ended ? ["AND", "OR"] : ["NOT"];
  const fields = Object.keys(kinds);
  const lower = typed.toLowerCase();
  const joining = words.filter((w) => typed === "" || (w.startsWith(typed.toUpperCase()) && w !== typed));
  const options = [
    ...(ended ? joining : []),
    ...(ended && typed === "" ? [] : fields.filter((f) => f.startsWith(lower))),
    ...(ended && typed === "" ? [] : fields.filter((f) => !f.startsWith(lower) && lower !== "" && f.includes(lower))),
    ...(ended ? [] : joining),
  ];
  return { from, options: options.filter((o) => o !== typed).slice(0, 12) };
}

const simple = /^([A-Za-z_][\w.]*)\s*(!=|<=|>=|=|<|>|:)\s*(?:"(?:[^"\\]|\\.)*"|[^\s"()]+)$/;

/** factorsOf are the parts of a filter that AND joins. */
function factorsOf(filter: string): string[] {
  const factors: string[] = [];
  let from = 0;
  let depth = 0;
  for (const { 0: token, index } of filter.matchAll(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[()]|\s+AND(?=[\s(])\s*/g)) {
    if (token === "(") depth++;
    else if (token === ")") depth--;
    else if (depth === 0 && /^\s/.test(token)) {
      factors.push(filter.slice(from, index));
      from = index + token.length;
    }
  }
  return [...factors, filter.slice(from)];
}

/** and adds a term to a filter, in the place of one that says something else of the same. */
export function and(filter: string, term: string): string {
  const text = filter.trim();
  if (text === "") return term;
  const about = (factor: string) => simple.exec(factor)?.slice(1, 3).join(" ");
  const factors = factorsOf(text);
  const same = factors.findIndex((factor) => about(factor) !== undefined && about(factor) === about(term));
  if (same >= 0) return factors.map((factor, i) => (i === same ? term : factor)).join(" AND ");
  const or = factors.some((factor) => /\bOR\b/.test(factor.replaceAll(/"(?:[^"\\]|\\.)*"|\(.*\)/gs, "")));
  return `${or ? `(${text})` : text} AND ${term}`;
}
