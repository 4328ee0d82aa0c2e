// Times in words, and a clock that the views tick with.

import { signal } from "@preact/signals";
import { locale } from "../i18n";
import { relativeTime } from "./format";

/** The time, to the second, while the page is looked at. */
export const now = signal(Date.now());

setInterval(() => {
  if (document.visibilityState === "visible") now.value = Date.now();
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") now.value = Date.now();
});

const units: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
  ["second", 1000],
];

/**
 * ago is how long ago a time is, or in how long it comes: "3 minutes ago", "in 2 days".
 * What is less than a second away has just been: the clock here ticks by the second.
 */
export function ago(time: string | number | undefined, at: number = now.value): string {
  if (time === undefined) return "";
  const ms = (typeof time === "number" ? time : Date.parse(time)) - at;
  const [unit, size] = units.find(([, size]) => Math.abs(ms) >= size) ?? ["second", 1000];
  // What is just now was, rather than will be.
  return relativeTime().format(Math.trunc(ms / size) || -0, unit);
}

/** clockTime is date and time of day for people. */
export function clockTime(time: string | undefined): string {
  if (!time) return "";
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "medium" }).format(Date.parse(time));
}

/** countdown is the time that is left: "1 d 03:12:09". Nothing is left when it is past. */
export function countdown(time: string | undefined, at: number = now.value): string {
  if (!time) return "";
  const s = Math.max(0, Math.ceil((Date.parse(time) - at) / 1000));
  const pad = (n: number) => String(n).padStart(2, "0");
  const days = Math.floor(s / 86400);
  const clock = `${pad(Math.floor(s / 3600) % 24)}:${pad(Math.floor(s / 60) % 60)}:${pad(s % 60)}`;
  return days > 0 ? `${days} ${locale() === "en" ? "d" : "天"} ${clock}` : clock;
}
