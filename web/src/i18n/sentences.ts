// What the server says in words of its own: the steps of a plan, why a change failed,
// what is wrong with a filter. web/sentences/sentences.go reads the same table in the
// same way, and says what may be in it.

import { lang } from ".";
import table from "../../sentences/chinese.json";

// Bounds of what is looked at, since a caller's own text may be in a sentence.
const maxDepth = 4;
const maxParts = 5;

const placeholder = /\{[a-z]+\}/g;
const oneWord = '([^\\s"]\\S*)';
const patterns: Record<string, string> = { "{n}": "([0-9]+)", "{field}": oneWord, "{word}": oneWord, "{quoted}": '("(?:[^"\\\\]|\\\\.)*")' };

interface Template {
  form: RegExp;
  fixed: number;
  names: string[];
  chinese: string;
}

const whole = new Map<string, string>();
const templates: Template[] = [];
for (const [english, chinese] of Object.entries(table)) {
  const names = english.match(placeholder);
  if (!names) {
    whole.set(english, chinese);
    continue;
  }
  const fixed = english.split(placeholder);
  const form = fixed.map((text, i) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") + (i < names.length ? (patterns[names[i]!] ?? "(.+)") : "")).join("");
  templates.push({ form: new RegExp(`^${form}$`, "s"), fixed: fixed.join("").length, names, chinese });
}
// The one that says the most comes first.
templates.sort((a, b) => b.fixed - a.fixed);

function fill(t: Template, english: string, depth: number): string | undefined {
  const found = t.form.exec(english);
  if (!found) return undefined;
  const values = new Map<string, string>();
  for (const [i, name] of t.names.entries()) {
    const text = found[i + 1] ?? "";
    const value = name !== "{sentence}" ? (whole.get(text) ?? text) : depth > 0 ? all(text, depth - 1) : undefined;
    if (value === undefined) return undefined;
    values.set(name, value);
  }
  return t.chinese.replace(placeholder, (name) => values.get(name) ?? name);
}

function one(english: string, depth: number): string | undefined {
  const known = whole.get(english);
  if (known !== undefined) return known;
  for (const t of templates) {
    const chinese = fill(t, english, depth);
    if (chinese !== undefined) return chinese;
  }
  return undefined;
}

function all(english: string, depth: number): string | undefined {
  const known = one(english, depth);
  if (known !== undefined) return known;
  // A sentence may have semicolons of its own, so the longest parts come first.
  const parts = english.split("; ");
  if (parts.length > maxParts) return undefined;
  for (let n = parts.length - 1; n > 0; n--) {
    const first = one(parts.slice(0, n).join("; "), depth);
    const rest = first === undefined ? undefined : all(parts.slice(n).join("; "), depth);
    if (rest !== undefined) return `${first}；${rest}`;
  }
  return undefined;
}

/** chineseOf is what the server says in Chinese, if that is known. */
export const chineseOf = (english: string): string | undefined => all(english, maxDepth);

/** said is what the server says, in the language that is shown or else as it is. */
export const said = (english: string): string => (lang.value === "zh" ? (chineseOf(english) ?? english) : english);

/** langOf is the lang attribute of what said returns, where that is not the page's. */
export const langOf = (english: string): "en" | undefined => (lang.value === "zh" && chineseOf(english) === undefined ? "en" : undefined);
