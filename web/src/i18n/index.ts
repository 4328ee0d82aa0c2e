// Words in two languages. Each part of the console has a file of messages here; the
// types make sure that both languages have every message.

import { signal } from "@preact/signals";

export type Lang = "en" | "zh";

export interface Messages<K extends string> {
  en: Record<K, string>;
  zh: Record<K, string>;
}

const key = "notebookd.lang";

function preferred(): Lang {
  const stored = localStorage.getItem(key);
  if (stored === "en" || stored === "zh") return stored;
  for (const language of navigator.languages) {
    if (language.toLowerCase().startsWith("zh")) return "zh";
    if (language.toLowerCase().startsWith("en")) return "en";
  }
  return "en";
}

/** The language that is shown. */
export const lang = signal<Lang>(preferred());

export function setLang(value: Lang): void {
  localStorage.setItem(key, value);
  lang.value = value;
}

/** The tag for Intl and for the lang attribute. */
export function locale(): string {
  return lang.value === "zh" ? "zh-CN" : "en";
}

export function messages<K extends string>(en: Record<K, string>, zh: Record<NoInfer<K>, string>): Messages<K> {
  return { en, zh };
}

export type Translate<K extends string> = (key: K, params?: Record<string, string | number>) => string;

/** translator returns what puts the messages into words: `{name}` is replaced by a parameter. */
export function translator<K extends string>(all: Messages<K>): Translate<K> {
  return (key, params = {}) => all[lang.value][key].replace(/\{(\w+)\}/g, (whole, name: string) => String(params[name] ?? whole));
}
