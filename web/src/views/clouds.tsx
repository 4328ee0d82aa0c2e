export function CloudsView() {
  return <h1>Clouds</h1>;
}
