/** Retries, timeouts and errors, against servers with faults. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  BadAnswer,
  BadRequest,
  ConnectionFailed,
  ConnectionLost,
  Overloaded,
  Rankd,
  ServerFault,
  TimedOut,
  Unauthorized,
  Unavailable,
} from "rankd";
import { playing } from "./stage.mjs";

const rerank = (stage, options, call) =>
  new Rankd({ baseUrl: stage.url, ...options }).rerank("q", ["d"], call);

const exactly = (kind) => (problem) => {
  assert.equal(problem.constructor, kind);
  return true;
};

const now = { "Retry-After": "0" };

async function closedPort() {
  return (await playing([{}], async () => {})).url;
}

// Node's fetch frees a connection shortly after the answer is read, so one caller may use two.
test("connections are reused", async () => {
  const { connections, heard } = await playing([{}], async (stage) => {
    const rankd = new Rankd({ baseUrl: stage.url });
    await rankd.batch(Array(50).fill({ query: "q", documents: ["d"] }), { concurrency: 1 });
  });

  assert.equal(heard.length, 50);
  assert.ok(connections <= 2, `${connections}`);
});

test("a batch keeps to its concurrency", async () => {
  let most = 0;

  const { heard } = await playing([{ delay: 10 }], async (stage) => {
    const rankd = new Rankd({ baseUrl: stage.url });
    await rankd.batch(Array(30).fill({ query: "q", documents: ["d"] }), { concurrency: 3 });
    most = stage.most;
  });

  assert.equal(heard.length, 30);
  assert.equal(most, 3);
});

for (const status of [429, 503]) {
  test(`a ${status} is retried after growing waits`, async () => {
    const { heard } = await playing([{ status }, { status }, {}], async (stage) => {
      assert.equal((await rerank(stage)).results[0].document, "d");
    });

    const [first, second, third] = heard.map(({ at }) => at);
    assert.ok(second - first >= 245);
    assert.ok(third - second >= 495);
  });
}

test("retries stop at the limit", async () => {
  const busy = { status: 429, body: "<html>", headers: { ...now, "X-Request-Id": "r-7" } };

  const { heard } = await playing([busy], async (stage) => {
    await assert.rejects(rerank(stage, { retries: 2 }), (problem) => {
      assert.ok(problem instanceof Overloaded);
      assert.equal(problem.requestId, "r-7");
      assert.equal(problem.retryAfter, 0);
      assert.match(problem.message, /<html>/);
      return true;
    });
  });

  assert.equal(heard.length, 3);
});

test("Retry-After in seconds is waited for", async () => {
  const { heard } = await playing(
    [{ status: 429, headers: { "Retry-After": "1" } }, {}],
    (stage) => rerank(stage),
  );

  assert.ok(heard[1].at - heard[0].at >= 995);
});

test("Retry-After as a date is waited for", async () => {
  const later = new Date(Date.now() + 2000).toUTCString();

  const { heard } = await playing(
    [{ status: 503, headers: { "Retry-After": later } }, {}],
    (stage) => rerank(stage),
  );

  assert.ok(heard[1].at - heard[0].at >= 900); // Dates have whole seconds.
});

test("an invalid Retry-After is ignored", async () => {
  for (const said of ["soon", "", "Infinity", "Wed, 21 Oct 2015 07:28:00 GMT", "-5"]) {
    const { heard } = await playing([{ status: 503, headers: { "Retry-After": said } }, {}], (stage) =>
      rerank(stage),
    );
    assert.equal(heard.length, 2);
  }
});

test("a wait longer than the timeout is not started", async () => {
  const began = performance.now();

  const { heard } = await playing(
    [{ status: 429, headers: { "Retry-After": "20" } }],
    (stage) => assert.rejects(rerank(stage, { timeout: 5000 }), exactly(Overloaded)),
  );

  assert.ok(performance.now() - began < 4000);
  assert.equal(heard.length, 1);
});

for (const [status, kind] of [
  [400, BadRequest],
  [401, Unauthorized],
  [403, Unauthorized],
  [413, BadRequest],
  [422, BadRequest],
  [500, ServerFault],
  [502, ServerFault],
  [504, TimedOut],
  [302, BadAnswer],
]) {
  test(`a ${status} is thrown at once`, async () => {
    const headers = { ...now, Location: "http://127.0.0.1:9/" };
    const { heard } = await playing([{ status, headers, body: "{}" }], async (stage) => {
      await assert.rejects(rerank(stage), exactly(kind));
    });

    assert.equal(heard.length, 1);
  });
}

for (const [body, message] of [
  ['{"error":{"message":"no","code":400}}', /^no$/],
  ['{"error":"no"}', /^no$/],
  ['{"detail":"no"}', /^no$/],
  ['{"detail":[{"msg":"no"}]}', /^HTTP 400 from/],
  ["null", /^HTTP 400 from/],
  ["", /an empty body$/],
]) {
  test(`${body || "nothing"} with a 400 becomes a BadRequest`, async () => {
    await playing([{ status: 400, body }], async (stage) => {
      await assert.rejects(rerank(stage), (problem) => {
        assert.match(problem.message, message);
        assert.equal(problem.code, undefined);
        return exactly(BadRequest)(problem);
      });
    });
  });
}

for (const body of ["", "<html>Welcome</html>", "[]", "null", '{"results":[{"index":"x"}]}']) {
  test(`${body || "nothing"} is a BadAnswer and not retried`, async () => {
    const { heard } = await playing([{ body }], async (stage) => {
      await assert.rejects(rerank(stage), exactly(BadAnswer));
    });

    assert.equal(heard.length, 1);
  });
}

test("a dropped connection is not retried", async () => {
  const { heard } = await playing([{ drops: true }], async (stage) => {
    await assert.rejects(rerank(stage), exactly(ConnectionLost));
  });

  assert.equal(heard.length, 1);
});

test("a closed port is retried", async () => {
  const began = performance.now();
  const stage = { url: await closedPort() };

  await assert.rejects(rerank(stage), exactly(ConnectionFailed));

  assert.ok(performance.now() - began >= 740);
  assert.equal(await new Rankd({ baseUrl: stage.url }).health(), false);
});

test("a slow answer times out", async () => {
  const began = performance.now();

  await playing([{ delay: 2000 }], async (stage) => {
    await assert.rejects(rerank(stage, { timeout: 300 }), (problem) => {
      assert.match(problem.message, /within 300 ms/);
      return exactly(TimedOut)(problem);
    });
    assert.ok(performance.now() - began < 1500);
  });
});

test("an answer that arrives byte by byte times out", async () => {
  await playing([{ drips: true }], async (stage) => {
    const began = performance.now();
    await assert.rejects(rerank(stage, {}, { timeout: 300 }), exactly(TimedOut));
    assert.ok(performance.now() - began < 1500);
  });
});

test("the timeout covers the retries too", async () => {
  const { heard } = await playing([{ status: 503, delay: 300, headers: now }], async (stage) => {
    const began = performance.now();
    await assert.rejects(
      rerank(stage, { timeout: 1000, retries: 50 }),
      (problem) => problem instanceof TimedOut || problem instanceof Unavailable,
    );
    assert.ok(performance.now() - began < 3000);
  });

  assert.ok(heard.length <= 4);
});

test("an aborted call throws the signal's reason", async () => {
  const reason = new Error("changed my mind");

  await playing([{ delay: 2000 }], async (stage) => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(rerank(stage, {}, { signal: controller.signal }), reason);
  });
});

test("an aborted wait ends at once", async () => {
  const { heard } = await playing(
    [{ status: 503, headers: { "Retry-After": "20" } }],
    async (stage) => {
      const began = performance.now();
      await assert.rejects(rerank(stage, {}, { signal: AbortSignal.timeout(200) }), {
        name: "TimeoutError",
      });
      assert.ok(performance.now() - began < 2000);
    },
  );

  assert.equal(heard.length, 1);
});

test("a call with an aborted signal is not sent", async () => {
  const { heard } = await playing([{}], async (stage) => {
    await assert.rejects(rerank(stage, {}, { signal: AbortSignal.abort() }), { name: "AbortError" });
  });

  assert.equal(heard.length, 0);
});

test("aborting a batch aborts all its requests", async () => {
  const { heard } = await playing([{ delay: 500 }], async (stage) => {
    const requests = Array(100).fill({ query: "q", documents: ["d"] });
    const batch = new Rankd({ baseUrl: stage.url }).batch(requests, {
      concurrency: 4,
      signal: AbortSignal.timeout(100),
    });
    await assert.rejects(batch, { name: "TimeoutError" });
  });

  assert.equal(heard.length, 4);
});

test("a call removes its listeners from the signal", async () => {
  const { signal } = new AbortController();
  let listeners = 0;
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...all) => (listeners++, addEventListener.apply(signal, all));
  signal.removeEventListener = (...all) => (listeners--, removeEventListener.apply(signal, all));

  await playing([{}], async (stage) => {
    await rerank(stage, {}, { signal });
    assert.equal(listeners, 0);
  });
});

test("the key and the headers are sent, and no further field", async () => {
  const { heard } = await playing([{}], (stage) =>
    rerank(stage, { apiKey: " secret\n", headers: { "X-Request-Id": "mine" } }),
  );

  assert.equal(heard[0].headers.authorization, "Bearer secret");
  assert.equal(heard[0].headers["x-request-id"], "mine");
  assert.equal(heard[0].headers["content-type"], "application/json");
  assert.deepEqual(JSON.parse(heard[0].body), { query: "q", documents: ["d"] });
});

test("invalid arguments are TypeErrors", async () => {
  const rankd = new Rankd();

  await assert.rejects(rankd.rerank("q", "one document"), TypeError);
  await assert.rejects(rankd.batch([{ query: "q", documents: "one" }]), TypeError);
  await assert.rejects(rankd.batch([], { concurrency: 0 }), RangeError);
  for (const baseUrl of ["127.0.0.1:8000", "ftp://x", "http://", ""]) {
    assert.throws(() => new Rankd({ baseUrl }), TypeError);
  }
});
