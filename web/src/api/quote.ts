/** quote makes a text a value of the filter language. */
export function quote(text: string): string {
  return `"${text.replace(/(["\\])/g, "\\$1")}"`;
}
