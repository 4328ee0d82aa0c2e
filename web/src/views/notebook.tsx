export function NotebookView({ name }: { name: string }) {
  return <h1>{name}</h1>;
}
