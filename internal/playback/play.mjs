// Drives a headless Chromium for playback_test.go: reads one JSON object from stdin,
// writes one to stdout.
//
//   in:  { chromium, args, profile, page, script: "playThrough", options, screenshot }
//   out: what the page's function returned, and `console`: what the page complained of
//
// It looks at nothing itself: judging is the test's.
import { chromium } from 'playwright-core';

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const job = JSON.parse(Buffer.concat(chunks).toString('utf8'));

const context = await chromium.launchPersistentContext(job.profile, {
  executablePath: job.chromium,
  args: job.args,
  headless: true,
  viewport: { width: 640, height: 360 },
});
try {
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (m) => {
    if (m.type() === 'error' || m.type() === 'warning') complaints.push(`${m.type()}: ${m.text()}`);
  });
  page.on('pageerror', (e) => complaints.push(`uncaught: ${e.message}`));
  page.on('requestfailed', (r) => complaints.push(`request failed: ${r.url()}: ${r.failure()?.errorText}`));
  await page.goto(job.page, { waitUntil: 'load' });
  const result = await page.evaluate(([name, options]) => window[name](options), [job.script, job.options]);
  await page.screenshot({ path: job.screenshot });
  process.stdout.write(JSON.stringify({ ...result, console: complaints, browser: context.browser()?.version() ?? '' }));
} finally {
  await context.close();
}
