import { still } from "../fixtures/clouds.ts";
import { Authority, type Pair } from "../fixtures/certificates.ts";
import { inTheWay, narrow, show, wide } from "../fixtures/looks.ts";
import { expect, test as base } from "../fixtures/test.ts";
import { english } from "../fixtures/words.ts";

const test = base.extend<{ callers: { anna: Pair; carl: Pair } }>({
  callers: async ({ dir }, use) => {
    const ours = await Authority.make(dir, "ours");
    // One after the other: an authority counts what it has issued.
    const anna = await ours.issue("anna", "client");
    const carl = await ours.issue("carl", "client");
    await ours.issue("server", "server");
    await use({ anna, carl });
  },
  serverOptions: async ({ dir, callers: _ }, use) => {
    await use({
      tls: true,
      config: `tls: {cert: ${dir}/server.crt, key: ${dir}/server.key, client_ca: ${dir}/ours.crt}
auth:
  certificates: {}
  policy:
    - {role: operator, subjects: ["cert:anna"]}`,
    });
  },
});

test("a client certificate signs in without a word, and none is told what to do", async ({ browser, server, callers, guard, expected }) => {
  const open = async (pair: Pair | undefined) => {
    // The browser does not know the authority of the server's certificate.
    const context = await browser.newContext({
      ignoreHTTPSErrors: true,
      ...(pair ? { clientCertificates: [{ origin: server.url, certPath: pair.cert, keyPath: pair.key }] } : {}),
    });
    await guard(context);
    const page = await context.newPage();
    await page.goto(`${server.url}/#/${still.core}`);
    return { page, [Symbol.asyncDispose]: () => context.close() };
  };

  {
    await using anna = await open(callers.anna);
    await expect(anna.page.getByRole("link", { name: "Change image" })).toBeVisible();
    await expect(anna.page.getByText("cert:anna")).toBeVisible();
    await expect(anna.page.getByRole("button", { name: "Sign out" })).toHaveCount(0);
  }
  {
    await using carl = await open(callers.carl);
    await expect(carl.page.getByRole("heading", { name: "You have no role yet" })).toBeVisible();
    await expect(carl.page.getByText("cert:carl").first()).toBeVisible();
  }
  expected.refusals = ["401 GET /v1/caller", /^40[13] GET \/v1\//];
  await using nobody = await open(undefined);
  await expect(nobody.page.getByRole("heading", { name: "Sign in", exact: true })).toBeVisible();
  await expect(nobody.page.getByRole("heading", { name: "With a client certificate" })).toBeVisible();
  await expect(nobody.page.getByRole("heading")).toHaveCount(2);
  await expect(nobody.page.getByText("import the certificate into the browser")).toBeVisible();
  await nobody.page.getByRole("button", { name: "Try the certificate again" }).click();
  await expect(nobody.page.getByRole("alert")).toHaveText("The browser showed no certificate that the server accepts.");
  for (const look of [wide, narrow]) {
    await show(nobody.page, look);
    expect(await inTheWay(nobody.page)).toEqual([]);
  }
  await show(nobody.page, { ...wide, language: "zh" });
  expect(await english(nobody.page, [])).toEqual([]);
});
