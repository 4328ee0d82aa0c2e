// Formatters of Intl. To make one takes longer than to use it a hundred times.

import { lang, locale } from "../i18n";

/** perLocale keeps what is made for a locale. */
function perLocale<F>(make: (locale: string) => F): () => F {
  const made = new Map<string, F>();
  return () => {
    const now = locale();
    let format = made.get(now);
    if (!format) made.set(now, (format = make(now)));
    return format;
  };
}

/** Numbers with one digit after the point at most: "1,024", "0.5". */
export const numbers = perLocale((l) => new Intl.NumberFormat(l, { maximumFractionDigits: 1 }));

/** "3 min. ago", "in 2 days". */
export const relativeTime = perLocale((l) => new Intl.RelativeTimeFormat(l, { numeric: "always", style: "short" }));

/** list joins words as the language does, but for those that are missing: "a, b", "a、b". */
export const list = (words: readonly (string | undefined)[]): string => words.filter(Boolean).join(lang.value === "zh" ? "、" : ", ");
