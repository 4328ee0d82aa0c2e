export function ChangeView({ name }: { name: string }) {
  return <h1>{name}</h1>;
}
